"""The most matrix arithmetic this device sustains: what a row's speed is held against."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from .context import Context

# Square products: the largest that common GPUs hold, and two below, because the fastest is not always the largest.
_SIZES = {"cuda": (4096, 8192, 16384), "cpu": (512, 1024)}
_BURSTS = 8
_BURST_SECONDS = {"cuda": 0.5, "cpu": 0.05}


def ceiling(context: Context) -> None:
    """FP16 products on a GPU, FP32 on a CPU, by torch (cuBLAS there); the fastest size's median burst counts.

    A product of two n x n matrices is 2 n^3 operations. Bursts of half a second are long enough for the clocks and
    the power limit to have their say, so this is what the device sustains, not its data sheet.
    """
    reached = {size: _product_tflops(size, context.options.device) for size in _SIZES[context.options.device]}
    for size, tflops in reached.items():
        context.figure(f"product_{size}_tflops", round(tflops, 3))
    context.figure("ceiling_tflops", round(max(reached.values()), 3))


def _product_tflops(size: int, device: str) -> float:
    import torch

    dtype = torch.float16 if device == "cuda" else torch.float32
    a, b = (torch.randn(size, size, device=device).to(dtype) for _ in range(2))
    out = torch.empty_like(a)
    return 2 * size**3 / _seconds_per_product(lambda: torch.mm(a, b, out=out), device) / 1e12


def _seconds_per_product(multiply: Callable[[], Any], device: str) -> float:
    synchronise = waiter(device)
    once = _seconds(multiply, 3, synchronise)
    repeats = max(1, round(_BURST_SECONDS[device] / once))
    return float(np.median([_seconds(multiply, repeats, synchronise) for _ in range(_BURSTS)]))


def _seconds(multiply: Callable[[], Any], repeats: int, synchronise: Callable[[], None]) -> float:
    synchronise()
    started = time.perf_counter()
    for _ in range(repeats):
        multiply()
    synchronise()
    return (time.perf_counter() - started) / repeats


def waiter(device: str) -> Callable[[], None]:
    """A function that returns when the device has done all it was given; on a CPU everything is done on return."""
    if device != "cuda":
        return lambda: None
    import torch

    return torch.cuda.synchronize
