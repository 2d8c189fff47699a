"""GPU memory and waiting, through whichever library the stage has loaded anyway."""

from __future__ import annotations

import gc
import sys
from typing import Any


def used_bytes(device: str) -> int | None:
    """Bytes of GPU memory in use, by anyone (cudaMemGetInfo); None on a CPU or where no library can tell.

    A difference of two readings is what was taken in between, as long as nobody else uses the GPU. The CUDA context
    itself (some hundred MB) is in both.
    """
    if device != "cuda":
        return None
    torch = _torch()
    if torch is not None:
        free, total = torch.cuda.mem_get_info()
        return int(total - free)
    return _used_by_runtime()


def _used_by_runtime() -> int | None:
    try:
        from cuda.bindings import runtime
    except ImportError:
        return None
    code, free, total = runtime.cudaMemGetInfo()
    return int(total) - int(free) if int(code) == 0 else None


def release_unused() -> None:
    """Give back to the device what nobody holds any more: torch keeps freed memory for itself."""
    gc.collect()
    torch = _torch()
    if torch is not None:
        torch.cuda.empty_cache()


def _torch() -> Any:
    """torch, if this process has loaded it and it can use the GPU."""
    torch = sys.modules.get("torch")
    return torch if torch is not None and torch.cuda.is_available() else None
