"""Streams through a real network that breaks on dark frames: what is shown, what is counted, how it ends."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from breaking import breaking, bright, dark
from edgeturbo import Translator
from edgeturbo.engines.errors import BadFrameError
from edgeturbo.runtime.frame import Emission, FrameSink, StreamInfo
from edgeturbo.runtime.image import load_frame, save_image
from edgeturbo.runtime.live import Live, LiveRequest
from edgeturbo.runtime.options import StreamOptions
from edgeturbo.runtime.sources.pictures import PictureSource
from edgeturbo.runtime.stats import StreamStats
from edgeturbo.runtime.stream import LoopOptions, Stream
from terminal import terminal

BRIGHT, DARK = True, False


class Kept(FrameSink):
    """Keeps every picture."""

    def __init__(self) -> None:
        self.emissions: list[Emission] = []

    @property
    def description(self) -> str:
        return "a list"

    def open(self, info: StreamInfo) -> None:
        pass

    def write(self, emission: Emission) -> None:
        self.emissions.append(emission)

    def interrupt(self) -> None:
        pass

    def close(self) -> None:
        pass


@pytest.fixture
def folder(tmp_path: Path) -> Callable[..., Path]:
    def make(*kinds: bool) -> Path:
        for i, is_bright in enumerate(kinds):
            save_image((bright if is_bright else dark)(i), tmp_path / "in" / f"{i:02}.png")
        return tmp_path / "in"

    return make


@pytest.fixture
def play(make_bundle, folder):
    """Pictures through the loop. The stats and the sink stay readable when it raises."""

    def run(kinds, policy, *, batch=1, similar=None):
        run.stats, run.sink = StreamStats(), Kept()
        source = PictureSource(folder(*kinds), "pictures", StreamOptions())
        source.open()
        with Translator(breaking(make_bundle(batch=batch)).root, engine="onnxruntime") as translator:
            options = LoopOptions(latest=False, batch=batch, similar=similar, on_bad_frame=policy,
                                  judge=translator.fault_of)  # fmt: skip
            try:
                Stream(source, translator.translate_unguarded, [run.sink], options, run.stats).run()
            finally:
                stats = run.stats
                assert stats.captured == stats.emitted + stats.dropped.total(), stats.summary()
        return run.stats, run.sink.emissions

    return run


def assert_shown(emissions, seeds):
    assert len(emissions) == len(seeds)
    for emission, seed in zip(emissions, seeds, strict=True):
        np.testing.assert_array_equal(emission.image, 255 - bright(seed))


@pytest.mark.parametrize("batch", [1, 3])
def test_the_last_good_picture_stands_in_with_the_frames_own_number(play, batch, caplog):
    stats, emissions = play((BRIGHT, DARK, DARK, BRIGHT, DARK), "last", batch=batch)
    assert_shown(emissions, (0, 0, 0, 3, 3))
    assert [e.frame.index for e in emissions] == [0, 1, 2, 3, 4]
    assert [e.stands_in for e in emissions] == [False, True, True, False, True]
    assert (stats.bad_frames, stats.emitted, stats.translated) == ({"constant": 3}, 5, 5)
    assert stats.percentiles("age_out").count == 2, "what stands in is nothing new: it feeds no watchdog"
    begun = [r for r in caplog.records if "gave a bad picture" in r.message]
    ended = [r for r in caplog.records if "good pictures again" in r.message]
    assert (len(begun), len(ended)) == (2, 1), "once an episode"


def test_before_the_first_good_picture_there_is_nothing_to_show(play):
    stats, emissions = play((DARK, DARK, BRIGHT), "last")
    assert_shown(emissions, (2,))
    assert (stats.dropped, stats.bad_frames) == ({"bad frame": 2}, {"constant": 2})


def test_bad_pictures_are_passed_on_and_counted(play):
    stats, emissions = play((BRIGHT, DARK), "pass")
    assert not emissions[1].image.any()
    assert (stats.emitted, stats.bad_frames) == (2, {"constant": 1})


def test_an_error_ends_the_stream_and_every_frame_is_accounted_for(play):
    with pytest.raises(BadFrameError):
        play((BRIGHT, DARK, BRIGHT), "error", batch=3)
    assert (play.stats.bad_frames, play.stats.dropped["bad frame"]) == ({"constant": 1}, 1)


def test_a_frame_like_one_that_broke_is_translated_again(play):
    """Else the last good picture would pass for its translation, and be counted as new."""
    stats, _ = play((BRIGHT, DARK, DARK, DARK), "last", similar=30.0)
    assert (stats.reused, stats.bad_frames) == (0, {"constant": 3})


def test_a_camera_goes_on_and_a_file_ends(make_bundle, folder):
    with Translator(breaking(make_bundle(), below=256).root, engine="onnxruntime") as translator:
        files = Live(translator, LiveRequest.of(str(folder(DARK, DARK)), ("null://",), StreamOptions()))
        with pytest.raises(BadFrameError):
            files.run()
        camera = Live(translator, LiveRequest.of("test://ball?size=64x48", ("null://",), StreamOptions(max_frames=2)))
        stats = camera.run()
        assert (stats.bad_frames, stats.dropped["bad frame"], stats.emitted) == ({"constant": 2}, 2, 0)
        assert (files.is_live, camera.is_live) == (False, True)


def test_the_command_counts_them_in_its_line_of_json(make_bundle, folder, tmp_path, monkeypatch, capfd):
    turbo = terminal(monkeypatch, capfd)
    words = (
        "turbo-run",
        breaking(make_bundle()).root,
        folder(BRIGHT, DARK),
        tmp_path / "o/%d.png",
        "--max-frames",
        "2",
    )
    ended = turbo(*words, "--engine", "onnxruntime", "--on-bad-frame", "last", "--json")
    assert (ended.code, json.loads(ended.out)["bad_frames"]) == (0, {"constant": 1}), ended.err
    np.testing.assert_array_equal(load_frame(tmp_path / "o/1.png"), 255 - bright(0))
    ended = turbo(*words, "--engine", "onnxruntime", "--force")
    assert (ended.code, "bad picture" in ended.err) == (5, True), ended.err
