"""The loop that keeps an engine fed: capture, translate and emit, each on a thread of its own.

A live source is never waited for and never waits: between the stages stands a slot that keeps the newest frame, so what
enters the engine is as young as it can be. From files nothing is lost: short queues hold the faster stage back. Every
frame that is captured is translated, reused or counted as dropped with a reason.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

import numpy as np

from ..engines.errors import BadFrameError, EdgeTurboError
from .channel import BoundedQueue, Channel, Empty, LatestSlot
from .frame import Emission, Frame, FrameSink, FrameSource, Signal
from .guard import Guard, OnBadFrame, rgb_fault_of
from .no_signal import no_signal_card
from .outlet import Outlet
from .similar import SimilarFrames

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from .guard import Judge
    from .stats import StreamStats

    Translate = Callable[[Sequence[NDArray[np.uint8]]], list[NDArray[np.uint8]]]

_log = logging.getLogger(__name__)

NoSignal = Literal["card", "last", "nothing"]

# How long a thread may sleep before it looks whether it is to end; and the seconds within which everything ends.
_LOOK = 0.1
_GRACE, _END = 0.6, 1.6
_QUEUE_DEPTH = 4
_NO_SIGNAL_AFTER_NS, _NO_SIGNAL_EVERY_NS = 1_000_000_000, 500_000_000


@dataclass(frozen=True)
class LoopOptions:
    """``latest``: keep the newest frame only (live sources), or else lose none. ``batch``: frames per engine run.

    ``max_frames`` pictures and ``duration`` seconds end the stream in good order; None is no limit. ``similar``: mean
    difference in grey levels below which the last picture is used again; None translates every frame. ``no_signal``:
    what sinks are given while a live source is away. ``on_bad_frame``: what becomes of a picture that broke in the
    network (``guard.py``): ``error`` ends the stream with BadFrameError, ``pass`` emits it, ``last`` emits the last
    good one in its place, and drops the frame while there is none. ``judge(image, frame)`` says what is wrong with a
    picture; None for nothing.
    """

    latest: bool
    batch: int = 1
    max_frames: int | None = None
    duration: float | None = None
    similar: float | None = None
    no_signal: NoSignal = "card"
    on_bad_frame: OnBadFrame = "error"
    judge: Judge = rgb_fault_of


class Stream:
    """One source through ``translate`` to sinks. ``run`` once; ``stop`` from any thread or signal handler.

    ``translate`` takes a list of at most ``batch`` frames, uint8 ``[H, W, 3]``, and returns as many pictures.
    ``interrupt`` makes a ``translate`` in progress return or raise soon; what cannot be interrupted ends by itself.
    """

    def __init__(
        self,
        source: FrameSource,
        translate: Translate,
        sinks: Sequence[FrameSink],
        options: LoopOptions,
        stats: StreamStats,
        interrupt: Callable[[], None] = lambda: None,
    ) -> None:
        self._source = source
        self._translate = translate
        self._options = options
        self._stats = stats
        self._interrupt_engine = interrupt
        self._frames: Channel[Frame] = LatestSlot() if options.latest else BoundedQueue(_QUEUE_DEPTH)
        kinds = {"latest": options.latest, "alone": len(sinks) == 1}
        self._outlets = [Outlet(sink, source, stats, primary=sink is sinks[0], **kinds) for sink in sinks]
        self._guard = Guard(options.on_bad_frame)
        self._similar = _similar(options)
        self._enough = threading.Event()
        self._stopped = threading.Event()
        self._over = threading.Event()
        self._errors: list[BaseException] = []
        self._last: Emission | None = None
        self._next_card_ns = 0

    def run(self, look: Callable[[], None] = lambda: None) -> None:
        """Until the source ends, a limit is reached, ``stop`` is called or something fails.

        ``look`` is called in between, about ten times a second. The source is open and is closed here; sinks are
        opened by their first picture and closed here. Raises the first error of the source, the engine or the only
        sink, after everything was closed; KeyboardInterrupt passes.
        """
        threads = [self._thread("capture", self._capture), self._thread("translate", self._work)]
        threads += [self._thread(f"emit {outlet.sink.description}", outlet.work) for outlet in self._outlets]
        deadline = None if self._options.duration is None else time.monotonic() + self._options.duration
        try:
            for thread in threads:
                thread.start()
            while any(thread.is_alive() for thread in threads) and not self._stopped.is_set():
                self._over.wait(_LOOK)
                look()
                if deadline is not None and time.monotonic() > deadline:
                    self._enough.set()
        finally:
            self._end(threads)
        if self._errors:
            raise self._errors[0]

    def stop(self) -> None:
        """End soon: what is under way is dropped and counted."""
        self._stopped.set()
        self._over.set()

    def fail(self, error: BaseException) -> None:
        """Keep the error for ``run`` to raise, and end."""
        if not self._stopped.is_set():
            self._errors.append(error)
        self.stop()

    def _thread(self, name: str, work: Callable[[], None]) -> threading.Thread:
        def guarded() -> None:
            try:
                work()
            except BaseException as error:  # noqa: BLE001 -- it is raised again, by run, in the caller's thread
                self.fail(error)

        return threading.Thread(target=guarded, name=name, daemon=True)

    def _ending(self) -> bool:
        return self._enough.is_set() or self._stopped.is_set()

    def _capture(self) -> None:
        live = self._source.live
        try:
            while not self._ending():
                started = time.monotonic()
                got = self._source.read(_LOOK)
                if got is Signal.EOS:
                    break
                if not isinstance(got, Frame):
                    continue
                self._stats.time("wait" if live else "decode", time.monotonic() - started)
                self._stats.add(captured=1)
                if self._frames.put(got) is not None:
                    self._stats.drop("stopped" if self._ending() else "newer frame")
        finally:
            self._frames.finish()

    def _work(self) -> None:
        try:
            while not self._stopped.is_set():
                frames = self._take()
                if frames is None:
                    break
                if frames:
                    self._translated(frames)
                else:
                    self._show_no_signal()
                if self._left() == 0:
                    break
        finally:
            self._enough.set()
            self._stats.drop("stopped", self._frames.close())
            for outlet in self._outlets:
                outlet.channel.finish()

    def _take(self) -> list[Frame] | None:
        """The next frames for one engine run; none after a while without any; None at the end."""
        first = self._frames.get(_LOOK)
        if not isinstance(first, Frame):
            return None if first is Empty.CLOSED else []
        frames = [first]
        while len(frames) < self._room() and not self._options.latest:
            more = self._frames.get(_LOOK)
            if more is Empty.CLOSED or self._stopped.is_set():
                break
            if isinstance(more, Frame):
                frames.append(more)
        return frames

    def _room(self) -> int:
        left = self._left()
        return self._options.batch if left is None else min(self._options.batch, left)

    def _left(self) -> int | None:
        """Pictures until ``max_frames``; None without such a limit."""
        limit = self._options.max_frames
        return None if limit is None else limit - self._stats.translated - self._stats.reused

    def _translated(self, frames: list[Frame]) -> None:
        for frame in frames:
            self._stats.time("age_in", (time.monotonic_ns() - frame.captured_ns) / 1e9)
        alike = self._similar is not None and len(frames) == 1 and self._similar.like_last(frames[0].image)
        if alike and self._last is not None:
            self._stats.add(reused=1)
            self._offer(Emission(self._last.image, frames[0]))
        else:
            started = time.monotonic()
            try:
                images = self._translate([frame.image for frame in frames])
            except EdgeTurboError:
                self._stats.drop("stopped" if self._stopped.is_set() else "engine failed", len(frames))
                raise
            self._stats.time("translate", time.monotonic() - started)
            self._stats.add(translated=len(frames))
            self._judged(frames, images)

    def _judged(self, frames: list[Frame], images: list[NDArray[np.uint8]]) -> None:
        """Offer the pictures, each bad one as the policy has it. Whatever happens, each frame is accounted for."""
        for done, (frame, image) in enumerate(zip(frames, images, strict=True), 1):
            fault = self._options.judge(image, frame.image)
            if fault is not None:
                self._stats.bad(fault)
                self._similar = _similar(self._options)  # no further frame shall be taken for one that turned out well
            try:
                self._guard.note(fault)
            except BadFrameError:
                self._stats.drop("bad frame")
                self._stats.drop("stopped", len(frames) - done)
                raise
            if fault is None or self._options.on_bad_frame == "pass":
                self._offer(Emission(image, frame))
            elif self._last is not None:
                self._offer(Emission(self._last.image, frame, stands_in=True))
            else:
                self._stats.drop("bad frame")

    def _offer(self, emission: Emission) -> None:
        self._last = emission
        for outlet in self._outlets:
            outlet.offer(emission)

    def _show_no_signal(self) -> None:
        now, options = time.monotonic_ns(), self._options
        if not self._source.live or self._stats.connected or options.no_signal == "nothing" or self._last is None:
            self._next_card_ns = now + _NO_SIGNAL_AFTER_NS
            return
        if now < self._next_card_ns:
            return
        self._next_card_ns = now + _NO_SIGNAL_EVERY_NS
        image, frame = self._last.image, self._last.frame
        shown = no_signal_card(image) if options.no_signal == "card" else image
        pts_ns = None if frame.pts_ns is None else frame.pts_ns + now - frame.captured_ns
        for outlet in self._outlets:
            outlet.offer(Emission(shown, replace(frame, pts_ns=pts_ns, captured_ns=now), repeated=True))

    def _end(self, threads: list[threading.Thread]) -> None:
        """Whatever state the threads are in: within two seconds all is closed, or said to hang."""
        stopped = self._stopped.is_set() or any(thread.is_alive() for thread in threads)
        self._stopped.set()
        if stopped:
            self._source.interrupt()
            self._interrupt_engine()
            self._stats.drop("stopped", self._frames.close())
            for outlet in self._outlets:
                outlet.abandon()
        started = time.monotonic()
        _join(threads, started + _GRACE)
        for outlet in self._outlets:
            outlet.interrupt()
        for thread in _join(threads, started + _END):
            _log.error("the thread '%s' does not end and is left behind", thread.name)
        self._source.close()


def _similar(options: LoopOptions) -> SimilarFrames | None:
    return None if options.similar is None else SimilarFrames(options.similar)


def _join(threads: list[threading.Thread], deadline: float) -> list[threading.Thread]:
    """Wait for the threads that were started; returns those that still run at ``deadline``."""
    started = [thread for thread in threads if thread.ident is not None]
    for thread in started:
        thread.join(max(0.0, deadline - time.monotonic()))
    return [thread for thread in started if thread.is_alive()]
