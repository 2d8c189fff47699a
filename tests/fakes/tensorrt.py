"""A simulation of what ``tensorrt`` and ``tensorrt_rtx`` offer for running a plan, on ``fakes.cuda``.

Four shapes of the interface: 8.6, 10.3 (both names of what 11 removed), 11 and TensorRT for RTX. Names and their
presence were read from the libraries' Python bindings (8.6.1, 10.3.0, 11.4.0, tensorrt_rtx 1.7.1). A context computes
in two steps through its activation memory, as a real one does, so that two frames at once in that memory spoil each
other; and its first run does something that a capture forbids.

What this shows: that we call what each version has, in an order that it could work with, and let everything go. What
it cannot show: the vendor's behaviour, a plan's numbers, speed.
"""

from __future__ import annotations

import enum
import json
import struct
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any
from weakref import WeakSet

import numpy as np

from .cuda import FakeCuda

INPUTS = {"frame": ("uint8", (1, 4, 6, 3)), "noise": ("float32", (1, 2))}
OUTPUTS = {"image": ("uint8", (1, 4, 6, 3)), "doubled": ("float32", (1, 2))}
ACTIVATIONS = 4096
PLAN = {"inputs": INPUTS, "outputs": OUTPUTS}
_RTX_HEADER = struct.Struct("<4sIIIQ4B32x")
_RTX_VERSION = (1, 7, 1, 116)
VERSIONS = {"8.6": "8.6.1", "10.3": "10.3.0", "11": "11.4.0.106", "rtx": ".".join(map(str, _RTX_VERSION))}

Severity = enum.Enum("Severity", "INTERNAL_ERROR ERROR WARNING INFO VERBOSE")
TensorIOMode = enum.Enum("TensorIOMode", "NONE INPUT OUTPUT")
TensorLocation = enum.Enum("TensorLocation", "DEVICE HOST")
Allocation = enum.Enum("Allocation", "STATIC ON_PROFILE_CHANGE USER_MANAGED")
CudaGraphStrategy = enum.Enum("CudaGraphStrategy", "DISABLED WHOLE_GRAPH_CAPTURE")
EngineStat = enum.Enum("EngineStat", "TOTAL_WEIGHTS_SIZE")


class Diagnostics(enum.IntFlag):
    MALFORMED_ENGINE, VERSION_MISMATCH, UNSUPPORTED_CC, OLD_CUDA_DRIVER = 1, 2, 4, 8
    OLD_CUDA_RUNTIME, INSUFFICIENT_GPU_MEMORY, CUDA_ERROR = 16, 32, 64


def expected(feeds: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """What a plan of this simulation computes."""
    return {"image": 255 - feeds["frame"], "doubled": feeds["noise"] * 2}


def plan_bytes(api: str, /, **content: Any) -> bytes:
    """A plan for the simulated version ``api``, of ``PLAN`` with ``content`` put over it."""
    body = json.dumps({**PLAN, "api": api, **content}).encode()
    head = b"ftrt"
    if api == "rtx":
        head = _RTX_HEADER.pack(b"vtrt", 0, 2, 0, _RTX_HEADER.size + len(body), *_RTX_VERSION)
    return head + body


@dataclass
class Behaviour:
    """What a test can change, and what it can read afterwards."""

    refuses_capture: bool = False
    refuses_context: bool = False
    refuses_cache: bool = False
    fails: str = ""
    """The message with which the next run fails."""
    faults: bool = False
    """Let every kernel touch memory that is not there."""
    runs: int = 0
    addresses: int = 0
    strategies: list[Any] = field(default_factory=list)
    alive: WeakSet[Any] = field(default_factory=WeakSet)


class Library:
    """One simulated library; ``module`` stands in for its package."""

    def __init__(self, cuda: FakeCuda, api: str) -> None:
        self.cuda, self.api = cuda, api
        self.behaviour = Behaviour()
        self.module = self._module()

    def _module(self) -> ModuleType:
        module = ModuleType("tensorrt_rtx" if self.api == "rtx" else "tensorrt")
        names = {"ILogger": ILogger, "TensorIOMode": TensorIOMode, "TensorLocation": TensorLocation}
        names |= {
            "Runtime": lambda logger: Runtime(self, logger),
            "nptype": np.dtype,
            "__version__": VERSIONS[self.api],
        }
        if self.api != "8.6":
            names["ExecutionContextAllocationStrategy"] = Allocation
        if self.api in {"11", "rtx"}:
            names["EngineStat"] = EngineStat
        if self.api == "rtx":
            names |= {"CudaGraphStrategy": CudaGraphStrategy, "EngineInvalidityDiagnostics": Diagnostics}
        else:
            names["init_libnvinfer_plugins"] = lambda logger, _: logger is not None
        for name, value in names.items():
            setattr(module, name, value)
        return module


class ILogger:
    Severity = Severity


class _Counted:
    def __init__(self, library: Library) -> None:
        self._library = library
        library.behaviour.alive.add(self)


class Runtime(_Counted):
    engine_header_size = 64

    def __init__(self, library: Library, logger: Any) -> None:
        super().__init__(library)
        self._logger = logger

    def get_engine_validity(self, _head: bytes) -> tuple[int, int]:
        return 0, 0

    def deserialize_cuda_engine(self, plan: Any) -> Any:
        head = _RTX_HEADER.size if self._library.api == "rtx" else 4
        content = json.loads(bytes(plan[head:]))
        problem = content.get("problem") or (
            "" if content["api"] == self._library.api else "Version tag does not match"
        )
        if problem:
            self._logger.log(Severity.ERROR, f"Error Code 1: Serialization ({problem})")
            return None
        kind = {"8.6": Engine86, "10.3": Engine103, "11": Engine11, "rtx": EngineRtx}[self._library.api]
        return kind(self._library, self._logger, content)


class _Engine(_Counted):
    def __init__(self, library: Library, logger: Any, content: dict[str, Any]) -> None:
        super().__init__(library)
        self.logger, self.content = logger, content
        self.tensors = {**content["inputs"], **content["outputs"]}
        self.num_io_tensors = len(self.tensors)
        self.needs: int = content.get("activations", ACTIVATIONS)

    def get_tensor_name(self, index: int) -> str:
        return [*self.tensors][index]

    def get_tensor_mode(self, name: str) -> TensorIOMode:
        return TensorIOMode.INPUT if name in self.content["inputs"] else TensorIOMode.OUTPUT

    def get_tensor_shape(self, name: str) -> list[int]:
        return [*self.tensors[name][1]]

    def get_tensor_dtype(self, name: str) -> str:
        return str(self.tensors[name][0])

    def get_tensor_location(self, name: str) -> TensorLocation:
        return TensorLocation.HOST if name in self.content.get("on_host", ()) else TensorLocation.DEVICE

    def _context(self, kind: type[Context], strategy: Allocation = Allocation.USER_MANAGED) -> Context | None:
        assert strategy is Allocation.USER_MANAGED, "activation memory is the caller's"
        return None if self._library.behaviour.refuses_context else kind(self._library, self)


class Context(_Counted):
    def __init__(self, library: Library, engine: _Engine) -> None:
        super().__init__(library)
        self._engine = engine
        self._activations: tuple[int, int] | None = None
        self._addresses: dict[str, int] = {}
        self._warm = False

    def set_tensor_address(self, name: str, address: int) -> bool:
        self._library.behaviour.addresses += 1
        self._addresses[name] = address
        return name in self._engine.tensors and address != 0

    def execute_async_v3(self, handle: int) -> bool:
        cuda, behaviour = self._library.cuda, self._library.behaviour
        assert self._activations is not None, "no activation memory was given"
        assert set(self._addresses) == set(self._engine.tensors), "a tensor has no address"
        capturing = cuda.capturing(handle)
        problem = behaviour.fails
        if capturing and (behaviour.refuses_capture or not self._warm):
            cuda._forbidden_while_capturing()
            problem = "operation not permitted when stream is capturing"
        if problem:
            behaviour.fails = ""
            self._engine.logger.log(Severity.ERROR, problem)
            return False
        self._warm = True
        behaviour.runs += 1
        first, second = _steps(self._library, dict(self._addresses), *self._activations)
        return cuda.launch(handle, first) and cuda.launch(handle, second)


def _steps(library: Library, addresses: dict[str, int], activations: int, size: int) -> tuple[Any, Any]:
    """Inputs to activations, activations to outputs."""
    cuda = library.cuda

    def tensor(name: str, table: dict[str, Any]) -> np.ndarray:
        kind, shape = table[name]
        nbytes = int(np.prod(shape)) * np.dtype(kind).itemsize
        return cuda.memory(addresses[name], nbytes).view(kind).reshape(shape)

    def first() -> None:
        memory = cuda.memory(8 if library.behaviour.faults else activations, size)
        results = expected({name: tensor(name, INPUTS) for name in INPUTS})
        packed = b"".join(results[name].tobytes() for name in OUTPUTS)
        memory[: len(packed)] = np.frombuffer(packed, np.uint8)

    def second() -> None:
        memory, start = cuda.memory(activations, size), 0
        for name in OUTPUTS:
            result = tensor(name, OUTPUTS)
            result[...] = memory[start : start + result.nbytes].view(result.dtype).reshape(result.shape)
            start += result.nbytes

    return first, second


class Context86(Context):
    """Its device memory is a property that can only be written."""

    @property
    def device_memory(self) -> None:
        return None

    @device_memory.setter
    def device_memory(self, address: int) -> None:
        self._activations = (address, max(self._engine.needs, 256))


class ContextNow(Context):
    def set_device_memory(self, address: int, size: int) -> None:
        assert size >= self._engine.needs, "too little activation memory"
        self._activations = (address, size)


class Engine86(_Engine):
    @property
    def device_memory_size(self) -> int:
        return self.needs

    def create_execution_context_without_device_memory(self) -> Context | None:
        return self._context(Context86)


class Engine11(_Engine):
    @property
    def device_memory_size_v2(self) -> int:
        return self.needs

    def create_execution_context(self, strategy: Allocation) -> Context | None:
        return self._context(ContextNow, strategy)

    def get_engine_stat(self, _stat: EngineStat) -> int:
        return 1234


class Engine103(Engine11):
    device_memory_size = -1  # deprecated: the other name is the one to read

    def create_execution_context_without_device_memory(self) -> Context:
        raise AssertionError("deprecated where create_execution_context takes a strategy")


class EngineRtx(_Engine):
    @property
    def device_memory_size_v2(self) -> int:
        return self.needs

    def create_runtime_config(self) -> RuntimeConfig:
        return RuntimeConfig(self._library)

    def create_execution_context(self, config: RuntimeConfig) -> Context | None:
        self._library.behaviour.strategies.append(config.cuda_graph_strategy)
        return self._context(ContextNow, config.allocation)

    def get_engine_stat(self, _stat: EngineStat) -> int:
        return 1234


class RuntimeConfig(_Counted):
    cuda_graph_strategy = CudaGraphStrategy.DISABLED
    allocation = Allocation.STATIC

    def set_execution_context_allocation_strategy(self, strategy: Allocation) -> None:
        self.allocation = strategy

    def create_runtime_cache(self) -> RuntimeCache:
        return RuntimeCache(self._library)

    def set_runtime_cache(self, _cache: RuntimeCache) -> bool:
        return not self._library.behaviour.refuses_cache


class RuntimeCache(_Counted):
    content = b"kernels of this GPU"

    def deserialize(self, blob: bytes) -> bool:
        return blob == self.content

    def serialize(self) -> bytes:
        return self.content
