"""The few CUDA runtime calls that engines need, through ``cuda-python``.

Every return code is checked and becomes a typed error in words. What is allocated here belongs to the object that
allocated it, until its ``free``; freeing twice has no effect. Addresses and handles are plain integers.
"""

from __future__ import annotations

import ctypes
import logging
import os
from collections.abc import Callable
from importlib import import_module
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from .errors import DeviceError, EdgeTurboError, MissingComponentError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_log = logging.getLogger(__name__)

# Members of cudaError_t; each comment says in short what NVIDIA's reference says of it
# (https://docs.nvidia.com/cuda/cuda-runtime-api/group__CUDART__TYPES.html).
_OUT_OF_MEMORY = 2
_DRIVER_TOO_OLD = (35, 36)  # cudaErrorInsufficientDriver, cudaErrorCallRequiresNewerDriver
_NO_DEVICE = 100
_BUSY = 46  # cudaErrorDevicesUnavailable: in exclusive use, or full of other work
_DRIVER_MISMATCH = (803, 804)  # cudaErrorSystemDriverMismatch, cudaErrorCompatNotSupportedOnDevice
# "To continue using CUDA, the process must be terminated and relaunched": cudaErrorContained, IllegalAddress,
# LaunchTimeout, Assert, HardwareStackError, IllegalInstruction, MisalignedAddress, InvalidAddressSpace, InvalidPc,
# LaunchFailure, TensorMemoryLeak, MpsClientTerminated.
_STICKY = frozenset((226, 700, 702, 710, 714, 715, 716, 717, 718, 719, 721, 810))


def driver_problem() -> str | None:
    """Why CUDA cannot be used on this machine, in words, or None when it can. Cheap; needs no Python package."""
    library = "nvcuda.dll" if os.name == "nt" else "libcuda.so.1"
    try:
        driver = ctypes.CDLL(library)
    except OSError:
        return f"no NVIDIA driver ({library} cannot be loaded)"
    code = driver.cuInit(0)
    if code != 0:
        return f"no usable NVIDIA GPU (cuInit: {_driver_error_name(driver, code)})"
    count = ctypes.c_int(0)
    code = driver.cuDeviceGetCount(ctypes.byref(count))
    if code != 0 or count.value == 0:
        return f"no usable NVIDIA GPU ({count.value} devices, cuDeviceGetCount: {_driver_error_name(driver, code)})"
    return None


def require_bindings() -> None:
    """Raise MissingComponentError unless ``cuda-python`` can be imported and the driver is new enough for it.

    A driver runs any CUDA of its own major version ("minor version compatibility" in NVIDIA's CUDA Compatibility
    guide) or an older one. Without a driver nothing is compared: ``driver_problem`` says that.
    """
    runtime = _runtime()
    driver, library = runtime.cudaDriverGetVersion()[1], runtime.cudaRuntimeGetVersion()[1]
    if driver and driver // 1000 < library // 1000:
        raise _driver_too_old(runtime, "cuda-python")


def current_device() -> int:
    """The ordinal of the calling thread's GPU."""
    return int(_call("cudaGetDevice")[0])


def free_memory() -> str:
    """``"N bytes free of M"`` of the GPU's memory, or that it cannot be said."""
    return _free_memory(_runtime())


class Freeable(Protocol):
    def free(self) -> None: ...


_Resource = TypeVar("_Resource", bound=Freeable)


class Resources:
    """What was taken, to be given back in reverse order."""

    def __init__(self) -> None:
        self._taken: list[Freeable] = []

    def add(self, resource: _Resource) -> _Resource:
        self._taken.append(resource)
        return resource

    def free(self) -> None:
        """Free everything, also what comes after a free that fails; then raise the first DeviceError."""
        first: DeviceError | None = None
        while self._taken:
            try:
                self._taken.pop().free()
            except DeviceError as error:
                first = first or error
        if first is not None:
            raise first


def discard(resource: Freeable) -> None:
    """Free after a failure. What fails now is a consequence, and must not hide what failed first: it is logged."""
    try:
        resource.free()
    except DeviceError as error:
        _log.debug("while cleaning up after a failure: %s", error.what)


class DeviceBuffer:
    """``nbytes`` bytes of GPU memory at ``address``. Raises DeviceError, with figures, when there is no room."""

    def __init__(self, nbytes: int, purpose: str = "") -> None:
        """``purpose`` says in an error what the memory was for."""
        self.nbytes = nbytes
        self.address = int(_allocate("cudaMalloc", nbytes, purpose=purpose))

    def free(self) -> None:
        address, self.address = self.address, 0
        if address:
            _call("cudaFree", address)


class PinnedArray:
    """Page-locked host memory as a numpy array: the GPU copies from and to it without a detour.

    ``array`` must not be used after ``free``: it is a view of memory that is then gone.
    """

    def __init__(self, shape: tuple[int, ...], dtype: str) -> None:
        import numpy as np

        nbytes = int(np.prod(shape)) * np.dtype(dtype).itemsize
        self.address = int(_allocate("cudaHostAlloc", nbytes, 0, purpose="page-locked host memory"))
        memory = (ctypes.c_char * nbytes).from_address(self.address)
        self.array: NDArray[np.generic] = np.frombuffer(memoryview(memory), dtype=dtype).reshape(shape)

    def free(self) -> None:
        address, self.address = self.address, 0
        if address:
            _call("cudaFreeHost", address)


class Event:
    """A point in a stream's work that another stream or the host can wait for."""

    def __init__(self) -> None:
        (self.event,) = _call("cudaEventCreateWithFlags", _runtime().cudaEventDisableTiming)

    def synchronize(self) -> None:
        """Wait until the work before the last ``Stream.record`` is done. Errors of that work come out here."""
        _call("cudaEventSynchronize", self.event)

    def free(self) -> None:
        event, self.event = self.event, None
        if event is not None:
            _call("cudaEventDestroy", event)


class Stream:
    """A CUDA stream of its own; ``handle`` is its address, as other libraries want it.

    It does not wait for the default stream, nor the default stream for it: work elsewhere is ordered by events.
    """

    def __init__(self) -> None:
        (self._stream,) = _call("cudaStreamCreateWithFlags", _runtime().cudaStreamNonBlocking)
        self.handle = int(self._stream)

    def upload(self, source: PinnedArray, target: DeviceBuffer) -> None:
        """Enqueue a copy to the GPU. ``source`` must not change before the copy is done."""
        self._copy(target.address, source.address, target.nbytes, "cudaMemcpyHostToDevice")

    def download(self, source: DeviceBuffer, target: PinnedArray) -> None:
        """Enqueue a copy from the GPU. ``target`` holds it after ``synchronize``."""
        self._copy(target.address, source.address, source.nbytes, "cudaMemcpyDeviceToHost")

    def copy(self, source: int, target: int, nbytes: int) -> None:
        """Enqueue a copy of ``nbytes`` bytes between two addresses on the GPU."""
        self._copy(target, source, nbytes, "cudaMemcpyDeviceToDevice")

    def _copy(self, target: int, source: int, nbytes: int, kind: str) -> None:
        _call("cudaMemcpyAsync", target, source, nbytes, getattr(_runtime().cudaMemcpyKind, kind), self._stream)

    def record(self, event: Event) -> None:
        """Make ``event`` stand for everything enqueued here so far."""
        _call("cudaEventRecord", event.event, self._stream)

    def wait(self, event: Event) -> None:
        """Let what is enqueued here from now on wait, on the GPU, for ``event`` as it was last recorded."""
        _call("cudaStreamWaitEvent", self._stream, event.event, 0)

    def synchronize(self) -> None:
        """Wait for everything enqueued. Errors of earlier asynchronous work come out here."""
        _call("cudaStreamSynchronize", self._stream)

    def capture(self, enqueue: Callable[[], None]) -> Graph:
        """What ``enqueue`` puts on this stream, as a graph; nothing of it runs.

        Other threads may go on using CUDA meanwhile (the thread-local mode). When ``enqueue`` or CUDA refuses, the
        error is raised and the stream is as usable as before.
        """
        runtime = _runtime()
        _call("cudaStreamBeginCapture", self._stream, runtime.cudaStreamCaptureMode.cudaStreamCaptureModeThreadLocal)
        try:
            enqueue()
        except BaseException:
            code, graph = runtime.cudaStreamEndCapture(self._stream)
            if int(code) == 0:
                runtime.cudaGraphDestroy(graph)
            raise
        return Graph(_call("cudaStreamEndCapture", self._stream)[0])

    def launch(self, graph: Graph) -> None:
        """Enqueue all of ``graph``."""
        _call("cudaGraphLaunch", graph.executable, self._stream)

    def free(self) -> None:
        stream, self._stream = self._stream, None
        if stream is not None:
            _call("cudaStreamDestroy", stream)


class Graph:
    """Captured work, instantiated, to be launched any number of times. Owns the captured ``graph`` too."""

    def __init__(self, graph: Any) -> None:
        self._graph = graph
        self.executable: Any = None
        try:
            (self.executable,) = _call("cudaGraphInstantiate", graph, 0)
        except BaseException:
            discard(self)
            raise

    def free(self) -> None:
        executable, self.executable = self.executable, None
        graph, self._graph = self._graph, None
        try:
            if executable is not None:
                _call("cudaGraphExecDestroy", executable)
        finally:
            if graph is not None:
                _call("cudaGraphDestroy", graph)


def _runtime() -> Any:
    try:
        return import_module("cuda.bindings.runtime")
    except ImportError as error:
        raise MissingComponentError(
            f"the cuda-python package cannot be imported: {error}",
            hint="pip install cuda-python, of the major version that nvidia-smi shows as CUDA's",
        ) from error


def _call(function: str, *arguments: Any) -> tuple[Any, ...]:
    """What a CUDA runtime function returns after its error code."""
    runtime = _runtime()
    code, *values = getattr(runtime, function)(*arguments)
    if int(code) != 0:
        raise _error(runtime, function, code)
    return tuple(values)


def _allocate(function: str, nbytes: int, *arguments: Any, purpose: str) -> Any:
    runtime = _runtime()
    code, address = getattr(runtime, function)(nbytes, *arguments)
    if int(code) == _OUT_OF_MEMORY:
        raise DeviceError(
            f"out of memory{f' for {purpose}' if purpose else ''}: {function} failed with {_name(runtime, code)}",
            expected=f"{nbytes:,} bytes",
            got=f"{_free_memory(runtime)} on the GPU",
            hint="close other programs that use the GPU, or export at a smaller size",
        )
    if int(code) != 0:
        raise _error(runtime, function, code)
    return address


def _error(runtime: Any, function: str, code: Any) -> EdgeTurboError:
    number = int(code)
    if number in _DRIVER_TOO_OLD:
        return _driver_too_old(runtime, function)
    what = f"{function} failed with {_name(runtime, code)}: {_text(runtime.cudaGetErrorString(code)[1])}"
    if number == _NO_DEVICE:
        return MissingComponentError(what, hint="nvidia-smi; CUDA_VISIBLE_DEVICES must not hide the GPU")
    if number in _DRIVER_MISMATCH:
        return MissingComponentError(what, got=_versions(runtime), hint="restart the machine after a driver update")
    if number == _BUSY:
        return DeviceError(what, hint="nvidia-smi shows what else uses the GPU, and its compute mode")
    if number in _STICKY:
        return DeviceError(
            f"the GPU is lost to this process: {what}",
            got="this process's CUDA context is gone: every further call fails, and no engine opens here again",
            hint="start the program again; dmesg and nvidia-smi tell of hardware errors",
        )
    return DeviceError(what, hint="nvidia-smi")


def _driver_too_old(runtime: Any, what: str) -> MissingComponentError:
    return MissingComponentError(
        f"the NVIDIA driver is too old for {what}",
        got=_versions(runtime),
        hint='a newer driver, or pip install "cuda-python" of the CUDA version that nvidia-smi shows',
    )


def _versions(runtime: Any) -> str:
    """Both are written 1000 * major + 10 * minor (documentation of cudaDriverGetVersion)."""
    driver, library = runtime.cudaDriverGetVersion()[1] or 0, runtime.cudaRuntimeGetVersion()[1] or 0
    return " and ".join(
        f"{who} {number // 1000}.{number % 1000 // 10}"
        for who, number in (("a driver for CUDA", driver), ("cuda-python for CUDA", library))
    )


def _free_memory(runtime: Any) -> str:
    code, free, total = runtime.cudaMemGetInfo()
    return f"{free:,} bytes free of {total:,}" if int(code) == 0 else "an unknown amount free"


def _name(runtime: Any, code: Any) -> str:
    return _text(runtime.cudaGetErrorName(code)[1])


def _text(name: bytes | str) -> str:
    return name.decode() if isinstance(name, bytes) else name


def _driver_error_name(driver: ctypes.CDLL, code: int) -> str:
    name = ctypes.c_char_p()
    driver.cuGetErrorName(code, ctypes.byref(name))
    return f"{name.value.decode()} ({code})" if name.value else f"error {code}"
