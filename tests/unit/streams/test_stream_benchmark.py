"""The loop's benchmark on scales that take no time: that it measures what it says; never how fast this machine is."""

from __future__ import annotations

import json
import time
from pathlib import Path

import numpy as np
import pytest
from edgeturbo.benchmarks import stream as bench
from edgeturbo.benchmarks.null_bundle import null_bundle
from edgeturbo.benchmarks.plain_loop import make_clip, plain_loop, plain_loop_rgb
from edgeturbo.benchmarks.stream import Figure, Outages, SleepingEngine
from edgeturbo.runtime.allocator import keep_freed_frames
from edgeturbo.runtime.options import StreamOptions
from edgeturbo.runtime.sources import open_source
from edgeturbo.runtime.translator import Translator


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    return null_bundle(tmp_path / "null", 64, 48).root


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {
        "_SIZE": (64, 48), "_THROUGHPUT_ROUNDS": 2, "_THROUGHPUT_FRAMES": 50, "_AGE_ROUNDS": 1, "_AGE_SECONDS": 0.6,
        "_LATENCY_ROUNDS": 1, "_LATENCY_SECONDS": 0.5, "_SLEEPS": 2, "_OUTAGES_S": (0.05,), "_CLIP_FRAMES": 10,
        "_CPU_ROUNDS": 1,
    }.items():  # fmt: skip
        monkeypatch.setattr(bench, name, value)


@pytest.mark.parametrize(
    ("relation", "value", "met"),
    [(">=", 3.0, True), (">=", 2.9, False), ("<=", 3.0, True), ("<=", 3.1, False), ("<", 3.0, False), ("<", 2.9, True)],
)
def test_a_bar_is_met_or_not(relation, value, met):
    figure = Figure("a figure", value, "ms", relation, 3.0, {})
    assert figure.met is met
    assert figure.as_data()["met"] is met
    assert ("NOT MET" in str(figure)) is not met


def test_the_null_bundle_gives_frames_back(bundle, make_frame):
    with Translator(bundle, engine="null") as translate:
        frame = make_frame(48, 64)
        np.testing.assert_array_equal(translate(frame), frame)


def test_every_round_of_the_throughput_is_kept(bundle):
    figure = bench.throughput(bundle)
    assert len(figure.samples["rounds_fps"]) == 2
    assert figure.value == max(figure.samples["rounds_fps"])


def test_the_age_is_in_camera_intervals(bundle):
    figure = bench.age(bundle, 30)
    (taken,) = figure.samples["rounds_age_ms"]
    assert figure.value == pytest.approx(taken["p95"] * 30 / 1e3, abs=1e-3)
    assert taken["count"] >= 2


def test_what_the_engine_took_is_not_added_by_the_loop(bundle):
    engine = SleepingEngine(Translator(bundle, engine="null"), 0.02)
    with engine:
        engine.run({"frame": np.zeros((1, 48, 64, 3), np.uint8)})
    assert engine.took[0] >= 0.02
    figure = bench.added_latency(bundle)
    assert figure.value > 0
    assert figure.samples["wakes_late_ms"]["n"] == 2


def test_an_outage_is_timed_from_when_the_source_can_be_opened(bundle):
    figure = bench.reconnect(bundle)
    assert figure.samples["outages_s"] == (0.05,)
    assert 0 <= figure.value < float("inf")


def test_a_source_that_never_came_back_would_show():
    assert bench._first_after([10, 20], 30) == float("inf")
    assert bench._first_after([10, int(2e9)], int(1e9)) == 1.0


def test_outages_come_one_after_the_other():
    source = Outages([0.01])
    source.open()
    source._away_at = time.monotonic()
    with pytest.raises(bench.SourceError, match="went away"):
        source.read(0)
    with pytest.raises(bench.SourceError, match="is away"):
        source.open()
    assert len(source.back_at_ns) == 1


@pytest.mark.parametrize("loop", [plain_loop, plain_loop_rgb])
def test_the_plain_loops_keep_every_frame(loop, tmp_path):
    pytest.importorskip("av")
    make_clip(tmp_path / "clip.mp4", (64, 48), 12)
    loop(tmp_path / "clip.mp4", tmp_path / "out.mp4")
    source, frames = open_source(str(tmp_path / "out.mp4"), StreamOptions()), []
    with source:
        while not isinstance(got := source.read(1.0), bench.Signal):
            frames.append(got)
    assert len(frames) == 12


def test_processor_time_is_compared_in_turns(bundle, tmp_path):
    pytest.importorskip("av")
    figure = bench.processor(bundle, tmp_path)
    assert set(figure.samples["cpu_ms_per_frame"]) == {"loop", "plain", "without_rgb"}
    assert figure.value > 0


def test_the_command_ends_with_5_when_a_bar_is_not_met(monkeypatch, tmp_path):
    figure = Figure("a figure", 1.0, "ms", ">=", 3.0, {})
    monkeypatch.setattr(bench, "measure_all", lambda *_: {"figures": [figure.as_data()]})
    with pytest.raises(bench.typer.Exit) as ended:
        bench.main(tmp_path / "out.json")
    assert ended.value.exit_code == 5
    assert json.loads((tmp_path / "out.json").read_text(encoding="utf-8"))["figures"][0]["met"] is False


def test_the_allocator_is_told_on_glibc():
    assert keep_freed_frames() in (True, False)
    import platform

    if platform.libc_ver()[0] == "glibc":
        assert keep_freed_frames()
