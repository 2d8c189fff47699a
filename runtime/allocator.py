"""Keeping the memory of one frame for the next.

A frame of 1280x720 takes 2.8 MB. Left to itself, glibc gives so large a block back to the kernel when it is freed and
asks for it anew a moment later; the kernel clears every page of it each time. Through the loop with the null engine
that cost 0.5 ms of processor time a frame, a quarter of the whole.
"""

from __future__ import annotations

import ctypes
import sys

# malloc.h of glibc, for mallopt(3).
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
# The largest that mallopt takes for it on 64 bits (HEAP_MAX_SIZE / 2); a 4K frame takes 25 MB.
_LARGEST_KEPT = 32 << 20
_KEPT_IN_ALL = 256 << 20


def keep_freed_frames() -> bool:
    """Let this process keep what it frees, up to 256 MiB, for what it allocates next; False where that cannot be said.

    The process gives less memory back between two peaks (some 20 MB more for frames of 1280x720). For programs, not
    for libraries: the setting is the whole process'. glibc only; others (musl, macOS, Windows) are left as they are.
    """
    if not sys.platform.startswith("linux"):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except AttributeError:
        return False
    kept = mallopt(_M_MMAP_THRESHOLD, _LARGEST_KEPT) and mallopt(_M_TRIM_THRESHOLD, _KEPT_IN_ALL)
    return bool(kept)
