"""Decoding and encoding a clip with PyAV and nothing else: what any loop around an engine is compared with."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from ..runtime.frame import Frame
from ..runtime.options import StreamOptions
from ..runtime.pyav import load_av
from ..runtime.sinks.encode import RECORDED
from ..runtime.sources.pattern import PatternSource
from ..runtime.uri import parse_input

if TYPE_CHECKING:
    import av

_RATE = 30


def make_clip(path: Path, size: tuple[int, int], frames: int) -> None:
    """H.264 (libx264) of the moving test picture, at 30 frames/s; ``size`` is (width, height)."""
    source = PatternSource(parse_input(f"test://ball?size={size[0]}x{size[1]}&live=0&frames={frames}"), StreamOptions())
    with source, load_av().open(str(path), mode="w") as container:
        stream = container.add_stream("libx264", rate=_RATE)
        stream.width, stream.height = size
        stream.pix_fmt = "yuv420p"
        while isinstance(frame := source.read(1.0), Frame):
            container.mux(stream.encode(load_av().VideoFrame.from_ndarray(frame.image, format="rgb24")))
        container.mux(stream.encode(None))


def plain_loop(clip: Path, out: Path) -> None:
    """Decode and encode as ``VideoFileSink`` encodes, the pictures never leaving FFmpeg's own format."""
    _transcode(clip, out, rgb=False)


def plain_loop_rgb(clip: Path, out: Path) -> None:
    """The same with each picture as a uint8 RGB array ``[H, W, 3]`` in between, as an engine needs it."""
    _transcode(clip, out, rgb=True)


def _transcode(clip: Path, out: Path, *, rgb: bool) -> None:
    av, codec = load_av(), RECORDED["h264"]
    with av.open(str(clip)) as source, av.open(str(out), mode="w", format="mp4") as sink:
        video = source.streams.video[0]
        video.thread_type = "AUTO"
        stream = sink.add_stream(codec.encoder, rate=video.average_rate, options={"crf": "20", **codec.options})
        stream.codec_context.gop_size = round(video.average_rate or _RATE)  # as VideoEncoder: one a second
        stream.width, stream.height, stream.pix_fmt = video.width, video.height, codec.pixel_format
        for frame in source.decode(video):
            sink.mux(stream.encode(_through_rgb(frame) if rgb else frame))
        sink.mux(stream.encode(None))


def _through_rgb(frame: av.VideoFrame) -> av.VideoFrame:
    made: av.VideoFrame = load_av().VideoFrame.from_ndarray(frame.to_ndarray(format="rgb24"), format="rgb24")
    made.pts, made.time_base = frame.pts, frame.time_base
    return made
