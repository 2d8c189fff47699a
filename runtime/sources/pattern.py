"""Test pictures made here, without any package: a camera that is always there."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import numpy as np

from ...engines.errors import UsageError
from ..frame import Frame, Signal
from ..options import MAX_SIDE, StreamOptions, refuse_given
from .base import Source

if TYPE_CHECKING:
    from ..uri import Uri
    from .base import Image

_QUERY = "size=1280x720&rate=30&frames=100&live=0"
_NS = 1_000_000_000
_BALL = (250, 90, 40)
# The colours of SMPTE EG 1-1990's 75 % bars.
_BARS = ((191, 191, 191), (191, 191, 0), (0, 191, 191), (0, 191, 0), (191, 0, 191), (191, 0, 0), (0, 0, 191))
_NOISE_SEED = 0
# The frame's number stands in its first row of blocks, so that a test can tell frames apart after any codec.
COUNTER_BITS = 16
_COUNTER_BLOCK_PART = 32


class PatternSource(Source):
    """``ball`` moves over a gradient, ``bars`` stand still, ``noise`` is new in every pixel.

    Frame n is due n / rate seconds after ``open``, and ``captured_ns`` is when it was due. Live as a camera is: a frame
    that is not read before the next is due is lost, and counted in ``faults`` as ``superseded``, unless the buffer is
    ``all``. With ``live=0`` every frame is given, as fast as it is read. ``frames=N`` ends it after the Nth.
    """

    def __init__(self, uri: Uri, options: StreamOptions) -> None:
        refuse_given(f"{uri}", input_width=options.input_width, input_rate=options.input_rate, loop=options.loop)
        super().__init__(str(uri), options)
        query = dict(uri.query)
        self._pattern = uri.pattern
        self._width, self._height = _size(query.pop("size", "1280x720"))
        self._rate: float = _number("rate", query.pop("rate", "30"), 0.001, 1_000_000)
        self._frames = int(_number("frames", query.pop("frames", "0"), 0, 1e15))
        self.live = _number("live", query.pop("live", "1"), 0, 1) != 0
        if query:
            raise UsageError(f"{uri} has an unknown {next(iter(query))!r}", expected=_QUERY)
        self._next = 0
        self._start_ns = 0
        self._background: Image | None = None
        self._random = np.random.default_rng(_NOISE_SEED)

    def open(self) -> None:
        self._refuse_interrupted()
        self._background = _background(self._pattern, self._width, self._height)
        self._random = np.random.default_rng(_NOISE_SEED)
        self._next = 0
        self._describe(self._flipped(self._background))
        self._start_ns = time.monotonic_ns()

    def read(self, timeout: float) -> Frame | Signal:
        if self._interrupted.is_set() or self._background is None:
            return Signal.TIMEOUT
        if self._frames and self._next >= self._frames:
            return Signal.EOS
        captured_ns = self._paced(timeout) if self.live else time.monotonic_ns()
        if captured_ns is None:
            return Signal.TIMEOUT
        number = self._next
        self._next += 1
        return self._deliver(self._drawn(number), self._due_ns(number), captured_ns)

    def close(self) -> None:
        self._background = None
        self._interrupted.clear()

    def _due_ns(self, number: int) -> int:
        return round(number * _NS / self._rate)

    def _paced(self, timeout: float) -> int | None:
        """When the frame to give now was due; None when none is within ``timeout``."""
        elapsed = time.monotonic_ns() - self._start_ns
        if self.options.buffer != "all":
            newest = int(elapsed * self._rate / _NS)
            if self._frames:
                newest = min(newest, self._frames - 1)
            self._faults["superseded"] += max(newest - self._next, 0)
            self._next = max(newest, self._next)
        wait_s = (self._due_ns(self._next) - elapsed) / _NS
        if self._interrupted.wait(max(min(wait_s, timeout), 0)) or wait_s > timeout:
            return None
        return self._start_ns + self._due_ns(self._next)

    def _drawn(self, number: int) -> Image:
        if self._pattern == "noise" or self._background is None:
            return self._random.integers(0, 256, (self._height, self._width, 3), dtype=np.uint8)
        image = self._background.copy()
        if self._pattern == "ball":
            _draw_ball(image, self._due_ns(number) / _NS)
            _draw_counter(image, number)
        return image


def counter_of(image: Image) -> int:
    """The number that a ``ball`` frame carries, modulo 65,536; survives lossy codecs."""
    return sum(1 << bit for bit, (top, left) in enumerate(_blocks(image)) if image[top, left].mean() >= 128)


def _draw_counter(image: Image, number: int) -> None:
    for bit, (top, left) in enumerate(_blocks(image)):
        image[top, left] = 255 if number >> bit & 1 else 0


def _blocks(image: Image) -> list[tuple[slice, slice]]:
    side = max(image.shape[1] // _COUNTER_BLOCK_PART, 1)
    return [(slice(0, side), slice(bit * side, (bit + 1) * side)) for bit in range(COUNTER_BITS)]


def _draw_ball(image: Image, seconds: float) -> None:
    """A disc that crosses the picture in 2 s and bounces, drawn into its own square only."""
    height, width = image.shape[:2]
    radius = max(min(width, height) // 8, 1)
    left = _bounced(seconds * width / 2, width - 2 * radius)
    top = _bounced(seconds * height / 3, height - 2 * radius)
    rows, columns = np.ogrid[: 2 * radius, : 2 * radius]
    inside = (rows - radius + 0.5) ** 2 + (columns - radius + 0.5) ** 2 <= radius**2
    square = image[top : top + 2 * radius, left : left + 2 * radius]
    square[inside[: square.shape[0], : square.shape[1]]] = _BALL


def _bounced(way: float, room: int) -> int:
    if room <= 0:
        return 0
    folded = int(way) % (2 * room)
    return min(folded, 2 * room - folded)


def _background(pattern: str, width: int, height: int) -> Image:
    image = np.zeros((height, width, 3), np.uint8)
    if pattern == "bars":
        image[:] = np.array(_BARS, np.uint8)[np.arange(width) * len(_BARS) // width]
    elif pattern == "ball":
        image[..., 0] = np.linspace(0, 255, width, dtype=np.uint8)
        image[..., 1] = np.linspace(0, 255, height, dtype=np.uint8)[:, None]
        image[..., 2] = 128
    return image


def _size(text: str) -> tuple[int, int]:
    width, cross, height = text.partition("x")
    if not (cross and width.isascii() and width.isdigit() and height.isascii() and height.isdigit()):
        raise UsageError(f"{text!r} is no size", expected="such as 1280x720")
    return int(_number("size", width, 1, MAX_SIDE)), int(_number("size", height, 1, MAX_SIDE))


def _number(name: str, text: str, low: float, high: float) -> float:
    try:
        value = float(text)
    except ValueError:
        value = float("nan")
    if not low <= value <= high:
        raise UsageError(f"a test picture's {name} is out of range", expected=f"{low:g} to {high:g}", got=text)
    return value
