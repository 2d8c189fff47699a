"""One sink of a stream, with what waits for it: a sink that is slow or fails holds no other up."""

from __future__ import annotations

import logging
import time
from dataclasses import replace

from ..engines.errors import EdgeTurboError
from .channel import BoundedQueue, Channel, Empty, LatestSlot
from .frame import Emission, FrameSink, FrameSource, StreamInfo
from .image import restore
from .stats import StreamStats

_log = logging.getLogger(__name__)

_LOOK = 0.1
_DEPTH = 4


class Outlet:
    """``work`` is its thread's: it opens the sink at the first picture and closes it at the end.

    The ``primary`` sink's pictures are the ones that are counted. A sink that fails ends the stream when it stands
    ``alone``; else it is closed, the fault is counted and logged, and the others go on.
    """

    def __init__(
        self, sink: FrameSink, source: FrameSource, stats: StreamStats, *, latest: bool, alone: bool, primary: bool
    ) -> None:
        self.sink = sink
        self.channel: Channel[Emission] = LatestSlot() if latest else BoundedQueue(_DEPTH)
        self.error: EdgeTurboError | None = None
        self._source = source
        self._stats = stats
        self._alone = alone
        self._primary = primary
        self._info: StreamInfo | None = None
        self._writing = False
        self._abandoned = False

    def offer(self, emission: Emission) -> None:
        """From the engine's thread: waits only for files, and then only for room."""
        lost = self.channel.put(emission)
        if lost is not None and not lost.repeated and self._primary:
            self._stats.drop(self._reason())

    def abandon(self) -> None:
        """Drop what waits; the picture being written is finished."""
        self._abandoned = True
        self._drop_waiting()

    def interrupt(self) -> None:
        """Break off a write in progress."""
        if self._writing:
            self.sink.interrupt()

    def work(self) -> None:
        try:
            while (item := self.channel.get(_LOOK)) is not Empty.CLOSED:
                if isinstance(item, Emission):
                    self._take(item)
            self.sink.close()
        except EdgeTurboError as error:
            self._failed(error)

    def _take(self, emission: Emission) -> None:
        try:
            self._write(emission)
        except EdgeTurboError as error:
            self.error = error
            if self._primary and not emission.repeated:
                self._stats.drop(self._reason())
            raise

    def _write(self, emission: Emission) -> None:
        height, width = emission.image.shape[:2]
        if self._info is None:
            self._info = replace(self._source.info, width=width, height=height)
            self.sink.open(self._info)
        elif self.sink.fixed_size and (width, height) != (self._info.width, self._info.height):
            emission = replace(emission, image=restore(emission.image, self._info.width, self._info.height, "squash"))
        started = time.monotonic()
        self._writing = True
        try:
            self.sink.write(emission)
        finally:
            self._writing = False
        if self._primary:
            self._stats.took(emission, time.monotonic() - started)

    def _failed(self, error: EdgeTurboError) -> None:
        self.error = error
        self._drop_waiting()
        try:
            self.sink.close()
        except EdgeTurboError as second:
            _log.error("%s: %s", self.sink.description, second.what)
        if self._abandoned:
            return  # it was interrupted
        if self._alone:
            raise error
        self._stats.fault("sink")
        _log.error("%s takes no more pictures: %s", self.sink.description, error)

    def _drop_waiting(self) -> None:
        lost = self.channel.close()
        if self._primary:
            self._stats.drop(self._reason(), lost)

    def _reason(self) -> str:
        if self._abandoned:
            return "stopped"
        return "slow sink" if self.error is None else "sink failed"
