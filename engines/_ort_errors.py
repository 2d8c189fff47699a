"""What ONNX Runtime raises, and the typed errors that it becomes."""

from __future__ import annotations

import re
from typing import Any

from . import device
from .cuda import free_memory
from .errors import BundleError, DeviceError, EdgeTurboError, MissingComponentError

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

# core/framework/bfc_arena.cc of ONNX Runtime 1.31; without an arena it is C++'s own std::bad_alloc.
_WANTED_BYTES = re.compile(r"[Ff]ailed to allocate memory for requested buffer of size (\d+)|requested bytes of (\d+)")
_BAD_ALLOC = "bad_alloc"
# core/providers/cuda/cuda_call.cc; what the numbers mean:
# https://docs.nvidia.com/cuda/cuda-runtime-api/group__CUDART__TYPES.html
_CUDA_FAILURE = re.compile(r"CUDA (?:failure|error) (\d+)", re.IGNORECASE)
_OUT_OF_MEMORY, _DRIVER_TOO_OLD, _NO_DEVICE = 2, 35, 100
_CUDA_SPEAKS = ("CUDA ERROR", "CUDNN", "CUBLAS")


def exceptions() -> tuple[type[Exception], ...]:
    """For an ``except``. Needs the package."""
    from onnxruntime.capi import onnxruntime_pybind11_state as state

    known: Any = (getattr(state, name, None) for name in _EXCEPTIONS)
    return (RuntimeError, MemoryError, *(kind for kind in known if kind is not None))


def cpu_error(error: Exception, doing: str) -> EdgeTurboError | None:
    """The typed error when memory ran out while ``doing``, "ONNX Runtime …"; None for anything else."""
    if _wants_memory(error):
        return _out_of_memory(error, doing, str(device.memory() or "an unknown amount of memory"))
    return None


def cuda_error(error: Exception, doing: str) -> EdgeTurboError | None:
    """The typed error when the GPU, its driver or its memory is to blame; None for anything else."""
    text = str(error)
    failure = _CUDA_FAILURE.search(text)
    code = int(failure[1]) if failure else None
    if code == _OUT_OF_MEMORY or _wants_memory(error):
        return _out_of_memory(error, doing, _free_on_gpu())
    if code == _DRIVER_TOO_OLD:
        return MissingComponentError(f"the NVIDIA driver is too old for ONNX Runtime's CUDA: {text}", hint="nvidia-smi")
    if code == _NO_DEVICE:
        return MissingComponentError(f"{doing}: there is no GPU: {text}", hint="nvidia-smi")
    if failure or any(word in text.upper() for word in _CUDA_SPEAKS):
        return DeviceError(
            f"{doing}: the GPU failed: {text}",
            hint="nvidia-smi; when every further call fails, start the program again",
        )
    return _graph_error(text, doing)


def _graph_error(text: str, doing: str) -> BundleError | None:
    """What CUDA as such cannot do with this network."""
    if "fallback to CPU EP has been explicitly disabled" in text:
        return BundleError(
            f"{doing} wholly on CUDA: its CUDA provider would leave some nodes to the CPU",
            got=text,
            hint="turbo-run BUNDLE INPUT --engine onnxruntime",
        )
    if "cannot use the graph capture feature" in text:
        return BundleError(
            f"{doing} as a CUDA graph", got=text, hint='OnnxRuntimeOptions(device="cuda", cuda_graph=False)'
        )
    return None


def is_cuda_failure(error: Exception) -> bool:
    """Whether CUDA was there to fail."""
    return _CUDA_FAILURE.search(str(error)) is not None


def _wants_memory(error: Exception) -> bool:
    text = str(error)
    return isinstance(error, MemoryError) or _BAD_ALLOC in text or _WANTED_BYTES.search(text) is not None


def _out_of_memory(error: Exception, doing: str, free: str) -> DeviceError:
    wanted = _WANTED_BYTES.search(str(error))
    return DeviceError(
        f"out of memory: {doing}" if wanted else f"out of memory: {doing}: {error}",
        expected=f"{int(wanted[1] or wanted[2]):,} bytes more" if wanted else None,
        got=free,
        hint="close other programs that use the memory, or export at a smaller size",
    )


def _free_on_gpu() -> str:
    """Asked through cuda-python, which this engine itself does not need."""
    try:
        return f"{free_memory()} on the GPU"
    except MissingComponentError:
        return "an unknown amount free on the GPU (nvidia-smi tells)"
