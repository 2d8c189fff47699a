"""ONNX Runtime's CUDA provider: whether it can be had here, and how a session is held to it.

ONNX Runtime itself goes on with the CPU when the provider's shared library cannot be loaded, and says so on standard
error alone (seen in onnxruntime-gpu 1.31.1 without CUDA's libraries, ``enable_fallback=0`` or not). Here that is an
error, and so is a single node that the provider would leave to the CPU.

No session was ever opened on a GPU where this was written; ``tests/gpu/test_onnxruntime_gpu.py`` does.
"""

from __future__ import annotations

import contextlib
import ctypes
import io
import os
import re
from pathlib import Path
from typing import Any

import numpy as np

from ._ort_errors import is_cuda_failure
from .cuda import driver_problem
from .errors import MissingComponentError

PROVIDER = "CUDAExecutionProvider"
HINT = 'pip uninstall onnxruntime, then pip install "edgeturbo[cuda]": the two packages share a folder'
_OTHER_ENGINE = "turbo-run BUNDLE INPUT --engine onnxruntime"


def provider_problem(runtime: Any) -> str | None:
    """Why ``runtime``, ONNX Runtime's module, cannot use CUDA here, in one sentence, or None. Opens no session.

    Whether CUDA's and cuDNN's libraries can be loaded is not tried: that takes a second, and opening says it.
    """
    if PROVIDER not in runtime.get_available_providers():
        return f"the installed ONNX Runtime {runtime.__version__} is the package for the CPU ({HINT})"
    problem = driver_problem()
    if problem is not None:
        return problem
    wanted, offered = _major(getattr(runtime, "cuda_version", "")), _driver_cuda()
    if wanted and offered and offered // 1000 < wanted:
        return (
            f"the NVIDIA driver is too old: it runs CUDA {offered // 1000}.{offered % 1000 // 10}, and the installed "
            f"ONNX Runtime {runtime.__version__} was built for CUDA {runtime.cuda_version}"
        )
    return None


def open_session(runtime: Any, onnx: Path, session_options: Any, *, cuda_graph: bool) -> Any:
    """A session that runs wholly on the first GPU. ONNX Runtime's exceptions pass.

    Raises MissingComponentError when CUDA cannot be used here.
    """
    problem = provider_problem(runtime)
    if problem is not None:
        raise MissingComponentError(f"ONNX Runtime cannot use CUDA here: {problem}", hint=_OTHER_ENGINE)
    complaints = _preload(runtime)
    _refuse_without_library(runtime, complaints)
    session_options.add_session_config_entry("session.disable_cpu_ep_fallback", "1")
    session = runtime.InferenceSession(
        str(onnx), session_options, providers=[(PROVIDER, _provider_options(cuda_graph))], enable_fallback=0
    )
    refuse_other_provider(session, complaints)
    return session


def refuse_other_provider(session: Any, complaints: str = "") -> None:
    """Raise MissingComponentError unless ``session`` has the CUDA provider."""
    providers = session.get_providers()
    if PROVIDER not in providers:
        raise MissingComponentError(
            "ONNX Runtime did not take its CUDA provider",
            expected=PROVIDER,
            got="; ".join(filter(None, [", ".join(providers), complaints])),
            hint=HINT,
        )


def _provider_options(cuda_graph: bool) -> dict[str, str]:
    """ONNX Runtime's page "CUDA Execution Provider" says what each does; ``use_tf32`` is in it from 1.18 on.

    TF32 would cut FP32 to 10 bits of mantissa, unasked. An arena that grows by what is asked, not to the next power of
    two, does not take twice the memory of a generator whose weights are most of it.
    """
    return {
        "device_id": "0",
        "enable_cuda_graph": str(int(cuda_graph)),
        "use_tf32": "0",
        "cudnn_conv_use_max_workspace": "1",
        "arena_extend_strategy": "kSameAsRequested",
    }


def _preload(runtime: Any) -> str:
    """Load CUDA's and cuDNN's libraries out of the packages nvidia-*, where they are; what was missing, in words.

    From ONNX Runtime 1.21 on. It prints what it does not find, and goes on to the system's libraries.
    """
    if not hasattr(runtime, "preload_dlls"):
        return ""
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        runtime.preload_dlls()
    return "; ".join(line for line in printed.getvalue().splitlines() if line.startswith("Failed"))


def _refuse_without_library(runtime: Any, complaints: str) -> None:
    """Allocate a byte on the GPU: without the provider's library that fails, before a network was read for nothing."""
    try:
        runtime.OrtValue.ortvalue_from_shape_and_type([1], np.uint8, "cuda", 0)
    except RuntimeError as error:
        if is_cuda_failure(error):
            raise
        raise MissingComponentError(
            "ONNX Runtime's CUDA provider cannot be loaded",
            expected=f"CUDA {getattr(runtime, 'cuda_version', '')} and cuDNN 9 libraries",
            got=complaints or _loading_error(runtime) or str(error),
            hint='pip install "onnxruntime-gpu[cuda,cudnn]"',
        ) from error


def _loading_error(runtime: Any) -> str | None:
    """What the system's loader says of the provider's library."""
    library = Path(runtime.__file__).parent / "capi" / "libonnxruntime_providers_cuda.so"
    try:
        ctypes.CDLL(str(library))
    except OSError as error:
        return str(error)
    return None


def _major(version: str) -> int | None:
    number = re.match(r"\d+", version or "")
    return int(number[0]) if number else None


def _driver_cuda() -> int | None:
    """The newest CUDA that the driver runs, as 1000 * major + 10 * minor; None when it does not say."""
    version = ctypes.c_int(0)
    try:
        driver = ctypes.CDLL("nvcuda.dll" if os.name == "nt" else "libcuda.so.1")
        code = driver.cuDriverGetVersion(ctypes.byref(version))
    except (OSError, AttributeError):
        return None
    return version.value if code == 0 else None
