"""Rows measured in turns, on engines that say themselves how long they took."""

from __future__ import annotations

from contextlib import contextmanager
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from edgeturbo.benchmarks.environment import Environment
from edgeturbo.benchmarks.gpu_check.bench import Bench, parity_of
from edgeturbo.benchmarks.gpu_check.context import Context
from edgeturbo.benchmarks.gpu_check.options import CheckOptions
from edgeturbo.benchmarks.gpu_check.record import RUNNING, StageRecord
from edgeturbo.benchmarks.gpu_check.subject import Subject
from edgeturbo.benchmarks.latency import SelfTimed
from edgeturbo.engines.null import NullEngine

HERE = Environment("a CPU", 2, 1, "Linux x86_64", "3.11.7", None, None, {}, "c0de", None, None, 0.1)


class Workbench:
    """A context whose saved records are kept, and openers of engines that take a given time and tell what happens."""

    def __init__(self, tmp_path: Path, make_bundle) -> None:
        self.bundle = make_bundle("work/bundle", size=(64, 48))
        self.saved: list[StageRecord] = []
        self.told: list[str] = []
        options = CheckOptions(tmp_path / "work", tmp_path, model="tiny", device="cpu", runs=4, warmup=1)
        self.context = Context(options, StageRecord(1, "x", RUNNING, None, {}, 0.0, HERE), self.saved.append)

    def opener(self, name: str, seconds: float):
        return partial(self._opened, name, seconds)

    @contextmanager
    def _opened(self, name: str, seconds: float):
        def once() -> SelfTimed:
            self.told.append(name)
            return SelfTimed(seconds)

        manifest = self.bundle.manifest
        try:
            with NullEngine(manifest.inputs, manifest.outputs) as engine:
                self.told.append(f"open {name}")
                yield Subject(name, engine.backend, "fp16", engine, once, facts={"a": "b"})
        finally:
            self.told.append(f"close {name}")


@pytest.fixture
def bench(tmp_path: Path, make_bundle) -> Workbench:
    return Workbench(tmp_path, make_bundle)


def frames(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (48, 64, 3), dtype=np.uint8)


def test_ratios_are_taken_against_the_common_row_in_turns(bench: Workbench):
    common = bench.opener("common", 0.008)
    Bench(bench.context, frames(0), frames(0)).rows(common, (bench.opener("fast", 0.002), bench.opener("slow", 0.016)))
    record = bench.context.record
    assert record.common == "common"
    assert [row.name for row in record.rows] == ["common", "fast", "slow"]
    assert [row.ratio and row.ratio.value for row in record.rows] == [None, 4.0, 0.5]
    assert [row.engine.p50_ms for row in record.rows] == [8.0, 2.0, 16.0]
    assert record.rows[1].facts == {"a": "b"}
    # Every rival is closed before the next opens; the common row stays, and takes turns with each.
    told = bench.told
    assert told[0] == "open common"
    assert told[-1] == "close common"
    assert told.index("close fast") < told.index("open slow")
    during = [word for word in told[told.index("open fast") : told.index("close fast")] if word in ("fast", "common")]
    assert during[3:] == ["fast", "common"] * 5  # after three runs that let it settle: one to warm up, four measured


def test_every_row_is_saved_when_it_is_finished(bench: Workbench):
    Bench(bench.context, frames(0), frames(0)).rows(bench.opener("common", 0.1), (bench.opener("other", 0.1),))
    assert [len(record.rows) for record in bench.saved] == [0, 1, 2]


def test_a_row_that_fails_leaves_those_before_it_and_closes_everything(bench: Workbench):
    @contextmanager
    def failing():
        raise MemoryError
        yield

    with pytest.raises(MemoryError):
        Bench(bench.context, frames(0), frames(0)).rows(bench.opener("common", 0.1), (failing,))
    assert [row.name for row in bench.context.record.rows] == ["common"]
    assert bench.told[-1] == "close common"


def test_pictures_are_held_to_the_reference(bench: Workbench):
    Bench(bench.context, frames(0), frames(0)).rows(bench.opener("common", 0.1), ())
    Bench(bench.context, frames(0), frames(1)).rows(bench.opener("common", 0.1), ())
    equal, different = (row.parity for row in bench.context.record.rows)
    assert (equal.psnr_db, equal.max_levels, equal.ssim) == (None, 0, 1.0)
    assert different.psnr_db < 10


def test_parity_says_how_far_the_worst_pixel_is_also_below():
    dark, light = np.zeros((16, 16, 3), np.uint8), np.zeros((16, 16, 3), np.uint8)
    light[3, 4, 1] = 200
    assert parity_of(dark, light).max_levels == parity_of(light, dark).max_levels == 200
