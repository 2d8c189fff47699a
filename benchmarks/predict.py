"""How fast a generator may run on a device that nobody here has: a roofline over its cost table.

Each node takes ``start + max(operations / (peak * compute), bytes / (bandwidth * memory))`` seconds, and the nodes
follow one another (S. Williams, A. Waterman, D. Patterson, "Roofline: an insightful visual performance model for
multicore architectures", CACM 52(4), 2009). ``compute`` and ``memory`` are the shares of the stated peaks that are
reached.

What this neglects: kernels that run side by side, caches (an RTX 4090's is 18 times a T4's), Winograd and other
algorithms with fewer operations, TF32 for FP32 graphs, shapes that fill a GPU badly, clocks that fall when it gets hot,
and everything outside the engine: camera, resize, upload, encode. It is an estimate, and says so wherever it is shown.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..engines.costs import Costs, Work, moved, read_costs
from ..engines.errors import UsageError
from . import devices
from .devices import Device

Floats = NDArray[np.float64]


# An engine fuses these into their neighbours, in part or in full.
_FUSIBLE = frozenset({"attention", "norm", "elementwise", "movement", "other"})

# What an operating system leaves of memory it shares: `free` on an 8 GB Orin Nano without a desktop showed 6.6 GiB
# available (dusty-nv/jetson-containers issue 342), 0.82 of 8 GiB. Elsewhere a CUDA context and its libraries take some;
# the same share is taken there.
_USABLE = 0.82

_STEP, _LARGEST = 64, 4096


@dataclass(frozen=True)
class Efficiencies:
    """Shares of a device's peaks: ``compute`` of its operations, ``memory`` of its bandwidth, each above 0.

    ``traffic`` is the share of norms, element-wise nodes, attention and data movement that is left after fusion, 0 to
    1: of their bytes, and of their starts. ``start_us``: microseconds to start a node that moves anything. ``fast``
    counts on FP16 sums where a device runs them faster. A share above 1 is possible where the peak was measured with
    something slower than the engine (a copy that misses the cache which the engine hits).
    """

    compute: float
    memory: float
    traffic: float = 1.0
    start_us: float = 0.0
    fast: bool = False


@dataclass(frozen=True)
class Times:
    """Seconds of each entry of a table: for its operations, for its bytes, for starting its nodes."""

    compute: Floats
    memory: Floats
    start: Floats

    @property
    def seconds(self) -> Floats:
        return np.maximum(self.compute, self.memory) + self.start


@dataclass(frozen=True)
class Band:
    """What an engine reaches on a bad day, as a rule, and at best, and where that is from.

    ``measured``: fitted on runs on such a device, and ``source`` says which. Else nobody here ran anything on one.
    """

    low: Efficiencies
    middle: Efficiencies
    high: Efficiencies
    source: str
    measured: bool = False


# No GPU was measured for this. The ends are set so that the published figures of SD-Turbo in FP16, batch 1, 512x512,
# on static engines lie inside (tests/unit/benchmarks/test_predict.py does the sum): ONNX Runtime with CUDA graphs on an
# A100 80GB 38.2 ms (huggingface.co/tlwu/sd-turbo-onnxruntime); on an RTX 4090 torch.compile 20.9, ONNX Runtime CUDA
# 26.7 and with TensorRT 27.4 images a second (huggingface.co/blog/sdxl_ort_inference). These run the UNet and the VAE's
# decoder, not its encoder. start_us: a kernel of 2.9 us took 0.5 longer in a CUDA graph, and 6.7 longer launched with a
# wait after each (NVIDIA's blog, "Getting Started with CUDA Graphs", 2019). No such figure was found for any Jetson.
GPU = Band(
    low=Efficiencies(compute=0.30, memory=0.50, traffic=0.75, start_us=4.0),
    middle=Efficiencies(compute=0.50, memory=0.70, traffic=0.40, start_us=1.0),
    high=Efficiencies(compute=0.65, memory=0.85, traffic=0.15, start_us=0.5, fast=True),
    source="default efficiencies, set by published SD-Turbo figures on A100 and RTX 4090",
)

# Fitted on one machine with two x86 cores, in three runs of `python -m edgeturbo.benchmarks.predict_cpu` while it was
# busy: with one size left out they erred by up to 5, 8 and 15 %. On the quiet machine a fourth errs by up to 18 %, and
# its memory and start are the band's upper end (benchmarks/results/predict_cpu.json).
CPU = Band(
    low=Efficiencies(compute=0.9, memory=0.24, start_us=135.0),
    middle=Efficiencies(compute=1.15, memory=0.35, start_us=90.0),
    high=Efficiencies(compute=1.45, memory=0.87, start_us=25.0),
    source="an estimate; efficiencies fitted on another processor, where each size was met within 18 % from the others",
    measured=True,
)

LOUD = "an estimate from a datasheet, never measured on such a device"


@dataclass(frozen=True)
class StageTime:
    """One stage of the middle estimate; ``bound_by`` is what takes most of it: ``compute``, ``memory`` or ``start``."""

    stage: str
    ms: float
    bound_by: str


@dataclass(frozen=True)
class Prediction:
    """Milliseconds for one run of the engine (``batch`` frames) and frames a second, at ``width`` x ``height``.

    ``ms_low`` to ``ms_high`` is the range of the Band. ``memory_bytes`` are weights and the most activations alive at
    once; ``fits_memory`` compares them with what the device leaves to a program. ``note`` says how far to trust it.
    """

    device: str
    width: int
    height: int
    ms_low: float
    ms: float
    ms_high: float
    fps: float
    per_stage: tuple[StageTime, ...]
    bound_by: str
    memory_bytes: int
    fits_memory: bool
    note: str


def band_for(device: Device) -> Band:
    """What is assumed of ``device`` where nothing was fitted on it."""
    return CPU if device.key == devices.CPU else GPU


def predict(costs: Costs, device: Device, band: Band | None = None, size: tuple[int, int] | None = None) -> Prediction:
    """Estimate ``costs`` on ``device`` at ``size`` (width, height; the table's own by default).

    Without a ``band`` that of ``band_for`` counts.

    At another size convolutions grow as the pixels and self-attention as their square; weights stay. Exact where both
    sizes are multiples of 64.
    """
    band = band or band_for(device)
    width, height = size or (costs.width, costs.height)
    scale = costs.scale(width, height)
    slow, middle, quick = (node_times(costs.work, device, e, scale) for e in (band.low, band.middle, band.high))
    stages = tuple(_stage(name, middle, rows) for name, rows in _rows_by_stage(costs.work).items())
    total = float(middle.seconds.sum())
    need = round(costs.weights + costs.peak_live(scale))
    return Prediction(
        device.key, width, height,
        ms_low=1e3 * float(quick.seconds.sum()), ms=1e3 * total, ms_high=1e3 * float(slow.seconds.sum()),
        fps=costs.batch / total, per_stage=stages,
        bound_by=_stage("", middle, list(range(len(costs.work)))).bound_by,
        memory_bytes=need, fits_memory=need <= device.memory * 1e9 * _USABLE,
        note=band.source if band.measured else f"{LOUD}; {band.source}",
    )  # fmt: skip


def sd_turbo_costs() -> Costs:
    """The table of the SD-Turbo generator in FP16 at 512x512, for predictions before anything was exported.

    ``write_costs`` made it from an export of ``python -m edgeturbo.benchmarks.full_size`` without ``--passes``. It
    tells nothing of a base model with other channels.
    """
    return read_costs(Path(__file__).with_name("sd_turbo_costs.json"))


def auto_size(
    costs: Costs, device: Device, fps: float, band: Band | None = None, *, least: int = 128, cautious: bool = False
) -> Prediction:
    """The largest size in multiples of 64, as wide for its height as the table's, that reaches ``fps`` and fits.

    Both edges are ``least`` to 4096 pixels; the networks were trained at 512, and far below 256 little is left of a
    picture. ``cautious`` asks the slow end of the range to reach the rate, not its middle. Raises UsageError when no
    size does, with the rate of the least.
    """
    if not fps > 0:
        raise UsageError("the rate must be above 0 frames a second", got=f"{fps:g}", hint="--fps 15")
    sizes = _sizes(costs.width / costs.height, least)
    if not sizes:
        raise UsageError(
            f"no size in multiples of {_STEP} is shaped as {costs.width}x{costs.height}",
            expected=f"edges of {least} to {_LARGEST} pixels",
            hint="a --size of your own",
        )
    for size in sorted(sizes, key=lambda s: s[0] * s[1], reverse=True):
        found = predict(costs, device, band, size)
        ms = found.ms_high if cautious else found.ms
        if found.fits_memory and 1e3 * costs.batch >= ms * fps:
            return found
    slowest = predict(costs, device, band, min(sizes, key=lambda s: s[0] * s[1]))
    raise UsageError(
        f"no size from {slowest.width}x{slowest.height} up reaches {fps:g} frames a second on {device.name}",
        expected=f"{fps:g} fps",
        got=f"{1e3 * costs.batch / (slowest.ms_high if cautious else slowest.ms):.1f} fps ({slowest.note})"
        + ("" if slowest.fits_memory else "; and its memory is too small"),
        hint="a lower --fps, a faster --device, or a --size of your own",
    )


def rows(predictions: Sequence[Prediction]) -> list[tuple[str, ...]]:
    """A printable table with its headings first; its last column says how far to trust a line."""
    heading = ("device", "size", "ms", "range of ms", "fps", "bound by", "memory", "note")
    lines = [
        (
            p.device, f"{p.width}x{p.height}", f"{p.ms:.1f}", f"{p.ms_low:.1f} to {p.ms_high:.1f}", f"{p.fps:.1f}",
            p.bound_by, f"{p.memory_bytes / 1e9:.2f} GB, {'fits' if p.fits_memory else 'does not fit'}", p.note,
        )
        for p in predictions
    ]  # fmt: skip
    return [heading, *lines]


def node_times(work: Sequence[Work], device: Device, reached: Efficiencies, scale: float) -> Times:
    """Seconds of each entry's nodes together: for their operations, for their bytes, and for starting them."""
    left = np.array([item.nodes * (reached.traffic if item.kind in _FUSIBLE else 1.0) for item in work])
    peaks = np.array([device.peak(item.dtype, fast=reached.fast) for item in work])
    flops = np.array([item.nodes * item.flops.at(scale) for item in work])
    bytes_ = np.array([moved(item, scale) for item in work])
    return Times(
        flops / (peaks * reached.compute),
        left * bytes_ / (device.bandwidth * 1e9 * reached.memory),
        np.where(bytes_ > 0, left, 0.0) * reached.start_us * 1e-6,
    )


def _rows_by_stage(work: Sequence[Work]) -> dict[str, list[int]]:
    found: dict[str, list[int]] = {}
    for index, item in enumerate(work):
        found.setdefault(item.stage, []).append(index)
    return found


def _stage(name: str, times: Times, rows: list[int]) -> StageTime:
    compute, memory = times.compute[rows], times.memory[rows]
    shares = {
        "compute": compute[compute >= memory].sum(),
        "memory": memory[memory > compute].sum(),
        "start": times.start[rows].sum(),
    }
    return StageTime(name, 1e3 * float(times.seconds[rows].sum()), max(shares, key=lambda share: float(shares[share])))


def _sizes(aspect: float, least: int) -> list[tuple[int, int]]:
    """Sizes in multiples of 64 that are ``aspect`` times as wide as high, as nearly as such multiples can be."""
    heights = range(_STEP, _LARGEST + 1, _STEP)
    pairs = [(round(aspect * height / _STEP) * _STEP, height) for height in heights]
    return [pair for pair in pairs if least <= min(pair) and max(pair) <= _LARGEST]
