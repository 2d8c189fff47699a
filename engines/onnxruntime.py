"""ONNX Runtime on the CPU: the backend that runs wherever Python does, and the one parity is measured with.

The module has the library's name; ``import onnxruntime`` below is the library, because imports in this package that
mean the package are relative.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from .base import Engine, TensorSpec
from .errors import BundleError, DeviceError, MissingComponentError

if TYPE_CHECKING:
    from .base import Tensors

_NUMPY_NAMES = {
    "tensor(uint8)": "uint8",
    "tensor(int8)": "int8",
    "tensor(int32)": "int32",
    "tensor(int64)": "int64",
    "tensor(float16)": "float16",
    "tensor(float)": "float32",
    "tensor(double)": "float64",
    "tensor(bool)": "bool",
}

# ONNX Runtime's exceptions share no base; these are the ones its sessions raise.
_EXCEPTIONS = (
    "EPFail",
    "EngineError",
    "Fail",
    "InvalidArgument",
    "InvalidGraph",
    "InvalidProtobuf",
    "ModelRequiresCompilation",
    "NoModel",
    "NoSuchFile",
    "NotFound",
    "NotImplemented",
    "RuntimeException",
)

# Errors reach the caller as exceptions, with ONNX Runtime's own words in them: not a second time on stderr.
_LOG_FATAL_ONLY = 4


@dataclass(frozen=True)
class OnnxRuntimeOptions:
    """``threads``: None takes every core. The others trade memory for time; all off is leanest.

    ``arena`` keeps freed memory for the next run. ``prepack`` rearranges weights for faster kernels and thereby holds
    a second copy of them, which at full size is gigabytes. ``optimise`` rewrites the graph, which folds casts of
    weights into wider weights.
    """

    threads: int | None = None
    arena: bool = True
    prepack: bool = True
    optimise: bool = True


LEAN = OnnxRuntimeOptions(arena=False, prepack=False)


class OnnxRuntimeEngine(Engine):
    """Runs an ONNX file with static shapes on the CPU.

    ``open`` raises MissingComponentError without the package and BundleError for a file that it cannot load; ``run``
    raises DeviceError. The arrays that ``run`` returns are the caller's; with ``out`` the result is copied there.
    """

    backend: ClassVar[str] = "onnxruntime"

    def __init__(
        self, onnx: Path | str, *, threads: int | None = None, options: OnnxRuntimeOptions | None = None
    ) -> None:
        """``threads`` is short for ``OnnxRuntimeOptions(threads=...)`` and yields to ``options``."""
        super().__init__()
        self._onnx = Path(onnx)
        self._options = options or OnnxRuntimeOptions(threads=threads)
        self._session: Any = None
        self._inputs: tuple[TensorSpec, ...] = ()
        self._outputs: tuple[TensorSpec, ...] = ()

    @property
    def inputs(self) -> tuple[TensorSpec, ...]:
        return self._inputs

    @property
    def outputs(self) -> tuple[TensorSpec, ...]:
        return self._outputs

    def _open(self) -> None:
        runtime = _library()
        try:
            session = runtime.InferenceSession(
                str(self._onnx), _session_options(runtime, self._options), providers=["CPUExecutionProvider"]
            )
        except _exceptions() as error:
            raise BundleError(
                f"ONNX Runtime cannot load {self._onnx}: {error}", hint="export the bundle again"
            ) from error
        self._inputs = tuple(_spec(self._onnx, node) for node in session.get_inputs())
        self._outputs = tuple(_spec(self._onnx, node) for node in session.get_outputs())
        self._session = session

    def _close(self) -> None:
        self._session = None
        self._inputs = self._outputs = ()

    def _run(self, feeds: Tensors, out: Tensors | None) -> Tensors:
        names = [spec.name for spec in self._outputs]
        try:
            values = self._session.run(names, dict(feeds))
        except _exceptions() as error:
            raise DeviceError(f"ONNX Runtime failed to run {self._onnx}: {error}") from error
        if out is None:
            return dict(zip(names, values, strict=True))
        for name, value in zip(names, values, strict=True):
            np.copyto(out[name], value)
        return out


def _library() -> Any:
    try:
        import onnxruntime
    except ImportError as error:
        raise MissingComponentError("ONNX Runtime is not installed", hint='pip install "edgeturbo[cpu]"') from error
    return onnxruntime


def _session_options(runtime: Any, options: OnnxRuntimeOptions) -> Any:
    session_options = runtime.SessionOptions()
    session_options.log_severity_level = _LOG_FATAL_ONLY
    session_options.enable_cpu_mem_arena = options.arena
    session_options.enable_mem_pattern = options.arena
    if not options.optimise:
        session_options.graph_optimization_level = runtime.GraphOptimizationLevel.ORT_DISABLE_ALL
        # In the order the graph is written, where the default order would leave side branches (probes) to the end and
        # keep every tensor they read until then.
        session_options.execution_order = runtime.ExecutionOrder.PRIORITY_BASED
    if options.threads is not None:
        session_options.intra_op_num_threads = options.threads
    if not options.prepack:
        session_options.add_session_config_entry("session.disable_prepacking", "1")
    return session_options


def _exceptions() -> tuple[type[Exception], ...]:
    from onnxruntime.capi import onnxruntime_pybind11_state as state

    known = (getattr(state, name, None) for name in _EXCEPTIONS)
    return (RuntimeError, *(kind for kind in known if kind is not None))


def _spec(onnx: Path, node: Any) -> TensorSpec:
    if node.type not in _NUMPY_NAMES:
        raise BundleError(f"{onnx}: tensor '{node.name}' has a type that no engine here takes", got=node.type)
    if not all(isinstance(size, int) and size > 0 for size in node.shape):
        raise BundleError(
            f"{onnx}: tensor '{node.name}' has no static shape",
            expected="fixed sizes, as turbo-export writes them",
            got=str(list(node.shape)),
            hint="export the bundle again",
        )
    return TensorSpec(node.name, _NUMPY_NAMES[node.type], tuple(node.shape))
