"""Latencies: measured side by side, described by percentiles, compared with an interval.

What is compared is measured in turns (A B A B …), so that a clock that changes or a neighbour that wakes up meets both.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from ..engines.errors import UsageError

if TYPE_CHECKING:
    from numpy.typing import NDArray

T = TypeVar("T")

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


@dataclass(frozen=True)
class StoppingRule:
    """When to stop measuring. After ``least`` rounds, stop as soon as every call's 95 % bootstrap interval of the
    median is no wider than ``half_width`` of the median to each side; after ``most`` rounds, or when ``seconds`` have
    passed and ``least`` rounds are done, stop in any case. Raises UsageError for numbers that cannot be meant.
    """

    half_width: float = 0.02
    least: int = 10
    most: int = 200
    seconds: float = 60.0

    def __post_init__(self) -> None:
        if not (1 <= self.least <= self.most and self.half_width > 0 and self.seconds > 0):
            raise UsageError(
                "this stopping rule cannot be kept",
                expected="1 <= least <= most rounds, half_width > 0, seconds > 0",
                got=f"least {self.least}, most {self.most}, half_width {self.half_width:g}, seconds {self.seconds:g}",
            )

    def __str__(self) -> str:
        return (
            f"until every median's 95 % interval is within {self.half_width:.0%} of it, "
            f"after at least {self.least} and at most {self.most} rounds or {self.seconds:g} s"
        )


@dataclass(frozen=True)
class Measured:
    """``latencies`` by name, of one number of rounds; ``stopped`` says in a sentence what ended the measurement."""

    latencies: dict[str, Latency]
    stopped: str


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


def measure_until(
    calls: Mapping[str, Callable[[], object]],
    rule: StoppingRule,
    *,
    warmup: int,
    rest_s: float = 0.0,
    clock: Callable[[], float] = time.perf_counter,
) -> Measured:
    """As ``measure``, in turns, for as many rounds as ``rule`` asks for; its seconds are ``clock``'s too.

    ``rest_s`` seconds lie before every call: the threads of ONNX Runtime, OpenMP and oneTBB may go on spinning for a
    while after their work, which would be counted as the next call's. No rest is long enough for certain; calls into
    processes of their own return when these threads have ended (``apart.py``).
    """
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(warmup):
        for call in calls.values():
            call()
    started, stopped = clock(), ""
    while not stopped:
        for name, call in calls.items():
            time.sleep(rest_s)
            seconds[name].append(_timed(call, clock))
        stopped = _why_stop(seconds, rule, clock() - started)
    return Measured({name: Latency.of(samples) for name, samples in seconds.items()}, stopped)


def clocked(call: Callable[[], T]) -> tuple[T, float, float]:
    """What ``call`` returns, its seconds by the clock, and those of this process's processors."""
    started, worked = time.perf_counter(), sum(os.times()[:2])
    result = call()
    return result, round(time.perf_counter() - started, _DIGITS), round(sum(os.times()[:2]) - worked, _DIGITS)


def median_interval(latency: Latency, *, seed: int = 0) -> tuple[float, float]:
    """The 95 % percentile bootstrap interval (Efron 1979) of the median, in milliseconds."""
    low, high = np.percentile(_resampled_medians(np.asarray(latency.samples_ms), seed), _INTERVAL)
    return float(low), float(high)


def _why_stop(seconds: dict[str, list[float]], rule: StoppingRule, elapsed: float) -> str:
    """What ends the measurement now, or nothing."""
    rounds = len(next(iter(seconds.values())))
    if rounds < rule.least:
        return ""
    if rounds >= rule.most:
        return f"after {rounds} rounds, the most allowed"
    if elapsed >= rule.seconds:
        return f"after {rounds} rounds, as {rule.seconds:g} s had passed"
    # Looked at now and then: the resampling costs more than a fast engine.
    if (rounds - rule.least) % rule.least == 0 and all(_is_settled(samples, rule) for samples in seconds.values()):
        return f"after {rounds} rounds, as every median was known to {rule.half_width:.0%}"
    return ""


def _is_settled(samples: list[float], rule: StoppingRule) -> bool:
    latency = Latency.of(samples)
    low, high = median_interval(latency)
    return max(latency.p50_ms - low, high - latency.p50_ms) <= rule.half_width * latency.p50_ms


def _resampled_medians(samples: NDArray[np.float64], seed: int) -> NDArray[np.float64]:
    picks = np.random.default_rng(seed).integers(0, len(samples), (_RESAMPLES, len(samples)))
    medians: NDArray[np.float64] = np.median(samples[picks], axis=1)
    return medians


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
