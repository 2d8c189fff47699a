"""From packets to upright RGB frames: the decoding that files, network streams and cameras share."""

from __future__ import annotations

import struct
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ...engines.errors import InputError, SourceError
from ..pyav import load_av

if TYPE_CHECKING:
    import av
    from av.container import InputContainer
    from av.video.stream import VideoStream

    from .base import Image

# libavutil/pixfmt.h, AVColorSpace and AVColorRange
BT709, UNSPECIFIED, SMPTE170M = 1, 2, 6
LIMITED, FULL = 1, 2
# libswscale/swscale.h
_BILINEAR, _BICUBIC = 2, 4

# GStreamer takes untagged video of more lines than PAL's for BT.709, and else for BT.601 (gst-plugins-base,
# video-info.c, set_default_colorimetry); so do mpv and VLC.
_LAST_SD_LINE = 576

_DISPLAY_MATRIX_BYTES = 36
_REMEMBERED = 256
_NOTHING_YET_S = 0.002
_MOST_DAMAGED_IN_A_ROW = 1000


@dataclass(frozen=True)
class Decoded:
    """``arrived_ns``: when the packet that holds the picture was read, before it was decoded."""

    picture: av.VideoFrame
    arrived_ns: int


def matrix_for(height: int) -> int:
    """The AVColorSpace of untagged video of so many lines: BT.709 above 576, else BT.601 (SMPTE 170M)."""
    return BT709 if height > _LAST_SD_LINE else SMPTE170M


def video_stream(container: InputContainer, description: str) -> VideoStream:
    """The container's first video stream that is no cover picture. Raises InputError when there is none."""
    for stream in container.streams.video:
        if not int(stream.disposition) & int(type(stream.disposition).attached_pic):
            if stream.codec_context is None:
                raise InputError(f"{description} has video that this FFmpeg cannot decode")
            return stream
    raise InputError(f"{description} holds no video", expected="a stream of pictures")


def rate_of(stream: VideoStream) -> float | None:
    """Frames per second on average, or None where the stream does not say."""
    rate = stream.average_rate or stream.guessed_rate
    return float(rate) if rate else None


def decoded(
    container: InputContainer,
    stream: VideoStream,
    faults: Counter[str],
    stopped: Callable[[], bool],
    *,
    skips_damage: bool,
) -> Iterator[Decoded]:
    """Every picture of ``stream``, in order of presentation, until its end or ``stopped()``.

    A packet that is damaged or that the decoder refuses is counted in ``faults`` as ``corrupt``; a picture that had to
    be repaired is counted as ``repaired`` and given. With ``skips_damage`` damage between packets is counted and
    skipped too, else FFmpeg's error is raised.
    """
    arrivals: dict[int | None, int] = {}
    for packet in _packets(container, stream, faults, stopped, skips_damage=skips_damage):
        now = time.monotonic_ns()
        faults["corrupt"] += packet.is_corrupt
        arrivals[packet.pts] = now
        if len(arrivals) > _REMEMBERED:
            del arrivals[next(iter(arrivals))]
        for picture in _pictures(packet, faults):
            faults["repaired"] += picture.is_corrupt
            yield Decoded(picture, arrivals.pop(picture.pts, now))


def _packets(
    container: InputContainer,
    stream: VideoStream,
    faults: Counter[str],
    stopped: Callable[[], bool],
    *,
    skips_damage: bool,
) -> Iterator[av.Packet[Any]]:
    av = load_av()
    damaged = 0
    packets = container.demux(stream)
    while not stopped():
        try:
            packet = next(packets, None)
        except av.error.BlockingIOError:  # a V4L2 device without a new frame: see sources.v4l2
            time.sleep(_NOTHING_YET_S)
            packets = container.demux(stream)
            continue
        except av.error.InvalidDataError:
            damaged += 1
            faults["corrupt"] += 1
            if not skips_damage or damaged > _MOST_DAMAGED_IN_A_ROW:
                raise
            packets = container.demux(stream)
            continue
        if packet is None:
            return
        damaged = 0
        yield packet


def _pictures(packet: av.Packet[Any], faults: Counter[str]) -> list[av.VideoFrame]:
    try:
        return list(packet.decode())
    except load_av().error.InvalidDataError:
        faults["corrupt"] += 1
        return []


def pts_ns_of(picture: av.VideoFrame, origin_ns: int) -> int | None:
    """When the picture is due, in ns after ``origin_ns``; exact to a nanosecond."""
    if picture.pts is None or picture.time_base is None:
        return None
    due_ns: int = round(picture.pts * picture.time_base * 1_000_000_000)
    return due_ns - origin_ns


def origin_ns_of(container: InputContainer) -> int:
    """What the container calls its start, in ns: the same for picture and sound. 0 where it does not say."""
    return (container.start_time or 0) * 1000  # AV_TIME_BASE is a microsecond


class RgbMaker:
    """Makes RGB of decoded pictures, upright (the stream's display matrix is applied) and, if wanted, at one size.

    Colours follow the stream's tags; untagged video is taken as ``matrix_for`` says, and its range as limited. Not
    converted: HDR transfer curves and wide primaries (values are taken as they stand), interlacing, and pixels that are
    not square. The conversion is swscale's fast one: within 3 levels of the exact one.
    """

    def __init__(self, size: tuple[int, int] | None) -> None:
        self._size = size
        self._reformatter = load_av().video.reformatter.VideoReformatter()

    def __call__(self, picture: av.VideoFrame) -> Image:
        """A new uint8 ``[H, W, 3]`` RGB array."""
        if picture.colorspace == UNSPECIFIED:
            picture.colorspace = matrix_for(picture.height)
        turn = _orientation(picture)
        width, height = self._stored_size(picture, turn)
        scaled = (width, height) != (picture.width, picture.height)
        rgb = self._reformatter.reformat(
            picture,
            width=width,
            height=height,
            format="rgb24",
            dst_color_range=FULL,
            interpolation=_BICUBIC if scaled else _BILINEAR,
        )
        return np.ascontiguousarray(turn(rgb.to_ndarray()))

    def _stored_size(self, picture: av.VideoFrame, turn: _Turn) -> tuple[int, int]:
        if self._size is None:
            return picture.width, picture.height
        width, height = self._size
        return (height, width) if turn.swaps else (width, height)


@dataclass(frozen=True)
class _Turn:
    """Applied in this order."""

    swaps: bool = False
    mirrors: bool = False
    flips: bool = False

    def __call__(self, image: Image) -> Image:
        if self.swaps:
            image = image.swapaxes(0, 1)
        if self.mirrors:
            image = image[:, ::-1]
        return image[::-1] if self.flips else image


def _orientation(picture: av.VideoFrame) -> _Turn:
    """What libavutil/display.h's matrix (a b u / c d v / x y w) does: x' = a x + c y, y' = b x + d y."""
    data = picture.side_data.get("DISPLAYMATRIX")
    if data is None:
        return _Turn()
    a, b, _, c, d = struct.unpack("=5i", bytes(data)[:20])
    if a and d and not b and not c:
        return _Turn(False, a < 0, d < 0)
    if b and c and not a and not d:
        return _Turn(True, c < 0, b < 0)
    raise SourceError(
        "the video is turned by an angle that is no right one", reason="orientation", hint="turn it with ffmpeg first"
    )
