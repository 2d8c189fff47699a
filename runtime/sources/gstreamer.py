"""Cameras and streams through GStreamer: in this process where Python's bindings are, else through a child's pipe.

The child is the sturdier of the two: a plugin that crashes takes the child along and is a SourceError here.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

from ...engines.device import jetson
from ...engines.errors import SourceError
from ..channel import BoundedQueue, Channel, Empty, LatestSlot
from ..frame import Frame, Signal
from ..gstreamer.board import Board, board_of
from ..gstreamer.child import Child, read_pnm
from ..gstreamer.launch import Line, newest, source_line
from ..options import StreamOptions
from ..uri import Uri
from .base import Source

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Picture = tuple[NDArray[np.uint8], int]

_DEPTH = 4
_GRACE = 0.8


def gstreamer_source(uri: Uri, options: StreamOptions, board: Board | None = None) -> Source:
    """The source for ``uri``, not opened yet. Raises UsageError for what GStreamer cannot read here."""
    line = source_line(uri, options, board or board_of(jetson()))
    return ChildSource(str(uri), line, options)


class ChildSource(Source):
    """Runs ``line`` in a child process and reads its frames.

    ``captured_ns`` is when a frame began to arrive here; of a live source the queue in the child keeps it within a
    frame's time of the capture. There are no presentation times: a live stream's are made from the clock. A child that
    ends, or is killed, is a SourceError with the reason ``end`` or ``crashed``.
    """

    def __init__(self, description: str, line: Line, options: StreamOptions) -> None:
        super().__init__(description, replace(options, flip="none") if line.flips else options)
        self._line = line
        self.live = line.live
        self._child: Child | None = None
        self._reader: threading.Thread | None = None
        self._pictures: Channel[Picture] = LatestSlot()
        self._first: Picture | None = None

    @property
    def process_id(self) -> int | None:
        """Of the child, while open."""
        return self._child.process_id if self._child else None

    def open(self) -> None:
        """Waits for the first frame, at most ``open_timeout`` seconds."""
        self._refuse_interrupted()
        keep_newest = self.live if self.options.buffer is None else self.options.buffer == "latest"
        self._pictures = LatestSlot() if keep_newest else BoundedQueue(_DEPTH)
        words = newest(self._line.words) if keep_newest else self._line.words
        child = self._child = Child((*words, "!", "pnmenc", "!", "fdsink", "fd=1", "sync=false"))
        self._reader = threading.Thread(target=self._read_pictures, args=(child,), name="gst-reader", daemon=True)
        self._reader.start()
        with self._closing_on_failure():
            self._first = self._wait_for_first()
            self._rate = self.options.input_rate
            self._describe(self._flipped(self._first[0]))

    def read(self, timeout: float) -> Frame | Signal:
        if self._child is None:
            raise SourceError(f"{self.description} is not open", reason="closed")
        first, self._first = self._first, None
        item = first or self._pictures.get(timeout)
        if isinstance(item, Empty):
            return Signal.TIMEOUT if item is Empty.TIMEOUT else self._ended()
        picture, captured_ns = item
        return self._deliver(picture, None, captured_ns)

    def interrupt(self) -> None:
        super().interrupt()
        child = self._child
        if child is not None:
            child.kill()

    def close(self) -> None:
        child, self._child = self._child, None
        if child is None:
            return
        self._pictures.close()
        child.kill()
        if self._reader is not None:
            self._reader.join(_GRACE)
        child.close()
        self._interrupted.clear()

    def _ended(self) -> Signal:
        if self._interrupted.is_set():
            return Signal.TIMEOUT
        child = self._child
        how = child.how_it_ended() if child else "closed"
        if not self.live and how.startswith("exit code 0"):
            return Signal.EOS
        reason = "crashed" if how.startswith("killed") else "end"
        raise SourceError(f"{self.description}: GStreamer ended", reason=reason, got=how)

    def _wait_for_first(self) -> Picture:
        deadline = time.monotonic() + self.options.open_timeout
        while time.monotonic() < deadline:
            item = self._pictures.get(0.1)
            if not isinstance(item, Empty):
                return item
            self._refuse_interrupted()
            if item is Empty.CLOSED:
                how = self._child.how_it_ended() if self._child else ""
                raise SourceError(f"{self.description}: GStreamer ended before its first frame", reason="end", got=how)
        raise SourceError(
            f"{self.description} gave no frame within {self.options.open_timeout:g} s",
            reason="timeout",
            got=self._child.how_it_ended() if self._child else None,
        )

    @contextmanager
    def _closing_on_failure(self) -> Iterator[None]:
        try:
            yield
        except BaseException:
            self.close()
            raise

    def _read_pictures(self, child: Child) -> None:
        pictures = self._pictures
        try:
            while True:
                picture = read_pnm(child.output)
                if picture is None or child is not self._child:
                    break
                lost = pictures.put((picture, time.monotonic_ns()))
                if lost is not None:
                    self._faults["superseded"] += 1
        except (OSError, ValueError):
            self._faults["corrupt"] += 0 if self._interrupted.is_set() or child is not self._child else 1
        finally:
            pictures.finish()
