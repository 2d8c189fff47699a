"""The loop, between a source and sinks that do on purpose what cameras and disks do by accident."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable
from itertools import repeat

import numpy as np
import pytest
from edgeturbo.engines.errors import DeviceError, DiskFullError, SourceError
from edgeturbo.runtime.frame import Emission, Frame, FrameSink, FrameSource, Signal, StreamInfo
from edgeturbo.runtime.persistent import Persistence, PersistentSource
from edgeturbo.runtime.stats import StreamStats
from edgeturbo.runtime.stream import LoopOptions, Stream

# A hang limit: what the loop promises (2 s), five times over.
HANG = 10.0
FAST = Persistence(stall=0.3, first_wait=0.01, longest_wait=0.05)


def picture(level: int, size: tuple[int, int] = (32, 24)) -> np.ndarray:
    return np.full((size[1], size[0], 3), level % 256, np.uint8)


class Script(FrameSource):
    """Plays ``steps``: a frame, a Signal, an error to raise, or a function to call first. Then ends, for ever."""

    def __init__(self, steps: Iterable[object], *, live: bool = False, pause: float = 0.0) -> None:
        self.live = live
        self._steps = iter(steps)
        self._pause = pause
        self._interrupted = threading.Event()
        self.opened = self.closed = self.index = 0

    @property
    def info(self) -> StreamInfo:
        return StreamInfo(32, 24, 30.0, "a script")

    def open(self) -> None:
        self.opened += 1

    def close(self) -> None:
        self.closed += 1

    def interrupt(self) -> None:
        self._interrupted.set()

    def read(self, timeout: float) -> Frame | Signal:
        if self._pause:
            self._interrupted.wait(self._pause)
        step = next(self._steps, Signal.EOS)
        if callable(step):
            step = step()
        if isinstance(step, BaseException):
            raise step
        if isinstance(step, Signal):
            if step is Signal.TIMEOUT:
                self._interrupted.wait(timeout)
            return step
        self.index += 1
        return Frame(step, self.index - 1, self.index * 1_000_000, time.monotonic_ns())


class Kept(FrameSink):
    """Keeps every picture; ``before`` is called with each, and may sleep or raise."""

    def __init__(self, before: Callable[[Emission], None] = lambda _: None, *, fixed_size: bool = True) -> None:
        self.fixed_size = fixed_size
        self._before = before
        self.pictures: list[Emission] = []
        self.info: StreamInfo | None = None
        self.closed = 0
        self.interrupted = threading.Event()

    @property
    def description(self) -> str:
        return "a list"

    def open(self, info: StreamInfo) -> None:
        assert self.info is None
        self.info = info

    def write(self, emission: Emission) -> None:
        self._before(emission)
        self.pictures.append(emission)

    def interrupt(self) -> None:
        self.interrupted.set()

    def close(self) -> None:
        self.closed += 1


def inverted(images):
    return [255 - image for image in images]


def play(source, sinks, options=None, translate=inverted, interrupt=lambda: None) -> StreamStats:
    """Run to the end, on this thread, and check what holds for every stream."""
    stats = StreamStats()
    if source.live:
        source = PersistentSource(source, stats, FAST, seed=0)
    source.open()
    stream = Stream(source, translate, sinks, options or LoopOptions(latest=source.live), stats, interrupt)
    started = time.monotonic()
    try:
        stream.run()
    finally:
        assert time.monotonic() - started < HANG
        assert all(sink.closed for sink in sinks if sink.info)
        assert not [t for t in threading.enumerate() if t.name.startswith(("capture", "translate", "emit"))]
        assert stats.captured == stats.emitted + stats.dropped.total(), stats.summary()
        play.stats = stats
    return stats


def frames(count: int) -> list[np.ndarray]:
    return [picture(level) for level in range(count)]


# Files: nothing is lost


@pytest.mark.parametrize("batch", [1, 3, 16])
def test_every_frame_of_a_file_comes_out_in_order_with_its_time(batch):
    sink = Kept()
    stats = play(Script(frames(50)), [sink], LoopOptions(latest=False, batch=batch))
    assert [p.image[0, 0, 0] for p in sink.pictures] == [255 - level for level in range(50)]
    assert [p.frame.pts_ns for p in sink.pictures] == [(i + 1) * 1_000_000 for i in range(50)]
    assert (stats.captured, stats.translated, stats.emitted, stats.dropped.total()) == (50, 50, 50, 0)


def test_a_slow_sink_holds_a_file_back_instead_of_losing_frames():
    slow = Kept(lambda _: time.sleep(0.005))
    assert play(Script(frames(60)), [slow]).dropped.total() == 0
    assert len(slow.pictures) == 60


def test_a_batch_is_filled_but_never_waited_for_at_the_end():
    sizes = []
    play(
        Script(frames(7)),
        [Kept()],
        LoopOptions(latest=False, batch=4),
        translate=lambda images: sizes.append(len(images)) or inverted(images),
    )
    assert sizes == [4, 3]


def test_a_number_of_pictures_ends_a_stream_exactly():
    sink = Kept()
    stats = play(Script(frames(500)), [sink], LoopOptions(latest=False, batch=4, max_frames=10))
    assert len(sink.pictures) == stats.emitted == 10
    assert set(stats.dropped) <= {"stopped"}


def test_a_duration_ends_a_stream_in_good_order():
    sink = Kept()
    play(Script(repeat(picture(1)), live=True, pause=0.01), [sink], LoopOptions(latest=True, duration=0.3))
    assert sink.pictures
    assert sink.closed == 1


# Live: the newest counts


def test_a_live_source_is_not_held_back_and_what_enters_the_engine_is_new():
    ages = []

    def slow(images):
        time.sleep(0.05)
        return inverted(images)

    stats = play(Script(repeat(picture(1)), live=True, pause=0.005), [Kept()],
                 LoopOptions(latest=True, duration=0.5), translate=slow)  # fmt: skip
    assert stats.dropped["newer frame"] > 10
    assert stats.translated < stats.captured
    ages = stats.percentiles("age_in")
    # The interval is 5 ms and the engine takes 50: a queue of even one frame more would show as 50 ms and more.
    assert ages.p50 < 40, ages


def test_a_slow_sink_makes_a_live_stream_drop_pictures_and_says_so():
    stats = play(
        Script(repeat(picture(1)), live=True, pause=0.005),
        [Kept(lambda _: time.sleep(0.05))],
        LoopOptions(latest=True, duration=0.5),
    )
    assert stats.dropped["slow sink"] > 3


def test_a_slow_second_sink_does_not_hold_the_first_one_up():
    fast, slow = Kept(), Kept(lambda _: time.sleep(0.1))
    stats = play(Script(repeat(picture(1)), live=True, pause=0.005), [fast, slow],
                 LoopOptions(latest=True, duration=0.5))  # fmt: skip
    assert len(fast.pictures) > 4 * len(slow.pictures)
    assert not stats.dropped["slow sink"]


# Size changes


def test_a_change_of_size_in_mid_stream_is_fitted_for_sinks_that_cannot_change():
    steps = [picture(10), picture(10, (64, 48)), picture(10)]
    fixed, free = Kept(), Kept(fixed_size=False)
    play(Script(steps), [fixed, free])
    assert {p.image.shape for p in fixed.pictures} == {(24, 32, 3)}
    assert [p.image.shape for p in free.pictures] == [(24, 32, 3), (48, 64, 3), (24, 32, 3)]


# Outages


def test_a_live_source_that_fails_comes_back_and_is_counted():
    steps = [picture(1), SourceError("gone", reason="refused"), SourceError("gone", reason="refused"), picture(2)]
    sink = Kept()
    source = Script([*steps, Signal.EOS, picture(3), *[Signal.TIMEOUT] * 100], live=True, pause=0.01)
    stats = play(source, [sink], LoopOptions(latest=True, max_frames=3, no_signal="nothing"))
    assert stats.faults == {"refused": 2, "end": 1}
    assert stats.reconnects == 2
    assert [p.image[0, 0, 0] for p in sink.pictures] == [254, 253, 252]
    assert [p.frame.index for p in sink.pictures] == [0, 1, 2]
    times = [p.frame.pts_ns for p in sink.pictures]
    assert times == sorted(times)


def test_what_turns_out_to_be_a_file_ends_where_it_ends():
    class Turns(Script):
        def open(self):
            super().open()
            self.live = False

    source = Turns(frames(5), live=True)
    stats = play(source, [Kept()], LoopOptions(latest=False))
    assert (source.opened, stats.emitted, stats.faults) == (1, 5, {})


def test_a_source_that_falls_silent_is_restarted():
    steps = [picture(1), *[Signal.TIMEOUT] * 6, picture(2)]
    source = Script(steps, live=True)
    stats = play(source, [Kept()], LoopOptions(latest=True, max_frames=2, no_signal="nothing"))
    assert stats.faults["stall"] >= 1
    assert source.opened >= 2


def test_while_the_source_is_away_a_card_is_shown_and_then_pictures_again():
    away = threading.Event()
    threading.Timer(1.8, away.set).start()

    def back():
        return picture(9) if away.is_set() else SourceError("gone", reason="refused")

    sink = Kept()
    stats = play(Script([picture(240), *[back] * 1000], live=True), [sink], LoopOptions(latest=True, max_frames=2))
    cards = [p for p in sink.pictures if p.repeated]
    assert cards
    assert stats.repeated == len(cards)
    assert {p.image.shape for p in cards} == {(24, 32, 3)}
    assert all(p.image.min() != p.image.max() for p in cards), "nothing is written on the card"
    assert [p.image[0, 0, 0] for p in sink.pictures if not p.repeated] == [15, 246]


def test_a_source_that_was_never_there_is_an_error_at_once():
    class Missing(Script):
        def open(self):
            raise SourceError("no camera", reason="missing")

    with pytest.raises(SourceError, match="no camera"):
        play(Missing([], live=True), [])


# Ends


def test_stopping_ends_a_stream_whose_source_blocks():
    class Blocks(Script):
        def read(self, timeout):  # noqa: ARG002 -- it does not keep its promise
            self._interrupted.wait()
            raise SourceError("interrupted")

    stopped(Blocks([]), [Kept()])


def test_stopping_ends_a_stream_whose_engine_blocks():
    free = threading.Event()

    def hangs(_):
        free.wait()
        raise DeviceError("terminated")

    stats = stopped(Script(repeat(picture(1))), [Kept()], translate=hangs, interrupt=free.set)
    assert stats.translated == 0


def test_stopping_ends_a_stream_whose_sink_blocks():
    sink = Kept(lambda _: sink.interrupted.wait())
    stopped(Script(repeat(picture(1))), [sink])
    assert sink.closed == 1


def stopped(source, sinks, **kinds) -> StreamStats:
    """Stop it from another thread after a moment, as a signal handler does."""
    stats = StreamStats()
    stream = Stream(source, kinds.get("translate", inverted), sinks, LoopOptions(latest=False), stats,
                    kinds.get("interrupt", lambda: None))  # fmt: skip
    threading.Timer(0.3, stream.stop).start()
    started = time.monotonic()
    stream.run()
    assert time.monotonic() - started < HANG
    assert source.closed == 1
    assert stats.captured == stats.emitted + stats.dropped.total(), stats.summary()
    assert not [t for t in threading.enumerate() if t.name.startswith(("capture", "translate", "emit"))]
    return stats


def test_a_keyboard_interrupt_passes_and_everything_is_closed(monkeypatch):
    sink = Kept()
    source = Script(repeat(picture(1)), pause=0.001)
    stream = Stream(source, inverted, [sink], LoopOptions(latest=False), StreamStats())
    calls = iter([False, False])

    def wait(timeout):  # noqa: ARG001
        time.sleep(0.05)
        if next(calls, None) is None:
            raise KeyboardInterrupt
        return False

    monkeypatch.setattr(stream._over, "wait", wait)
    with pytest.raises(KeyboardInterrupt):
        stream.run()
    assert (source.closed, sink.closed) == (1, 1)


@pytest.mark.parametrize("error", [DeviceError("the GPU is gone"), ValueError("a bug")])
def test_an_engine_that_raises_ends_the_stream_with_its_error(error):
    def fails(_):
        raise error

    sink = Kept()
    source = Script(frames(20))
    if isinstance(error, ValueError):
        with pytest.raises(ValueError, match="a bug"):
            Stream(source, fails, [sink], LoopOptions(latest=False), StreamStats()).run()
        return
    with pytest.raises(DeviceError, match="GPU is gone"):
        play(source, [sink], translate=fails)
    assert play.stats.dropped["engine failed"] == 1


def test_the_only_sink_that_fails_ends_the_stream():
    def full(_):
        raise DiskFullError("no space left")

    with pytest.raises(DiskFullError):
        play(Script(frames(30)), [Kept(full)])
    assert play.stats.dropped["sink failed"] >= 1


def test_one_of_two_sinks_that_fails_leaves_the_other():
    def full(emission):
        if emission.frame.index == 3:
            raise DiskFullError("no space left")

    good, bad = Kept(), Kept(full)
    stats = play(Script(frames(30)), [good, bad])
    assert (len(good.pictures), len(bad.pictures), stats.faults["sink"]) == (30, 3, 1)


# Similar frames


def test_similar_frames_reuse_the_last_picture_and_are_counted():
    runs = []
    still = [picture(100), picture(101), picture(100), picture(180), picture(181)]
    sink = Kept()
    stats = play(
        Script(still),
        [sink],
        LoopOptions(latest=False, similar=2.0),
        translate=lambda images: runs.append(len(images)) or inverted(images),
    )
    assert (len(runs), stats.reused, stats.translated, stats.emitted) == (2, 3, 2, 5)
    assert [p.image[0, 0, 0] for p in sink.pictures] == [155, 155, 155, 75, 75]


def test_a_slow_drift_is_not_reused_for_ever():
    runs = []
    play(
        Script([picture(level) for level in range(60)]),
        [Kept()],
        LoopOptions(latest=False, similar=2.0),
        translate=lambda images: runs.append(1) or inverted(images),
    )
    assert len(runs) == 20
