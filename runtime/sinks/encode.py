"""RGB pictures to packets of an FFmpeg container, with colours tagged as what they are."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING, Any

import numpy as np

from ...engines.errors import MissingComponentError
from ..pyav import load_av
from ..sources.decode import BT709, FULL, LIMITED, SMPTE170M, matrix_for

if TYPE_CHECKING:
    import av
    from av.container import OutputContainer
    from av.video.stream import VideoStream
    from numpy.typing import NDArray

    from ..frame import StreamInfo

# RTP's clock for video (RFC 3551, section 5): exact for 24, 25, 30, 50, 60 and 30000/1001 frames a second.
VIDEO_CLOCK = Fraction(1, 90_000)
_NS = 1_000_000_000
_UNKNOWN_RATE = 30
# libswscale/swscale.h, SWS_CS_*: what PyAV wants, where the tags are AVColorSpace's numbers.
_SWS_MATRIX = {BT709: 1, SMPTE170M: 5}
_BILINEAR = 2


@dataclass(frozen=True)
class Codec:
    """``options`` are the encoder's. No B-frames anywhere: pictures leave in the order and at the times they came."""

    encoder: str
    pixel_format: str
    options: dict[str, str]


_X265 = "bframes=0:log-level=none"
# To keep: x264's look-ahead is worth its delay. To send: nothing is held back.
RECORDED = {
    "h264": Codec("libx264", "yuv420p", {"preset": "veryfast", "bf": "0"}),
    "h265": Codec("libx265", "yuv420p", {"preset": "ultrafast", "x265-params": _X265}),
    "mjpeg": Codec("mjpeg", "yuvj420p", {"qmin": "2", "qmax": "3"}),
}
SENT = {
    "h264": Codec("libx264", "yuv420p", {"preset": "ultrafast", "tune": "zerolatency", "bf": "0"}),
    "h265": Codec("libx265", "yuv420p", {"preset": "ultrafast", "tune": "zerolatency", "x265-params": _X265}),
    "mjpeg": Codec("mjpeg", "yuvj420p", {"qmin": "2", "qmax": "5"}),
}
YUYV = Codec("rawvideo", "yuyv422", {})
# Constant rate factor without a bitrate, 23 being the encoders' default; lower is better and larger.
_QUALITY = {"libx264": "20", "libx265": "22"}


class VideoEncoder:
    """One video stream of ``container``. Pictures have one size; an odd side is made even by repeating its last pixels,
    since 4:2:0 and 4:2:2 halve it: ``size`` is what is coded, and ``note`` says so.

    YCbCr of limited range, BT.709 above 576 lines and else BT.601, tagged; JPEG is full range BT.601 (JFIF).
    """

    def __init__(
        self, container: OutputContainer, codec: Codec, info: StreamInfo, bitrate: int | None, clock: Fraction
    ) -> None:
        self.size = (info.width + info.width % 2, info.height + info.height % 2)
        self.clock = clock
        self._container = container
        self._codec = codec
        self._last_tick: int | None = None
        self._reformatter = load_av().video.reformatter.VideoReformatter()
        self._full_range = codec.pixel_format == "yuvj420p"
        self._matrix = SMPTE170M if self._full_range else matrix_for(info.height)
        self._stream = self._added(info.rate or _UNKNOWN_RATE, bitrate)

    @property
    def note(self) -> str:
        width, height = self.size
        return f"{self._codec.encoder} {width}x{height}"

    def encode(self, image: NDArray[np.uint8], due_ns: int) -> list[av.Packet[Any]]:
        """The packets that are ready; ``image`` is uint8 RGB ``[H, W, 3]`` and not kept."""
        picture = self._converted(image)
        tick = round(Fraction(due_ns, _NS) / self.clock)
        if self._last_tick is not None:
            tick = max(tick, self._last_tick + 1)
        self._last_tick = picture.pts = tick
        picture.time_base = self.clock
        return list(self._stream.encode(picture))

    def flush(self) -> list[av.Packet[Any]]:
        """What the encoder still holds. Once, at the end."""
        return list(self._stream.encode(None))

    def _converted(self, image: NDArray[np.uint8]) -> av.VideoFrame:
        height, width = image.shape[:2]
        if (width % 2, height % 2) != (0, 0):
            image = np.pad(image, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")
        picture = load_av().VideoFrame.from_ndarray(np.ascontiguousarray(image), format="rgb24")
        converted: av.VideoFrame = self._reformatter.reformat(
            picture,
            format=self._codec.pixel_format,
            src_color_range=FULL,
            dst_colorspace=_SWS_MATRIX[self._matrix],
            dst_color_range=FULL if self._full_range else LIMITED,
            interpolation=_BILINEAR,
        )
        return converted

    def _added(self, rate: float, bitrate: int | None) -> VideoStream:
        av = load_av()
        options = dict(self._codec.options)
        if bitrate is None and self._codec.encoder in _QUALITY:
            options["crf"] = _QUALITY[self._codec.encoder]
        try:
            stream: Any = self._container.add_stream(
                self._codec.encoder, rate=Fraction(rate).limit_denominator(1001), options=options
            )
        except (av.FFmpegError, ValueError) as error:
            raise MissingComponentError(
                f"this FFmpeg cannot encode with {self._codec.encoder} for this kind of output: {error}",
                hint='pip install --upgrade "edgeturbo[camera]"',
            ) from None
        context = stream.codec_context
        context.width, context.height = self.size
        context.pix_fmt = self._codec.pixel_format
        context.time_base = stream.time_base = self.clock
        # A picture that needs no other, once a second: where a reader may begin, and where a fragment ends.
        context.gop_size = max(round(rate), 1)
        context.color_range = FULL if self._full_range else LIMITED
        context.colorspace = context.color_primaries = context.color_trc = self._matrix
        if bitrate is not None:
            context.bit_rate = bitrate
        added: VideoStream = stream
        return added
