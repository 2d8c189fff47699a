"""Tensors in a GPU's memory that come from, or go to, other libraries.

Reading their two protocols (``__dlpack__`` and ``__cuda_array_interface__``) is ``cuda.core``'s work, a part of
cuda-python; here stands what an engine asks of such a tensor, and the tensor that it hands out.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Any

from .errors import MissingComponentError, UsageError

if TYPE_CHECKING:
    from .base import TensorSpec

# Where StridedMemoryView stands in cuda.core from 0.5 on, and where it stood before.
_MODULES = ("cuda.core.utils", "cuda.core.experimental.utils")
# "No stream order is wanted": cuda.core.utils.StridedMemoryView, documentation of stream_ptr.
_NO_ORDER = -1
# kDLCPU and kDLCUDA of DLDeviceType (dlpack.h). The CPU is asked for first: tensors there refuse a stream, each in
# its own way.
_DLPACK_CPU, _DLPACK_CUDA = 1, 2


@dataclass(frozen=True)
class DeviceTensor:
    """``spec``'s tensor, C-contiguous, at ``address`` in the memory of GPU number ``device``.

    The memory is an engine's: it is invalid after the engine's ``close``, and nothing here keeps it. No work of the
    engine's is under way on it, so the interfaces name no stream.
    """

    spec: TensorSpec
    address: int
    device: int

    @property
    def __cuda_array_interface__(self) -> dict[str, Any]:
        """Version 3 (https://numba.readthedocs.io/en/stable/cuda/cuda_array_interface.html)."""
        import numpy as np

        return {
            "shape": self.spec.shape,
            "typestr": np.dtype(self.spec.dtype).str,
            "data": (self.address, False),
            "version": 3,
            "strides": None,
            "stream": None,
        }

    def __dlpack__(self, **options: Any) -> Any:
        return _view(self, _NO_ORDER).__dlpack__(**options)

    def __dlpack_device__(self) -> tuple[int, int]:
        return _DLPACK_CUDA, self.device


def address_of(tensor: object, spec: TensorSpec, *, device: int, stream: int, written: bool) -> int:
    """Where ``tensor`` lies, after the work that its own stream has for it was put before ``stream``.

    Raises UsageError unless it is ``spec``'s tensor, C-contiguous on GPU ``device``, and may be ``written`` if that
    is asked; MissingComponentError without cuda.core.
    """
    if isinstance(tensor, DeviceTensor) and tensor.device == device:
        _refuse_other(spec, tensor.spec.dtype, tensor.spec.shape)
        return tensor.address
    if hasattr(tensor, "__dlpack_device__") and tensor.__dlpack_device__()[0] == _DLPACK_CPU:
        raise _elsewhere(spec, device, "the host's memory")
    try:
        view = _view(tensor, stream)
    except (BufferError, TypeError) as error:
        raise UsageError(
            f"'{spec.name}' is no tensor on a GPU: {error}",
            expected="an object with __dlpack__ or __cuda_array_interface__",
            got=type(tensor).__name__,
        ) from error
    if not view.is_device_accessible or view.device_id != device:
        raise _elsewhere(spec, device, f"GPU {view.device_id}" if view.is_device_accessible else "the host's memory")
    _refuse_other(spec, str(view.dtype), tuple(view.shape))
    if not _contiguous(spec.shape, view.strides):
        raise UsageError(f"'{spec.name}' is not C-contiguous", got=f"strides {list(view.strides)}")
    if written and view.readonly:
        raise UsageError(f"'{spec.name}' is read-only, and a result is to be written to it")
    return int(view.ptr)


def _elsewhere(spec: TensorSpec, device: int, where: str) -> UsageError:
    return UsageError(
        f"'{spec.name}' lies elsewhere", expected=f"GPU {device}", got=where, hint="run(feeds) takes numpy arrays"
    )


def _refuse_other(spec: TensorSpec, dtype: str, shape: tuple[int, ...]) -> None:
    if (dtype, shape) != (spec.dtype, spec.shape):
        raise UsageError(
            f"'{spec.name}' does not fit",
            expected=f"{spec.dtype} {list(spec.shape)}",
            got=f"{dtype} {list(shape)}",
        )


def _contiguous(shape: tuple[int, ...], strides: tuple[int, ...] | None) -> bool:
    """``strides`` count elements, as StridedMemoryView's do. Those of axes with one element mean nothing."""
    expected = 1
    for size, stride in zip(reversed(shape), reversed(strides or ()), strict=False):
        if size != 1 and stride != expected:
            return False
        expected *= size
    return True


def _view(tensor: object, stream: int) -> Any:
    for module in _MODULES:
        try:
            library = import_module(module)
        except ImportError as error:
            problem = error
        else:
            kind = library.StridedMemoryView
            # The constructor, which older versions have instead, is deprecated.
            return getattr(kind, "from_any_interface", kind)(tensor, stream)
    raise MissingComponentError(
        f"tensors in a GPU's memory need cuda.core: {problem}", hint="pip install cuda-core"
    ) from problem
