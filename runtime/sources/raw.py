"""Raw frames on standard input: width x height x 3 bytes of RGB each, nothing between them."""

from __future__ import annotations

import os
import select
import sys
import time
from typing import TYPE_CHECKING

import numpy as np

from ...engines.errors import SourceError, UsageError
from ..frame import Frame, Signal
from ..options import StreamOptions, refuse_given
from .base import Source

if TYPE_CHECKING:
    from .base import Image

# How often a wait looks whether it was interrupted.
_LOOK_S = 0.1


class RawSource(Source):
    """Not live: a pipe holds its writer back. ``captured_ns``: when the frame's last byte came.

    ``pts_ns`` is ``index / input_rate``, or None without that option. ``descriptor`` stays open.
    """

    def __init__(self, options: StreamOptions, descriptor: int | None = None) -> None:
        refuse_given("standard input", loop=options.loop)
        super().__init__("standard input", options)
        if options.input_size is None:
            raise UsageError(
                "raw frames on standard input have no size of their own", hint="add --input-width W --input-height H"
            )
        if options.input_codec not in (None, "rgb24"):
            raise UsageError("frames on standard input are rgb24", got=f"--input-codec {options.input_codec}")
        self._size = options.input_size
        self._descriptor = descriptor
        self._rate = options.input_rate
        self._buffer = bytearray()
        self._shown = 0

    def open(self) -> None:
        """Raises UsageError when standard input is a terminal."""
        self._refuse_interrupted()
        if os.isatty(self._number()):
            raise UsageError("standard input is a terminal, and raw frames cannot be typed", hint="pipe them in")
        self._buffer.clear()
        self._shown = 0
        width, height = self._size
        self._describe(self._flipped(np.zeros((height, width, 3), np.uint8)))

    def read(self, timeout: float) -> Frame | Signal:
        """Raises SourceError (reason ``end``) when the input ends within a frame."""
        width, height = self._size
        wanted = width * height * 3
        end = time.monotonic() + timeout
        while len(self._buffer) < wanted:
            if self._interrupted.is_set():
                return Signal.TIMEOUT
            left = end - time.monotonic()
            ready = select.select([self._number()], [], [], max(min(left, _LOOK_S), 0))[0]
            if ready and not self._took_some(wanted):
                return self._at_the_end(wanted)
            if not ready and left <= 0:
                return Signal.TIMEOUT
        pts_ns = None if self._rate is None else round(self._shown * 1e9 / self._rate)
        self._shown += 1
        return self._deliver(self._image(), pts_ns, time.monotonic_ns())

    def close(self) -> None:
        self._buffer.clear()
        self._interrupted.clear()

    def _number(self) -> int:
        return sys.stdin.fileno() if self._descriptor is None else self._descriptor

    def _took_some(self, wanted: int) -> bool:
        data = os.read(self._number(), wanted - len(self._buffer))
        self._buffer += data
        return bool(data)

    def _at_the_end(self, wanted: int) -> Signal:
        if not self._buffer:
            return Signal.EOS
        raise SourceError(
            "standard input ended within a frame",
            reason="end",
            expected=f"{wanted:,} bytes a frame",
            got=f"{len(self._buffer):,} bytes",
            hint="are --input-width and --input-height those of the frames, and is their format rgb24?",
        )

    def _image(self) -> Image:
        width, height = self._size
        image = np.frombuffer(bytes(self._buffer), np.uint8).reshape(height, width, 3)
        self._buffer.clear()
        return image
