"""TensorRT for RTX: runs a plan on an NVIDIA GPU of compute capability 7.5, 8.0, 8.6, 8.9, 12.0 or 12.1.

A plan's first 64 bytes are read here, before the vendor's library sees the file. The vendor's own check
(``Runtime.get_engine_validity``) looks at the first four bytes and the length only, does not notice a file that was
cut short, and without a driver reports a plan of another version like a good one: no bit at all. The layout was
observed to be the same in plans that 1.5.0, 1.6.1 and 1.7.1 build; a header of another format number is left to the
vendor's check alone.
"""

from __future__ import annotations

import logging
import struct
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

from . import _plan_engine
from ._buffer_set import LoadedPlan
from ._plan_engine import NO_GRAPH_WANTED, PlanEngine, PlanFacts, PlanOptions
from .errors import BundleError, DeviceError, EdgeTurboError, InputError, MissingComponentError
from .files import replacing
from .vendor import TENSORRT_RTX

__all__ = [
    "PlanFacts",
    "PlanHeader",
    "PlanOptions",
    "TensorRtRtxEngine",
    "check_plan",
    "deserialize",
    "device_refusal",
    "plan_problem",
    "read_header",
    "unusable_reason",
]

_log = logging.getLogger(__name__)

_HEADER_BYTES = 64
_MAGIC = b"vtrt"
# Magic, 0, format, 0, the whole plan's bytes, then the version of TensorRT for RTX that built it.
_HEADER = struct.Struct("<4sIIIQ4B")
_KNOWN_FORMAT = 2
_REBUILD = "turbo-build BUNDLE --engine tensorrt-rtx --force"


@dataclass(frozen=True)
class PlanHeader:
    """What a plan says of itself. ``nbytes`` and ``version`` are None for a format this module does not know."""

    nbytes: int | None
    version: tuple[int, ...] | None


def unusable_reason() -> str | None:
    """Why no plan can run here, in one sentence, or None when this backend is usable."""
    return _plan_engine.unusable_reason(TENSORRT_RTX)


def plan_problem(path: Path | str) -> str | None:
    """Why ``path`` cannot be a plan for the installed TensorRT for RTX, in one sentence, or None.

    Looks at the header and the file's size, needs no driver, and says nothing of the GPU. Without the package only
    what the header itself tells is checked. Raises InputError when the file cannot be read.
    """
    return _plan_engine.problem_with(check_plan, path)


def check_plan(path: Path) -> None:
    """Raise BundleError unless ``path`` looks like a whole plan of the installed version, before it is deserialised.

    Raises MissingComponentError without the package, after what can be checked without it.
    """
    found = read_header(path)
    trt = TENSORRT_RTX.load()
    here = tuple(int(number) for number in trt.__version__.split(".")[:3])
    if found.version is not None and found.version[:3] != here:
        raise _other_version(path, ".".join(map(str, found.version)), trt.__version__)
    diagnostics = _diagnostics(trt, path)
    if diagnostics & _bit(trt, "MALFORMED_ENGINE"):
        raise _not_a_plan(path, "a header that the vendor's validity check refuses (MALFORMED_ENGINE)")
    if diagnostics & _bit(trt, "VERSION_MISMATCH"):
        raise _other_version(path, "another version", trt.__version__)


def read_header(path: Path) -> PlanHeader:
    """Read the header and hold the file's size against it. Needs no package.

    Raises InputError when the file cannot be read, BundleError when it is no plan or was cut short.
    """
    try:
        size = path.stat().st_size
        with path.open("rb") as stream:
            head = stream.read(_HEADER_BYTES)
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}", hint=_REBUILD) from error
    if len(head) < _HEADER_BYTES or not head.startswith(_MAGIC):
        raise _not_a_plan(path, f"{size:,} bytes that begin with {head[:8]!r}")
    _, _, layout, _, declared, *version = _HEADER.unpack_from(head)
    if layout != _KNOWN_FORMAT:
        return PlanHeader(None, None)
    if size != declared:
        raise BundleError(
            f"{path} is damaged or was cut short",
            expected=f"{declared:,} bytes, says its header",
            got=f"{size:,} bytes",
            hint=f"copy the bundle again, or {_REBUILD}",
        )
    return PlanHeader(declared, tuple(version))


def _not_a_plan(path: Path, got: str) -> BundleError:
    return BundleError(f"{path} is not a TensorRT for RTX plan", expected="a plan's header", got=got, hint=_REBUILD)


def _other_version(path: Path, built_with: str, here: str) -> BundleError:
    return BundleError(
        f"{path} was built by another version of TensorRT for RTX, and plans run only on their own",
        expected=f"tensorrt_rtx {here}, which is installed",
        got=built_with,
        hint=f"{_REBUILD}, or pip install the version that built it",
    )


def _diagnostics(trt: Any, path: Path) -> int:
    """The vendor's diagnostic bits. Its verdict is INVALID whenever there is no driver, so only the bits count."""
    runtime = trt.Runtime(TENSORRT_RTX.logger())
    with path.open("rb") as stream:
        head = stream.read(runtime.engine_header_size)
    with TENSORRT_RTX.as_details():
        _, bits = runtime.get_engine_validity(head)
    return int(bits)


def _bit(trt: Any, name: str) -> int:
    return int(getattr(trt.EngineInvalidityDiagnostics, name))


def device_refusal(path: Path) -> EdgeTurboError | None:
    """Why this machine's GPU and driver cannot run a plan that passed ``check_plan``, or None. Needs a driver."""
    trt = TENSORRT_RTX.load()
    bits = _diagnostics(trt, path)
    name = path.name
    if bits & _bit(trt, "UNSUPPORTED_CC"):
        return BundleError(f"{name} was not built for this machine's GPU", hint=f"{_REBUILD} --target sm_NN")
    if bits & (_bit(trt, "OLD_CUDA_DRIVER") | _bit(trt, "OLD_CUDA_RUNTIME")):
        return MissingComponentError(f"{name} needs a newer NVIDIA driver or CUDA runtime", hint="nvidia-smi")
    if bits & _bit(trt, "INSUFFICIENT_GPU_MEMORY"):
        return DeviceError(f"{name} needs more GPU memory than there is", hint="close other programs that use the GPU")
    if bits & _bit(trt, "CUDA_ERROR"):
        return DeviceError(f"{name} cannot be checked: CUDA failed", got=TENSORRT_RTX.last_errors(), hint="nvidia-smi")
    return None


def deserialize(path: Path) -> tuple[Any, Any]:
    """The vendor's runtime and engine of a checked plan.

    Raises what ``device_refusal`` says, BundleError when the library refuses the plan, DeviceError when the machine is
    at fault.
    """
    refusal = device_refusal(path)
    if refusal is not None:
        raise refusal
    return _plan_engine.deserialize(TENSORRT_RTX, path, _REBUILD)


class TensorRtRtxEngine(PlanEngine):
    """Runs ``engine.plan`` with TensorRT for RTX, which compiles the plan's kernels for this GPU when it opens.

    CUDA graphs are left to the library (``cuda_graph_strategy``, NVIDIA's "Working with RTX CUDA Graphs"): a capture
    of ours would need plans that were built with REQUIRE_USER_ALLOCATION. See ``PlanEngine`` for the rest.
    """

    backend = "tensorrt-rtx"
    vendor = TENSORRT_RTX

    def __init__(self, plan: Path | str, options: PlanOptions | None = None) -> None:
        super().__init__(plan, options)
        # Attributes and no local variables, so that an error's traceback does not keep them.
        self._config: Any = None
        self._cache: Any = None

    def _check(self) -> None:
        check_plan(self.plan)

    def _load(self) -> LoadedPlan:
        loaded = LoadedPlan(TENSORRT_RTX, self.plan, _REBUILD, *deserialize(self.plan), new_context=None)
        try:
            self._configure(loaded)
        except BaseException:
            self._let_go()
            loaded.free()
            raise
        return loaded

    def _configure(self, loaded: LoadedPlan) -> None:
        trt, wanted = TENSORRT_RTX.load(), self.options.cuda_graph
        self._config = loaded.engine.create_runtime_config()
        self._config.set_execution_context_allocation_strategy(trt.ExecutionContextAllocationStrategy.USER_MANAGED)
        strategy = trt.CudaGraphStrategy
        self._config.cuda_graph_strategy = strategy.WHOLE_GRAPH_CAPTURE if wanted else strategy.DISABLED
        loaded.library_graph = wanted
        loaded.no_capture = "left to TensorRT for RTX (WHOLE_GRAPH_CAPTURE)" if wanted else NO_GRAPH_WANTED
        if self.options.runtime_cache is not None:
            loaded.runtime_cache = self._give_cache(self.options.runtime_cache)
        loaded.new_context = partial(loaded.engine.create_execution_context, self._config)

    def _give_cache(self, path: Path) -> Literal["loaded", "new"]:
        """The library checks that a cache is its own, of this version, GPU and driver, and else starts a new one."""
        self._cache = self._config.create_runtime_cache()
        kept = _content(path)
        state: Literal["loaded", "new"] = "loaded" if kept and self._cache.deserialize(kept) else "new"
        if kept and state == "new":
            _log.info("%s is not of this version, GPU and driver: it starts anew", path)
        if not self._config.set_runtime_cache(self._cache):
            raise DeviceError("TensorRT for RTX takes no runtime cache", got=TENSORRT_RTX.last_errors())
        return state

    def _opened(self) -> None:
        path = self.options.runtime_cache
        if path is None:
            return
        blob = self._cache.serialize()
        if blob is None:
            raise DeviceError(f"TensorRT for RTX gave nothing to write to {path}", got=TENSORRT_RTX.last_errors())
        content = bytes(memoryview(blob))
        if content != _content(path):
            with replacing(path) as temporary:
                temporary.write_bytes(content)

    def _let_go(self) -> None:
        self._config = self._cache = None

    def _drop(self) -> None:
        self._let_go()
        super()._drop()

    def _close(self) -> None:
        self._let_go()
        super()._close()


def _content(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}", hint="name another runtime cache") from error
