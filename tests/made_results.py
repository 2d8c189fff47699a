"""Results of a benchmark that never ran, on a machine that is nobody's."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from edgeturbo.benchmarks.environment import Environment
from edgeturbo.benchmarks.latency import Latency, Ratio, ratio
from edgeturbo.benchmarks.quality import compare
from edgeturbo.benchmarks.result import (
    FAIR,
    PUBLISHED,
    SUBJECT,
    BenchResult,
    EnergyFigures,
    MeasuredBundle,
    MemoryFigures,
    Options,
    Roofline,
    RowResult,
    StreamFigures,
    ThroughputFigure,
)
from edgeturbo.benchmarks.stage_clock import STAGES
from edgeturbo.benchmarks.steadiness import Steadiness
from edgeturbo.engines.costs import Share

HERE = Environment(
    "a <CPU>", 2, 8_000_000_000, "Linux x86_64", "3.11", None, None, {"numpy": "2"}, "c0de", None, None, 0.1
)
ROWS = (("edgeturbo, made up", SUBJECT, 0.010), ("as published", PUBLISHED, 0.035), ("merged & kept", FAIR, 0.020))


def samples(median: float, seed: int, n: int = 60) -> Latency:
    return Latency.of(list(np.random.default_rng(seed).normal(median, median / 50, n)))


def pictures(levels: int) -> list[tuple[np.ndarray, np.ndarray]]:
    frame = np.random.default_rng(0).integers(20, 200, (32, 48, 3), dtype=np.uint8)
    return [(frame, frame + np.uint8(levels))]


def result(seed: int = 0, slower: float = 1.0, levels: int = 1, rss: int = 300_000_000) -> BenchResult:
    own = samples(ROWS[0][2] * slower, seed)
    rows = []
    for number, (name, role, median) in enumerate(ROWS):
        latency = own if number == 0 else samples(median * slower, seed + 100 * number)
        rows.append(
            RowResult(
                name, role, "pytorch" if number else "onnxruntime", "fp32", "wall clock", latency, latency,
                ratio=ratio(latency, own) if number else None, stages=dict.fromkeys(STAGES, 2.0),
                quality=compare(pictures(levels)), memory=MemoryFigures(rss, 1.5, 0.5),
                throughput=(ThroughputFigure(2, 1, 42.0, 5.0),), energy=EnergyFigures(10.0, 0.1, 10.0, 20.0, 40),
                not_run={"joy": "nobody knows how"},
            )
        )  # fmt: skip
    stages = (Share("unet", 3, 10**9, 10**7, 10**6), Share("total", 3, 10**9, 10**7, 10**6))
    return BenchResult(
        "turbo-bench made-up", HERE,
        MeasuredBundle("made-up", "cyclegan-turbo", "a2b", "fp32", 48, 32, 1, "00", {"bundle": 10**6}, 51.5),
        Options(("latency",), ("pytorch",), 1, "ab" * 32, 3, "a rule"), tuple(rows), "the goldens",
        Steadiness(Ratio(1.0, 0.99, 1.01)), StreamFigures(30, 5, 150, 100, {"newer frame": 50}, 20, 1, 2, 3, None),
        Roofline(stages, "a CPU", 1e11, 2e10), (), {"predict": "no table"},
    )  # fmt: skip


def elsewhere(found: BenchResult) -> BenchResult:
    return replace(found, environment=replace(found.environment, cpu="another CPU"))
