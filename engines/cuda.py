"""The few CUDA runtime calls that engines need, through ``cuda-python``.

Every return code is checked and becomes a DeviceError in words. What is allocated here belongs to the object that
allocated it, until its ``free``; freeing twice has no effect.
"""

from __future__ import annotations

import ctypes
import os
from importlib import import_module
from typing import TYPE_CHECKING, Any

from .errors import DeviceError, MissingComponentError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

# cudaErrorMemoryAllocation (https://docs.nvidia.com/cuda/cuda-runtime-api/group__CUDART__TYPES.html)
_OUT_OF_MEMORY = 2


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
    """Raise MissingComponentError unless ``cuda-python`` can be imported."""
    _runtime()


class DeviceBuffer:
    """``nbytes`` bytes of GPU memory at ``address``. Raises DeviceError, with figures, when there is no room."""

    def __init__(self, nbytes: int) -> None:
        self.nbytes = nbytes
        self.address = int(_call("cudaMalloc", nbytes, nbytes=nbytes)[0])

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
        self.address = int(_call("cudaHostAlloc", nbytes, 0, nbytes=nbytes)[0])
        memory = (ctypes.c_char * nbytes).from_address(self.address)
        self.array: NDArray[np.generic] = np.frombuffer(memoryview(memory), dtype=dtype).reshape(shape)

    def free(self) -> None:
        address, self.address = self.address, 0
        if address:
            _call("cudaFreeHost", address)


class Stream:
    """A CUDA stream of its own; ``handle`` is its address, as other libraries want it."""

    def __init__(self) -> None:
        (self._stream,) = _call("cudaStreamCreate")
        self.handle = int(self._stream)

    def upload(self, source: PinnedArray, target: DeviceBuffer) -> None:
        """Enqueue a copy to the GPU. ``source`` must not change before ``synchronize``."""
        self._copy(target.address, source.address, target.nbytes, "cudaMemcpyHostToDevice")

    def download(self, source: DeviceBuffer, target: PinnedArray) -> None:
        """Enqueue a copy from the GPU. ``target`` holds it after ``synchronize``."""
        self._copy(target.address, source.address, source.nbytes, "cudaMemcpyDeviceToHost")

    def _copy(self, target: int, source: int, nbytes: int, kind: str) -> None:
        _call("cudaMemcpyAsync", target, source, nbytes, getattr(_runtime().cudaMemcpyKind, kind), self._stream)

    def synchronize(self) -> None:
        """Wait for everything enqueued. Errors of earlier asynchronous work come out here."""
        _call("cudaStreamSynchronize", self._stream)

    def free(self) -> None:
        stream, self._stream = self._stream, None
        if stream is not None:
            _call("cudaStreamDestroy", stream)


def _runtime() -> Any:
    try:
        return import_module("cuda.bindings.runtime")
    except ImportError as error:
        raise MissingComponentError(
            f"the cuda-python package cannot be imported: {error}", hint='pip install "edgeturbo[rtx]"'
        ) from error


def _call(function: str, *arguments: Any, nbytes: int | None = None) -> tuple[Any, ...]:
    """What a CUDA runtime function returns after its error code; ``nbytes`` is what an allocation asks for."""
    runtime = _runtime()
    code, *values = getattr(runtime, function)(*arguments)
    if int(code) == 0:
        return tuple(values)
    name = _text(runtime.cudaGetErrorName(code)[1])
    if int(code) == _OUT_OF_MEMORY and nbytes is not None:
        raise DeviceError(
            f"out of memory: {function} failed with {name}",
            expected=f"{nbytes:,} bytes",
            got=_free_memory(runtime),
            hint="close other programs that use the GPU, or export at a smaller size",
        )
    raise DeviceError(f"{function} failed with {name}: {_text(runtime.cudaGetErrorString(code)[1])}", hint="nvidia-smi")


def _free_memory(runtime: Any) -> str:
    code, free, total = runtime.cudaMemGetInfo()
    return f"{free:,} bytes free of {total:,}" if int(code) == 0 else "an unknown amount free"


def _text(name: bytes | str) -> str:
    return name.decode() if isinstance(name, bytes) else name


def _driver_error_name(driver: ctypes.CDLL, code: int) -> str:
    name = ctypes.c_char_p()
    driver.cuGetErrorName(code, ctypes.byref(name))
    return f"{name.value.decode()} ({code})" if name.value else f"error {code}"
