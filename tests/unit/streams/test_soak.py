"""A short soak, and leaks made on purpose: each must be seen."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from edgeturbo.benchmarks import soak as soaking
from edgeturbo.benchmarks.soak import FailingSource, WatchingSink, main, soak
from edgeturbo.engines.errors import SourceError
from edgeturbo.runtime.frame import Signal
from edgeturbo.runtime.persistent import Persistence, PersistentSource
from edgeturbo.runtime.stats import StreamStats

FRAMES = 20_000


class HoardingSink(WatchingSink):
    """Keeps every 5th picture."""

    def __init__(self, every: int) -> None:
        super().__init__(every)
        self.kept: list[object] = []

    def write(self, emission) -> None:
        super().write(emission)
        if self.taken % 5 == 0:
            self.kept.append(emission.image.copy())


class ForgetfulSource(FailingSource):
    """Leaves a descriptor open at every close but gives the device itself back."""

    def __init__(self) -> None:
        super().__init__()
        self.left: list[int] = []

    def close(self) -> None:
        if self._device is not None:
            self.left.append(os.dup(self._device.fileno()))
        super().close()


class Absent(FailingSource):
    """Opens once, and never again."""

    def open(self) -> None:
        if self._events:
            raise SourceError("nobody is there", reason="away")
        super().open()
        self._is_due = True


def test_nothing_grows_while_a_source_fails_hundreds_of_times():
    result = soak(FRAMES)
    assert result.passed, result.growth
    assert result.frames == FRAMES
    assert result.lost == 0
    assert result.counts["reconnects"] > FRAMES / 100
    assert set(result.counts["faults"]) == {"failed", "end"}


def test_pictures_that_are_kept_are_seen():
    result = soak(6000, sink=HoardingSink(15))
    assert not result.passed
    assert not result.growth["resident_kib"].flat


def test_descriptors_that_are_left_open_are_seen():
    source = ForgetfulSource()
    try:
        result = soak(4000, source=source)
    finally:
        for descriptor in source.left:
            os.close(descriptor)
    assert not result.passed
    assert not result.growth["descriptors"].flat


def test_a_frame_that_vanishes_uncounted_is_seen():
    result = soak(2000)
    result.counts["captured"] += 1
    assert result.lost == 1
    assert not result.passed


def test_the_command_writes_its_result(tmp_path, capsys):
    main(frames=1000, json_file=tmp_path / "soak.json")
    written = json.loads((tmp_path / "soak.json").read_text(encoding="utf-8"))
    assert written["passed"] is True
    assert written["frames"] == 1000
    assert {"environment", "counts", "growth", "seconds"} <= set(written)
    assert "descriptors: " in capsys.readouterr().out


def test_the_committed_result_is_of_this_soak():
    path = Path(soaking.__file__).parent / "results" / "soak.json"
    if not path.is_file():
        pytest.skip("the checkout holds no soak.json: make soak writes it")
    committed = json.loads(path.read_text(encoding="utf-8"))
    assert committed["frames"] == soaking.FRAMES == 500_000
    assert committed["passed"] is True
    assert committed["counts"]["reconnects"] >= 1000


def test_a_source_that_is_away_for_thousands_of_attempts_is_still_tried():
    source = PersistentSource(Absent(), stats := StreamStats(), Persistence(first_wait=1e-9, longest_wait=1e-9))
    source.open()
    while stats.faults["away"] < 3000:
        assert source.read(0.1) is Signal.TIMEOUT
