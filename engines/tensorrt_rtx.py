"""TensorRT for RTX: runs a plan on an NVIDIA GPU of compute capability 7.5, 8.0, 8.6, 8.9, 12.0 or 12.1.

A plan's first 64 bytes are read here, before the vendor's library sees the file. The vendor's own check
(``Runtime.get_engine_validity``) looks at the first four bytes and the length only, does not notice a file that was
cut short, and without a driver reports a plan of another version like a good one: no bit at all. The layout was
observed to be the same in plans that 1.5.0, 1.6.1 and 1.7.1 build; a header of another format number is left to the
vendor's check alone.
"""

from __future__ import annotations

import logging
import mmap
import struct
from collections import deque
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import lru_cache
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from .base import Engine, TensorSpec
from .cuda import DeviceBuffer, PinnedArray, Stream, driver_problem, require_bindings
from .errors import BundleError, DeviceError, EdgeTurboError, InputError, MissingComponentError

if TYPE_CHECKING:
    from .base import Tensors

_log = logging.getLogger(__name__)

_HEADER_BYTES = 64
_MAGIC = b"vtrt"
# Magic, 0, format, 0, the whole plan's bytes, then the version of TensorRT for RTX that built it.
_HEADER = struct.Struct("<4sIIIQ4B")
_KNOWN_FORMAT = 2
_REBUILD = "the bundle's turbo-export command (turbo-inspect prints it) again, with --force"


@dataclass(frozen=True)
class PlanHeader:
    """What a plan says of itself. ``nbytes`` and ``version`` are None for a format this module does not know."""

    nbytes: int | None
    version: tuple[int, ...] | None


def load_tensorrt_rtx() -> Any:
    """The ``tensorrt_rtx`` package. Raises MissingComponentError when it cannot be imported."""
    try:
        return import_module("tensorrt_rtx")
    except ImportError as error:
        raise MissingComponentError(
            f"the tensorrt_rtx package cannot be imported: {error}", hint='pip install "edgeturbo[rtx]"'
        ) from error


def unusable_reason() -> str | None:
    """Why no plan can run here, in one sentence, or None when this backend is usable."""
    try:
        load_tensorrt_rtx()
        problem = driver_problem()
        if problem is None:
            require_bindings()
    except MissingComponentError as error:
        return f"{error.what} ({error.hint})"
    return problem


def plan_problem(path: Path | str) -> str | None:
    """Why ``path`` cannot be a plan for the installed TensorRT for RTX, in one sentence, or None.

    Looks at the header and the file's size, needs no driver, and says nothing of the GPU. Without the package only
    what the header itself tells is checked. Raises InputError when the file cannot be read.
    """
    try:
        check_plan(Path(path))
    except BundleError as error:
        return f"{error.what}: expected {error.expected}, got {error.got}"
    except MissingComponentError:
        return None
    return None


def check_plan(path: Path) -> None:
    """Raise BundleError unless ``path`` looks like a whole plan of the installed version, before it is deserialised.

    Raises MissingComponentError without the package, after what can be checked without it.
    """
    found = read_header(path)
    trt = load_tensorrt_rtx()
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
    runtime = trt.Runtime(vendor_logger())
    with path.open("rb") as stream:
        head = stream.read(runtime.engine_header_size)
    with _as_details():
        _, bits = runtime.get_engine_validity(head)
    return int(bits)


def _bit(trt: Any, name: str) -> int:
    return int(getattr(trt.EngineInvalidityDiagnostics, name))


def device_refusal(path: Path) -> EdgeTurboError | None:
    """Why this machine's GPU and driver cannot run a plan that passed ``check_plan``, or None. Needs a driver."""
    trt = load_tensorrt_rtx()
    bits = _diagnostics(trt, path)
    name = path.name
    if bits & _bit(trt, "UNSUPPORTED_CC"):
        return BundleError(f"{name} was not built for this machine's GPU", hint=f"{_REBUILD} --target sm_NN")
    if bits & (_bit(trt, "OLD_CUDA_DRIVER") | _bit(trt, "OLD_CUDA_RUNTIME")):
        return MissingComponentError(f"{name} needs a newer NVIDIA driver or CUDA runtime", hint="nvidia-smi")
    if bits & _bit(trt, "INSUFFICIENT_GPU_MEMORY"):
        return DeviceError(f"{name} needs more GPU memory than there is", hint="close other programs that use the GPU")
    if bits & _bit(trt, "CUDA_ERROR"):
        return DeviceError(f"{name} cannot be checked: CUDA failed", got=last_errors(), hint="nvidia-smi")
    return None


def deserialize(path: Path) -> tuple[Any, Any]:
    """The vendor's runtime and engine of a checked plan. Raises DeviceError, or what ``device_refusal`` says."""
    refusal = device_refusal(path)
    if refusal is not None:
        raise refusal
    trt = load_tensorrt_rtx()
    runtime = trt.Runtime(vendor_logger())
    # Mapped, not read: the vendor's library copies what it keeps, and a plan may take gigabytes.
    with path.open("rb") as stream, mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as plan:
        engine = runtime.deserialize_cuda_engine(plan)
    if engine is None:
        raise DeviceError(f"{path} could not be deserialised", got=last_errors(), hint=_REBUILD)
    return runtime, engine


@lru_cache(maxsize=1)
def vendor_logger() -> Any:
    """The one logger of the vendor's library in this process; it writes to Python's ``logging``, under this module."""
    trt = load_tensorrt_rtx()
    severity = trt.ILogger.Severity
    levels = {
        severity.INTERNAL_ERROR: logging.CRITICAL,
        severity.ERROR: logging.ERROR,
        severity.WARNING: logging.WARNING,
        severity.INFO: logging.INFO,
    }

    class PythonLogger(trt.ILogger):  # type: ignore[name-defined,misc] # the vendor's package has no types
        def __init__(self) -> None:
            super().__init__()
            self.details_only = False
            self.errors: deque[str] = deque(maxlen=5)

        def log(self, severity: Any, message: str) -> None:
            level = logging.DEBUG if self.details_only else levels.get(severity, logging.DEBUG)
            if level >= logging.ERROR:
                self.errors.append(message)
            _log.log(level, "%s", message)

    return PythonLogger()


def last_errors() -> str:
    """What the vendor's library complained of last, and forget it."""
    errors = vendor_logger().errors
    text = "\n".join(errors) or "no message of TensorRT for RTX"
    errors.clear()
    return text


@contextmanager
def _as_details() -> Iterator[None]:
    """Log what the vendor says at DEBUG: its validity check calls a missing driver a fatal error, we do not."""
    logger = vendor_logger()
    logger.details_only = True
    try:
        yield
    finally:
        logger.details_only = False


@dataclass(frozen=True)
class _Port:
    """A tensor at the engine's border with its buffers on both sides."""

    spec: TensorSpec
    host: PinnedArray
    device: DeviceBuffer


class TensorRtRtxEngine(Engine):
    """Runs ``engine.plan`` with TensorRT for RTX: one execution context, buffers allocated once, a stream of its own.

    Opening raises BundleError for a file that is no plan, was cut short or is another version's;
    MissingComponentError without the package, cuda-python or an NVIDIA driver; DeviceError when the GPU fails.

    Deserialising and running need a GPU: that path is exercised by ``tests/gpu`` alone.
    """

    backend = "tensorrt-rtx"

    def __init__(self, plan: Path | str) -> None:
        super().__init__()
        self.plan = Path(plan)
        self._inputs: tuple[_Port, ...] = ()
        self._outputs: tuple[_Port, ...] = ()
        self._stream: Stream | None = None
        self._context: Any = None
        self._vendor: tuple[Any, ...] = ()
        self._resources = ExitStack()

    @property
    def inputs(self) -> tuple[TensorSpec, ...]:
        return tuple(port.spec for port in self._inputs)

    @property
    def outputs(self) -> tuple[TensorSpec, ...]:
        return tuple(port.spec for port in self._outputs)

    def _open(self) -> None:
        check_plan(self.plan)
        problem = driver_problem()
        if problem is not None:
            raise MissingComponentError(
                f"{self.plan.name} cannot run here: {problem}",
                hint="turbo-run BUNDLE --engine onnxruntime runs the same generator on the CPU",
            )
        require_bindings()
        try:
            self._take_device()
        except BaseException:
            self._close()
            raise

    def _take_device(self) -> None:
        trt = load_tensorrt_rtx()
        runtime, engine = deserialize(self.plan)
        self._vendor = (runtime, engine)
        self._context = engine.create_execution_context()
        if self._context is None:
            raise DeviceError(f"{self.plan.name} got no execution context", got=last_errors(), hint="nvidia-smi")
        self._stream = Stream()
        self._resources.callback(self._stream.free)
        names = [engine.get_tensor_name(index) for index in range(engine.num_io_tensors)]
        fed = {name for name in names if engine.get_tensor_mode(name) == trt.TensorIOMode.INPUT}
        self._inputs = tuple(self._port(trt, engine, name) for name in names if name in fed)
        self._outputs = tuple(self._port(trt, engine, name) for name in names if name not in fed)

    def _port(self, trt: Any, engine: Any, name: str) -> _Port:
        spec = self._spec(trt, engine, name)
        host = PinnedArray(spec.shape, spec.dtype)
        self._resources.callback(host.free)
        device = DeviceBuffer(host.array.nbytes)
        self._resources.callback(device.free)
        if not self._context.set_tensor_address(name, device.address):
            raise DeviceError(f"{self.plan.name} refuses a buffer for '{name}'", got=last_errors(), hint=_REBUILD)
        return _Port(spec, host, device)

    def _spec(self, trt: Any, engine: Any, name: str) -> TensorSpec:
        import numpy as np

        shape = tuple(int(size) for size in engine.get_tensor_shape(name))
        if min(shape, default=1) < 1:
            raise BundleError(
                f"{self.plan} has a tensor '{name}' of no fixed shape", got=str(list(shape)), hint=_REBUILD
            )
        try:
            return TensorSpec(name, np.dtype(trt.nptype(engine.get_tensor_dtype(name))).name, shape)
        except TypeError as error:
            raise BundleError(f"{self.plan}: numpy has no type for '{name}': {error}", hint=_REBUILD) from error

    def _run(self, feeds: Tensors, out: Tensors | None) -> Tensors:
        import numpy as np

        stream = cast("Stream", self._stream)  # an open engine has one; Engine.run refuses a closed engine
        for port in self._inputs:
            np.copyto(port.host.array, feeds[port.spec.name])
            stream.upload(port.host, port.device)
        if not self._context.execute_async_v3(stream.handle):
            raise DeviceError(f"{self.plan.name} did not run", got=last_errors(), hint="nvidia-smi")
        for port in self._outputs:
            stream.download(port.device, port.host)
        stream.synchronize()
        if out is None:
            return {port.spec.name: port.host.array.copy() for port in self._outputs}
        for port in self._outputs:
            np.copyto(out[port.spec.name], port.host.array)
        return out

    def _close(self) -> None:
        # The context points to the buffers, so it goes first; nothing is in flight: _run waits for its stream.
        self._context = None
        self._stream = None
        self._inputs = self._outputs = ()
        self._resources.close()
        self._vendor = ()
