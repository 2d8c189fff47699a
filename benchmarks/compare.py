"""Two results of ``turbo-bench`` side by side: what got worse by more than either can be wrong about."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ..engines.errors import GateError
from .quality import MEASURES
from .steadiness import same_work_floor

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from .environment import Environment
    from .latency import Latency
    from .result import BenchResult, RowResult

_RESAMPLES = 2000
# Pictures do not change from run to run: what differs here by more is no rounding of the last digit.
_SAME_DB, _SAME_OTHER = 0.05, 1e-4
# Of resident memory: an allocator's own variation between two runs of the same process.
_SAME_BYTES = 0.03


@dataclass(frozen=True)
class Change:
    """``row`` and ``what`` was ``before`` and is ``now``, in ``unit``. ``low`` to ``high``: the 95 % interval of
    now/before where there is one, else both are now/before itself. ``verdict``: ``worse``, ``better`` or ``same``.
    """

    row: str
    what: str
    before: float
    now: float
    unit: str
    low: float
    high: float
    verdict: str

    def __str__(self) -> str:
        times = f", {self.low:.3f} to {self.high:.3f} times" if self.low != self.high else ""
        return f"{self.row}: {self.what} {self.before:.4g} -> {self.now:.4g} {self.unit}{times}: {self.verdict}"


@dataclass(frozen=True)
class Comparison:
    """``changes`` of what is comparable; ``apart``: sentences about what is not, and why."""

    changes: tuple[Change, ...]
    apart: tuple[str, ...]

    @property
    def regressions(self) -> tuple[Change, ...]:
        return tuple(change for change in self.changes if change.verdict == "worse")

    def refuse_regressions(self) -> None:
        """Raise GateError (exit code 5) when anything got worse beyond its interval."""
        if self.regressions:
            raise GateError(
                f"{len(self.regressions)} figure(s) got worse beyond what the measurements can be wrong about",
                got="; ".join(str(change) for change in self.regressions),
                hint="measure again on a quiet machine; if it stays, look at what changed between the two commits",
            )


def compare_results(before: BenchResult, now: BenchResult) -> Comparison:
    """Rows of one name are compared. Times and memory only on the same machine, and of rows of one size and batch;
    pictures only for the same frames held to the same kind of reference.

    Times: now/before of the medians, with a 95 % percentile bootstrap interval over blocks of successive runs (Kuensch,
    "The jackknife and the bootstrap for general stationary observations", Annals of Statistics 17(3), 1989; blocks of
    the cube root of the number of runs), so that slow drift widens it. It is widened again by each result's own A/A
    difference, that of the same work measured twice. Worse means that all of it lies above 1.
    """
    apart = list(_apart(before, now))
    same_machine = not _machine_differs(before.environment, now.environment)
    pictures = before.reference == now.reference and before.options.frames_sha256 == now.options.frames_sha256
    changes: list[Change] = []
    for row in now.rows:
        earlier = before.row(row.name)
        if earlier is None:
            apart.append(f"{row.name}: not in the earlier result")
            continue
        if same_machine and before.shape_of(earlier) == now.shape_of(row):
            changes += _times(earlier, row, _floor(before) + _floor(now))
            changes += _memory(earlier, row)
        if pictures:
            changes += _pictures(earlier, row)
    apart += [f"{row.name}: not measured now" for row in before.rows if now.row(row.name) is None]
    return Comparison(tuple(changes), tuple(apart))


def _floor(result: BenchResult) -> float:
    return 0.0 if result.steadiness is None else same_work_floor(result.steadiness)


def _apart(before: BenchResult, now: BenchResult) -> Iterator[str]:
    machine = _machine_differs(before.environment, now.environment)
    if machine:
        yield f"another machine ({machine}): times and memory are not compared"
    sizes = [str(result.shape_of(result.subject)) for result in (before, now)]
    if sizes[0] != sizes[1]:
        yield f"another size ({sizes[0]}, now {sizes[1]}): of this, times and memory are not compared"
    if before.measured.onnx_sha256 != now.measured.onnx_sha256:
        yield "another bundle: its generator.onnx is not the one measured before"
    if before.reference != now.reference:
        yield f"another reference ({before.reference or 'none'}, now {now.reference or 'none'}): no pictures compared"
    elif before.options.frames_sha256 != now.options.frames_sha256:
        yield "other frames: pictures are not compared"
    if before.options.rule != now.options.rule:
        yield f"another stopping rule ({before.options.rule}; now {now.options.rule})"
    for result, when in ((before, "earlier"), (now, "new")):
        for warning in result.steadiness.warnings if result.steadiness else ():
            yield f"the {when} result was measured on an unsteady machine: {warning}"


def _machine_differs(before: Environment, now: Environment) -> str:
    """What tells the two machines apart, or nothing."""
    names = [("CPU", before.cpu, now.cpu), ("cores", str(before.cores), str(now.cores)),
             ("system", before.system, now.system),
             ("GPU", before.gpu.name if before.gpu else "none", now.gpu.name if now.gpu else "none"),
             ("board", before.jetson or "none", now.jetson or "none")]  # fmt: skip
    return "; ".join(f"{name}: {old}, now {new}" for name, old, new in names if old != new)


def _times(before: RowResult, now: RowResult, floor: float) -> Iterator[Change]:
    for what, old, new in (("engine", before.engine, now.engine), ("frame", before.frame, now.frame)):
        if old is not None and new is not None:
            low, high = growth_interval(old, new)
            low, high = low / (1 + floor), high * (1 + floor)
            verdict = "worse" if low > 1 else "better" if high < 1 else "same"
            yield Change(now.name, f"{what} median", old.p50_ms, new.p50_ms, "ms", low, high, verdict)


def growth_interval(before: Latency, now: Latency, *, seed: int = 0) -> tuple[float, float]:
    """The 95 % block bootstrap interval of now/before by medians; the two are independent."""
    random = np.random.default_rng(seed)
    above, below = (_block_medians(np.asarray(one.samples_ms), random) for one in (now, before))
    low, high = np.percentile(above / below, (2.5, 97.5))
    return float(low), float(high)


def _block_medians(samples: NDArray[np.float64], random: np.random.Generator) -> NDArray[np.float64]:
    count = len(samples)
    length = max(1, round(count ** (1 / 3)))
    starts = random.integers(0, count - length + 1, (_RESAMPLES, math.ceil(count / length)))
    picks = (starts[..., None] + np.arange(length)).reshape(_RESAMPLES, -1)[:, :count]
    medians: NDArray[np.float64] = np.median(samples[picks], axis=1)
    return medians


def _memory(before: RowResult, now: RowResult) -> Iterator[Change]:
    if before.memory is None or now.memory is None:
        return
    for what, old, new in (
        ("peak resident memory", before.memory.peak_rss_bytes, now.memory.peak_rss_bytes),
        ("GPU memory", before.memory.device_bytes, now.memory.device_bytes),
    ):
        if old and new is not None:
            times = new / old
            verdict = "worse" if times > 1 + _SAME_BYTES else "better" if times < 1 - _SAME_BYTES else "same"
            yield Change(now.name, what, old / 1e6, new / 1e6, "MB", times, times, verdict)


def _pictures(before: RowResult, now: RowResult) -> Iterator[Change]:
    """The worst frame of each measure; an infinite PSNR is written as such, because equal pictures can get worse."""
    if before.quality is None or now.quality is None:
        return
    for name, measure in MEASURES.items():
        old, new = before.quality.worst.get(name), now.quality.worst.get(name)
        if old is None or new is None:
            continue
        a, b = (math.inf if one.value is None else one.value for one in (old, new))
        slack = _SAME_DB if measure.unit == "dB" else _SAME_OTHER
        gain = 0.0 if a == b else (b - a) * (1 if measure.higher else -1)
        verdict = "worse" if gain < -slack else "better" if gain > slack else "same"
        yield Change(now.name, f"{name}, worst frame", a, b, measure.unit, 1.0, 1.0, verdict)
