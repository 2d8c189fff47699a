"""Latencies on clocks that the tests wind themselves: no test here measures anything."""

from __future__ import annotations

import time
from collections.abc import Iterator

import numpy as np
import pytest
from edgeturbo.benchmarks.latency import Latency, SelfTimed, clocked, measure, ratio
from edgeturbo.engines.errors import UsageError


class Wound:
    """A clock, and calls that turn it on by given seconds, one after the other."""

    def __init__(self) -> None:
        self.now = 0.0
        self.calls: list[str] = []

    def __call__(self) -> float:
        return self.now

    def taking(self, name: str, seconds: list[float]):
        left: Iterator[float] = iter(seconds)

        def call() -> None:
            self.calls.append(name)
            self.now += next(left)

        return call


def test_a_latency_is_described_by_its_percentiles():
    latency = Latency.of([0.004, 0.001, 0.002, 0.003, 0.010])
    assert (latency.n, latency.p50_ms, latency.min_ms) == (5, 3.0, 1.0)
    assert (latency.p95_ms, latency.p99_ms) == (8.8, 9.76)  # 4 + 0.8 * 6 and 4 + 0.96 * 6, between the order statistics
    assert latency.mad_ms == 1.0  # distances from 3: 1 2 1 0 7
    assert latency.samples_ms == (4.0, 1.0, 2.0, 3.0, 10.0)
    assert latency.fps == pytest.approx(333.3333, abs=1e-3)


def test_samples_are_rounded_and_none_are_refused():
    assert Latency.of([0.001234567891]).samples_ms == (1.2346,)
    with pytest.raises(UsageError, match="no sample"):
        Latency.of([])


def test_calls_take_turns_after_a_warm_up_that_does_not_count():
    clock = Wound()
    calls = {"a": clock.taking("a", [9, 1, 2, 3]), "b": clock.taking("b", [9, 10, 20, 30])}
    timed = measure(calls, warmup=1, runs=3, clock=clock)
    assert clock.calls == ["a", "b"] * 4
    assert timed["a"].samples_ms == (1000, 2000, 3000)
    assert timed["b"].samples_ms == (10000, 20000, 30000)


def test_calls_can_be_measured_one_after_the_other():
    clock = Wound()
    calls = {"a": clock.taking("a", [9, 1, 2]), "b": clock.taking("b", [9, 3, 4])}
    timed = measure(calls, warmup=1, runs=2, interleave=False, clock=clock)
    assert clock.calls == ["a"] * 3 + ["b"] * 3
    assert (timed["a"].samples_ms, timed["b"].samples_ms) == ((1000, 2000), (3000, 4000))


def test_a_drift_meets_both_sides_of_a_comparison():
    drift = [1.0 + 0.1 * i for i in range(50)]
    clock = Wound()
    calls = {"slow": clock.taking("slow", [3 * d for d in drift]), "fast": clock.taking("fast", drift)}
    timed = measure(calls, warmup=0, runs=50, clock=clock)
    found = ratio(timed["slow"], timed["fast"])
    assert (found.value, found.low, found.high) == (3.0, 3.0, 3.0)


def test_a_call_that_timed_itself_is_believed():
    clock = Wound()
    assert measure({"gpu": lambda: SelfTimed(0.005)}, warmup=0, runs=2, clock=clock)["gpu"].samples_ms == (5.0, 5.0)


@pytest.mark.parametrize(("warmup", "runs"), [(0, 0), (-1, 5)])
def test_impossible_numbers_of_runs_are_refused(warmup: int, runs: int):
    with pytest.raises(UsageError, match="numbers of runs"):
        measure({"a": lambda: None}, warmup=warmup, runs=runs)


def noisy(median: float, seed: int, n: int = 100) -> Latency:
    return Latency.of(list(np.random.default_rng(seed).normal(median, median / 20, n)))


def test_a_ratios_interval_holds_the_truth_and_narrows_with_samples():
    few, many = (ratio(noisy(0.04, 1, n), noisy(0.01, 2, n)) for n in (20, 2000))
    assert few.low < few.value < few.high
    assert many.low <= 4.0 <= many.high
    assert many.high - many.low < few.high - few.low


def test_a_ratio_is_the_same_every_time():
    assert ratio(noisy(0.02, 1), noisy(0.01, 2)) == ratio(noisy(0.02, 1), noisy(0.01, 2))


def test_a_ratio_of_samples_from_different_rounds_is_refused():
    with pytest.raises(UsageError, match="same rounds"):
        ratio(noisy(0.02, 1, 10), noisy(0.01, 2, 11))


def test_a_clocked_call_returns_its_result_and_both_times():
    def work() -> str:
        until = time.process_time() + 0.05
        while time.process_time() < until:
            time.sleep(0.001)
            sum(range(10_000))
        return "done"

    result, seconds, worked = clocked(work)
    assert result == "done"
    assert seconds > 0
    assert worked >= 0.04  # the system counts in hundredths
