"""How a stream is read and written: jetson-utils' options under their names, checked when they are made."""

from __future__ import annotations

import re
from dataclasses import dataclass

from ..engines.errors import UsageError

# jetson-utils' --input-flip: turns, mirrors, and the two that swap rows and columns, where the corner that is named
# stays in its place.
FLIPS = (
    "none",
    "counterclockwise",
    "rotate-180",
    "clockwise",
    "horizontal",
    "vertical",
    "upper-left-diagonal",
    "upper-right-diagonal",
)
BUFFERS = ("latest", "all")
BACKENDS = ("auto", "pyav", "gstreamer")
OUTPUT_CODECS = ("h264", "h265", "mjpeg")

MAX_SIDE = 16384  # of a picture, in pixels; the largest that H.264 and JPEG hardware and libx264 take


@dataclass(frozen=True)
class StreamOptions:
    """None means: not said, so the source or sink decides.

    ``input_width``, ``input_height`` (pixels): the mode asked of a camera, the size of raw frames, and what decoded
    video is scaled to. ``input_rate`` (frames/s): the mode asked of a camera, the timestamps of pictures and of raw
    frames. ``input_codec``: what a camera shall send (``mjpeg``, ``h264``, ``yuyv422``) or a stream is expected to.
    ``loop``: 0 plays once, N plays N times more, -1 forever. ``latency_ms``: of a network stream's jitter buffer.
    ``output_bitrate``: bits/s. ``buffer``: ``latest`` drops what is older, ``all`` loses nothing; None: ``latest`` of
    live sources. ``open_timeout`` and ``read_timeout``: seconds that a network source may be silent.
    """

    input_width: int | None = None
    input_height: int | None = None
    input_rate: float | None = None
    input_codec: str | None = None
    flip: str = "none"
    loop: int = 0
    latency_ms: int | None = None
    output_codec: str | None = None
    output_bitrate: int | None = None
    headless: bool = False
    buffer: str | None = None
    max_frames: int | None = None
    duration_s: float | None = None
    backend: str = "auto"
    force: bool = False
    open_timeout: float = 5.0
    read_timeout: float = 5.0

    def __post_init__(self) -> None:
        """Raises UsageError for a value that cannot be meant."""
        _refuse_outside("--input-width", self.input_width, 1, MAX_SIDE)
        _refuse_outside("--input-height", self.input_height, 1, MAX_SIDE)
        _refuse_outside("--input-rate", self.input_rate, 0.001, 1000)
        _refuse_outside("--input-loop", self.loop, -1, 1_000_000_000)
        _refuse_outside("--input-latency", self.latency_ms, 0, 60_000)
        _refuse_outside("--output-bitrate", self.output_bitrate, 1_000, 1_000_000_000)
        _refuse_outside("--max-frames", self.max_frames, 1, 1 << 62)
        _refuse_outside("--duration", self.duration_s, 0.001, 1e9)
        _refuse_outside("the time to open", self.open_timeout, 0.1, 600)
        _refuse_outside("the time to read", self.read_timeout, 0.1, 600)
        _refuse_unknown("--input-flip", self.flip, FLIPS)
        _refuse_unknown("--buffer", self.buffer, BUFFERS)
        _refuse_unknown("--backend", self.backend, BACKENDS)
        _refuse_unknown("--output-codec", self.output_codec, OUTPUT_CODECS)
        if (self.input_width is None) != (self.input_height is None):
            raise UsageError("one of --input-width and --input-height is missing", hint="give both or neither")
        if self.input_codec is not None and not re.fullmatch(r"[a-z0-9_]+", self.input_codec):
            raise UsageError("--input-codec is no codec's name", expected="such as mjpeg, h264", got=self.input_codec)

    @property
    def input_size(self) -> tuple[int, int] | None:
        """``(width, height)`` in pixels, or None."""
        if self.input_width is None or self.input_height is None:
            return None
        return self.input_width, self.input_height


def _refuse_outside(name: str, value: float | None, low: float, high: float) -> None:
    if value is not None and not low <= value <= high:  # also refuses nan, which is in no range
        raise UsageError(f"{name} is out of range", expected=f"{low:g} to {high:g}", got=f"{value:g}")


def _refuse_unknown(name: str, value: str | None, known: tuple[str, ...]) -> None:
    if value is not None and value not in known:
        raise UsageError(f"{name} has an unknown value", expected=", ".join(known), got=value)


def refuse_given(what: str, **given: object) -> None:
    """Raise UsageError when an option was given that ``what`` cannot honour; names are the command line's, with _."""
    for name, value in given.items():
        if value not in (None, "none", 0):
            raise UsageError(
                f"--{name.replace('_', '-')} means nothing for {what}", got=str(value), hint="leave it out"
            )
