"""Latencies: measured side by side, described by percentiles, compared with an interval.

What is compared is measured in turns (A B A B …), so that a clock that changes or a neighbour that wakes up meets both.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from ..engines.errors import UsageError

# Samples are kept to 0.1 microseconds: finer than any clock here, and short in JSON.
_DIGITS = 4
_RESAMPLES = 2000
_INTERVAL = (2.5, 97.5)


@dataclass(frozen=True)
class SelfTimed:
    """What a call returns that knows better than the wall clock how long it took (CUDA events): ``seconds``."""

    seconds: float


@dataclass(frozen=True)
class Latency:
    """``n`` samples in milliseconds, in the order they were taken.

    Percentiles interpolate linearly between order statistics (definition 7 of Hyndman and Fan, "Sample quantiles in
    statistical packages", The American Statistician 50(4), 1996, which is numpy's default). ``mad_ms`` is the median
    distance from the median, not scaled to a standard deviation.
    """

    n: int
    p50_ms: float
    p95_ms: float
    p99_ms: float
    min_ms: float
    mad_ms: float
    samples_ms: tuple[float, ...] = ()

    @classmethod
    def of(cls, seconds: list[float]) -> Latency:
        """Describe samples given in seconds. Raises UsageError when there are none."""
        if not seconds:
            raise UsageError("there is no sample to describe", expected="1 or more runs", got="0")
        samples = np.asarray(seconds, dtype=np.float64) * 1e3
        p50, p95, p99 = (float(p) for p in np.percentile(samples, (50, 95, 99)))
        mad = float(np.median(np.abs(samples - p50)))
        p50, p95, p99, least, mad = (round(figure, _DIGITS) for figure in (p50, p95, p99, float(samples.min()), mad))
        return cls(len(seconds), p50, p95, p99, least, mad, tuple(round(float(sample), _DIGITS) for sample in samples))

    @property
    def fps(self) -> float:
        """Frames a second at the median, one frame after the other."""
        return 1e3 / self.p50_ms


@dataclass(frozen=True)
class Ratio:
    """How many times as long the first takes as the second, by medians; ``low`` to ``high`` is the 95 % interval."""

    value: float
    low: float
    high: float


def measure(
    calls: Mapping[str, Callable[[], object]],
    *,
    warmup: int,
    runs: int,
    interleave: bool = True,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, Latency]:
    """Call each of ``calls`` ``warmup`` times unmeasured and ``runs`` times measured, in turns or one after the other.

    A call must return when its work is done, not when it was enqueued. Its time is what ``clock`` (seconds) says, or
    what the SelfTimed that it returned says. Raises UsageError for ``runs`` below 1 or ``warmup`` below 0.
    """
    if runs < 1 or warmup < 0:
        raise UsageError(
            "these numbers of runs do not work", expected="runs >= 1, warmup >= 0", got=f"{runs}, {warmup}"
        )
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    groups = [dict(calls)] if interleave else [{name: call} for name, call in calls.items()]
    for group in groups:
        for round_number in range(-warmup, runs):
            for name, call in group.items():
                taken = _timed(call, clock)
                if round_number >= 0:
                    seconds[name].append(taken)
    return {name: Latency.of(samples) for name, samples in seconds.items()}


def ratio(slow: Latency, fast: Latency, *, seed: int = 0) -> Ratio:
    """``slow.p50_ms / fast.p50_ms`` with a percentile bootstrap interval (Efron 1979) over the measured rounds.

    Both must come from one interleaved ``measure``: a resample draws whole rounds, so that what slowed both counts for
    both. Raises UsageError when the numbers of samples differ.
    """
    if len(slow.samples_ms) != len(fast.samples_ms) or not slow.samples_ms:
        raise UsageError(
            "a ratio needs samples taken in the same rounds",
            expected=f"{len(slow.samples_ms)} samples of each",
            got=str(len(fast.samples_ms)),
        )
    rounds = np.random.default_rng(seed).integers(0, slow.n, (_RESAMPLES, slow.n))
    above, below = (np.median(np.asarray(one.samples_ms)[rounds], axis=1) for one in (slow, fast))
    low, high = (round(float(edge), _DIGITS) for edge in np.percentile(above / below, _INTERVAL))
    return Ratio(round(slow.p50_ms / fast.p50_ms, _DIGITS), low, high)


def _timed(call: Callable[[], object], clock: Callable[[], float]) -> float:
    started = clock()
    result = call()
    ended = clock()
    return result.seconds if isinstance(result, SelfTimed) else ended - started
