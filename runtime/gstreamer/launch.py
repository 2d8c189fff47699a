"""Launch lines: pure functions from a URI, the options and a board to the words that ``gst-launch-1.0`` takes.

Each word is an argument of its own, so nothing in a URI can become an element. A source's line ends in RGB frames, a
sink's begins with them. On a Jetson scaling and turning happen in the VIC, before a frame leaves its memory (NVMM).
"""

from __future__ import annotations

import shlex
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction

from ...engines.errors import UsageError
from ..options import StreamOptions
from ..uri import Kind, Uri
from .board import Board

Words = tuple[str, ...]

# jetson-utils' defaults for a camera that is told nothing.
_CAMERA_SIZE, _CAMERA_RATE = (1280, 720), 30.0
# Of rtspsrc, in milliseconds: its own default of 2,000 is a second thought for files; jetson-utils has 10.
_LATENCY_MS = 50
_BITRATE = 4_000_000
_NVMM = "video/x-raw(memory:NVMM)"
# nvvidconv's flip-method (Jetson Linux developer guide, Accelerated GStreamer).
_FLIP_METHODS = {
    "none": 0, "counterclockwise": 1, "rotate-180": 2, "clockwise": 3, "horizontal": 4, "upper-right-diagonal": 5,
    "vertical": 6, "upper-left-diagonal": 7,
}  # fmt: skip


@dataclass(frozen=True)
class Line:
    """``words`` up to and including RGB caps. ``flips``: whether the line turns the picture as asked.

    ``live``: frames come at their own pace.
    """

    words: Words
    live: bool
    flips: bool


def source_line(uri: Uri, options: StreamOptions, board: Board) -> Line:
    """Raises UsageError for what GStreamer, or this board, cannot read."""
    if uri.kind is Kind.GSTREAMER:
        return Line((*_user_words(uri), "!", *_to_rgb(options, None)), live=True, flips=False)
    if uri.kind is Kind.CSI and not board.has_nvmm:
        raise UsageError(f"{uri} is a camera of a Jetson, and this is none", hint="v4l2:///dev/video0 for a USB camera")
    reader = _READERS.get(uri.kind)
    if reader is None:
        raise UsageError(f"{uri} is not read through GStreamer", hint="leave --backend out")
    words, in_nvmm = reader(uri, options, board)
    live = uri.kind is not Kind.VIDEO
    return Line((*words, "!", *_to_rgb(options, board, in_nvmm=in_nvmm)), live, flips=in_nvmm)


def newest(words: Words) -> Words:
    """``words`` with a queue that keeps the newest frame only: what is downstream never waits behind old ones."""
    queue = ("queue", "leaky=downstream", "max-size-buffers=1", "max-size-bytes=0", "max-size-time=0")
    return (*words, "!", *queue)


def sink_line(uri: Uri, options: StreamOptions, board: Board) -> Words:
    """The words after the RGB frames. Raises UsageError for what GStreamer cannot write."""
    if uri.kind is Kind.GSTREAMER:
        return ("videoconvert", "!", *_user_words(uri))
    if uri.kind is Kind.DISPLAY:
        if board.has_nvmm:
            return (*_into_nvmm("RGBA"), "!", "nv3dsink", "sync=false")
        return ("videoconvert", "!", "autovideosink", "sync=false")
    if uri.kind is Kind.V4L2:
        return ("videoconvert", "!", "video/x-raw,format=YUY2", "!", "v4l2sink", f"device={uri.path}", "sync=false")
    if uri.kind is Kind.RTSP:
        push = ("rtspclientsink", f"location={uri.address}", "protocols=tcp", "latency=0")
        return (*encoder(options, board), "!", *push)
    if uri.kind is Kind.VIDEO and uri.path is not None:
        muxer: Words = ("mp4mux", "fragment-duration=1000") if uri.path.suffix == ".mp4" else ("matroskamux",)
        return (*encoder(options, board), "!", *muxer, "!", "filesink", f"location={uri.path}")
    raise UsageError(f"{uri} is not written through GStreamer", hint="leave --backend out")


def encoder(options: StreamOptions, board: Board) -> Words:
    """RGB frames to parsed H.264 or H.265, in hardware where there is an encoder."""
    codec, bitrate = options.output_codec or "h264", options.output_bitrate or _BITRATE
    if codec not in ("h264", "h265"):
        raise UsageError(f"GStreamer is not asked to encode {codec} here", expected="h264 or h265", got=codec)
    parser = f"{codec}parse"
    if board.encodes:
        settings: Words = (f"bitrate={bitrate}", "insert-sps-pps=true", "idrinterval=30")
        return (*_into_nvmm("NV12"), "!", f"nvv4l2{codec}enc", *settings, "!", parser)
    name = "x264enc" if codec == "h264" else "x265enc"
    settings = ("tune=zerolatency", "speed-preset=ultrafast", f"bitrate={bitrate // 1000}", "key-int-max=30")
    return ("videoconvert", "!", "video/x-raw,format=I420", "!", name, *settings, "!", parser)


def raw_input(width: int, height: int, rate: float | None) -> Words:
    """Raw RGB on standard input, a frame of ``width * height * 3`` bytes after another."""
    frames = Fraction(rate or _CAMERA_RATE).limit_denominator(1001)
    parse = (f"width={width}", f"height={height}", f"framerate={frames.numerator}/{frames.denominator}")
    return ("fdsrc", "fd=0", f"blocksize={width * height * 3}", "!", "rawvideoparse", "format=rgb", *parse)


def _csi(uri: Uri, options: StreamOptions, _: Board) -> tuple[Words, bool]:
    caps = f"{_NVMM},format=NV12,{_mode(options)}"
    return ("nvarguscamerasrc", f"sensor-id={uri.number}", "!", caps), True


def _v4l2(uri: Uri, options: StreamOptions, board: Board) -> tuple[Words, bool]:
    source = ("v4l2src", f"device={uri.path}", "do-timestamp=true")
    codec = options.input_codec
    if codec in ("mjpeg", "jpeg"):
        in_hardware = board.decodes_mjpeg
        decoder: Words = ("nvv4l2decoder", "mjpeg=1") if in_hardware else ("jpegdec",)
        return (*source, "!", f"image/jpeg,{_mode(options)}", "!", *decoder), in_hardware
    if codec in ("h264", "h265", "hevc"):
        decoder, in_hardware = _decoder(codec, board)
        return (*source, "!", f"video/x-{_named(codec)},{_mode(options)}", "!", *decoder), in_hardware
    return (*source, "!", f"video/x-raw,{_mode(options)}"), False


def _rtsp(uri: Uri, options: StreamOptions, board: Board) -> tuple[Words, bool]:
    latency = _LATENCY_MS if options.latency_ms is None else options.latency_ms
    settings = (f"latency={latency}", "drop-on-latency=true", "protocols=tcp", "tcp-timeout=5000000")
    source = ("rtspsrc", f"location={uri.address}", *settings)
    codec = options.input_codec
    if codec is None:
        return (*source, "!", "application/x-rtp,media=video", "!", "decodebin"), False
    decoder, in_hardware = _decoder(codec, board)
    return (*source, "!", f"rtp{_named(codec)}depay", "!", *decoder), in_hardware


def _http(uri: Uri, *_: object) -> tuple[Words, bool]:
    source = ("souphttpsrc", f"location={uri.address}", "is-live=true", "do-timestamp=true", "timeout=5")
    return (*source, "!", "multipartdemux", "!", "jpegdec"), False


def _file(uri: Uri, *_: object) -> tuple[Words, bool]:
    return ("filesrc", f"location={uri.path}", "!", "decodebin"), False


_READERS: dict[Kind, Callable[[Uri, StreamOptions, Board], tuple[Words, bool]]] = {
    Kind.CSI: _csi,
    Kind.V4L2: _v4l2,
    Kind.RTSP: _rtsp,
    Kind.HTTP: _http,
    Kind.VIDEO: _file,
}


def _decoder(codec: str, board: Board) -> tuple[Words, bool]:
    """H.264 or H.265, parsed and decoded; whether that happens in hardware."""
    parser = f"{_named(codec)}parse"
    if board.has_nvmm:
        return (parser, "!", "nvv4l2decoder", "enable-max-performance=1"), True
    return (parser, "!", "decodebin"), False


def _named(codec: str) -> str:
    name = {"hevc": "h265"}.get(codec, codec)
    if name not in ("h264", "h265"):
        raise UsageError(f"no decoder is known for {codec}", expected="h264 or h265", got=f"--input-codec {codec}")
    return name


def _mode(options: StreamOptions) -> str:
    width, height = options.input_size or _CAMERA_SIZE
    rate = Fraction(options.input_rate or _CAMERA_RATE).limit_denominator(1001)
    return f"width={width},height={height},framerate={rate.numerator}/{rate.denominator}"


def _to_rgb(options: StreamOptions, board: Board | None, *, in_nvmm: bool = False) -> Words:
    size = "" if options.input_size is None else ",width={},height={}".format(*options.input_size)
    if board is not None and in_nvmm:
        # The VIC gives RGBA at best; dropping the fourth byte is all that is left for the CPU.
        turn = f"flip-method={_FLIP_METHODS[options.flip]}"
        return ("nvvidconv", turn, "!", f"video/x-raw,format=RGBA{size}", "!", "videoconvert", "!", _RGB)
    scale = ("videoscale", "!") if size else ()
    return ("videoconvert", "!", *scale, f"{_RGB}{size}")


_RGB = "video/x-raw,format=RGB"


def _into_nvmm(layout: str) -> Words:
    return ("videoconvert", "!", "video/x-raw,format=RGBA", "!", "nvvidconv", "!", f"{_NVMM},format={layout}")


def _user_words(uri: Uri) -> Words:
    try:
        return tuple(shlex.split(uri.pipeline))
    except ValueError as error:
        raise UsageError(f"the pipeline of {uri} has an open quote", got=str(error)) from error
