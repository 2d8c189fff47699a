"""Sources that may block inside FFmpeg: network streams and V4L2 cameras, read through a pump."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING

from ...engines.errors import SourceError
from ..frame import Frame, Signal
from .base import Source
from .decode import RgbMaker, pts_ns_of
from .pump import Connection, Pump

if TYPE_CHECKING:
    from ..options import StreamOptions

    Connect = Callable[[Counter[str], Callable[[], bool]], AbstractContextManager[Connection]]


class PumpedSource(Source):
    """``connect(faults, stopped)`` is entered in the pump's thread.

    ``live`` is known once open: a video file over HTTP waits for its reader. Frames that a newer one replaced before
    anybody read them are counted in ``faults`` as ``superseded``. ``captured_ns`` is when the frame's packet was read,
    before it was decoded. The end of a live stream is a SourceError with the reason ``end``.
    """

    def __init__(self, connect: Connect, description: str, options: StreamOptions) -> None:
        super().__init__(description, options)
        self._connect = connect
        self._lock = threading.Lock()
        self._pump: Pump | None = None
        self._connection: Connection | None = None
        self._to_rgb: RgbMaker | None = None
        self.live = True

    def open(self) -> None:
        """Waits for the first frame, at most ``open_timeout`` and ``read_timeout`` together."""
        newest = None if self.options.buffer is None else self.options.buffer == "latest"
        pump = Pump(lambda stopped: self._connect(self._faults, stopped), self._faults, newest)
        with self._lock:
            self._refuse_interrupted()
            self._pump = pump
        pump.start()
        try:
            self._begin(pump)
        except BaseException:
            self._stop_pump()
            raise

    def _begin(self, pump: Pump) -> None:
        first = pump.connected()
        if first is None:
            self._refuse_interrupted()
            raise SourceError(f"{self.description} ended before its first frame", reason="end")
        self._connection, item = first
        self.live = self._connection.live
        self._rate = self._connection.rate
        self._info = None  # the rate may be another one than before
        self._to_rgb = RgbMaker(self.options.input_size)
        self._describe(self._flipped(self._to_rgb(item.picture)))

    def read(self, timeout: float) -> Frame | Signal:
        pump, connection, to_rgb = self._pump, self._connection, self._to_rgb
        if pump is None or connection is None or to_rgb is None:
            raise SourceError(f"{self.description} is not open", reason="closed")
        item = pump.take(timeout)
        if item is Signal.EOS and connection.live:
            raise SourceError(f"{self.description} ended", reason="end", hint="is its sender still running?")
        if isinstance(item, Signal):
            return item
        pts_ns = pts_ns_of(item.picture, connection.origin_ns) if connection.has_times else None
        return self._deliver(to_rgb(item.picture), pts_ns, item.arrived_ns)

    def interrupt(self) -> None:
        with self._lock:
            super().interrupt()
            pump = self._pump
        if pump is not None:
            pump.leave()

    def close(self) -> None:
        self._stop_pump()
        self._connection = None
        self._interrupted.clear()

    def _stop_pump(self) -> None:
        with self._lock:
            pump, self._pump = self._pump, None
        if pump is not None:
            pump.stop()
