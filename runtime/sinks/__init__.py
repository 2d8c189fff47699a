"""Where pictures go. Each kind of sink stands in a file of its own, imported when it is asked for."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from ...engines.device import jetson
from ...engines.errors import UsageError
from ..options import StreamOptions
from ..uri import Kind, Uri, parse_output

if TYPE_CHECKING:
    from ..frame import FrameSink

_FOR_GSTREAMER_ALONE = (Kind.DISPLAY, Kind.GSTREAMER)
_FOR_EITHER = (Kind.RTSP, Kind.VIDEO, Kind.V4L2)


def open_sink(uri: str | Uri, options: StreamOptions | None = None, *, audio_from: Path | None = None) -> FrameSink:
    """The sink that ``uri`` means, not opened yet. ``audio_from``: the video file whose sound a recording keeps.

    ``http://`` is not made here: its page belongs to a server that outlives the stream (``sinks.web.WebSink``).
    Raises UsageError for a URI or an option that cannot be meant, MissingComponentError for a backend that is absent.
    """
    parsed = parse_output(uri) if isinstance(uri, str) else uri
    options = options or StreamOptions()
    if backend_for(parsed, options) == "gstreamer":
        return _gstreamer(parsed, options)
    if parsed.kind is Kind.VIDEO:
        from .video import VideoFileSink

        return VideoFileSink(parsed.path or Path(), options, audio_from)
    if parsed.kind not in _MAKERS:
        raise UsageError(f"{parsed} is served by whoever runs the stream, and cannot be opened alone")
    return _MAKERS[parsed.kind](parsed, options)


def backend_for(uri: Uri, options: StreamOptions) -> str:
    """``pyav`` or ``gstreamer``; ``auto`` is GStreamer for a window, for serving RTSP and, on a Jetson, for pushing it.

    Raises UsageError where the backend that was asked for cannot do it: FFmpeg cannot serve RTSP.
    """
    if uri.kind in _FOR_GSTREAMER_ALONE or (uri.kind is Kind.RTSP and uri.listens):
        if options.backend == "pyav":
            raise UsageError(f"{uri} needs GStreamer", got="--backend pyav", hint="leave --backend out")
        return "gstreamer"
    if uri.kind not in _FOR_EITHER:
        return "pyav"
    if options.backend == "auto":
        return "gstreamer" if uri.kind is Kind.RTSP and jetson() else "pyav"
    return options.backend


def _pictures(uri: Uri, options: StreamOptions) -> FrameSink:
    from .pictures import PictureSink

    return PictureSink(uri.path or Path(), options)


def _rtsp(uri: Uri, options: StreamOptions) -> FrameSink:
    from .push import rtsp_push_sink

    return rtsp_push_sink(uri, options)


def _v4l2(uri: Uri, options: StreamOptions) -> FrameSink:
    from .push import v4l2_sink

    return v4l2_sink(uri.path or Path(), options)


def _raw(uri: Uri, options: StreamOptions) -> FrameSink:  # noqa: ARG001 -- there is one standard output
    from .raw import RawSink

    return RawSink()


def _null(uri: Uri, options: StreamOptions) -> FrameSink:  # noqa: ARG001 -- there is one nowhere
    from .null import NullSink

    return NullSink()


_MAKERS: dict[Kind, Callable[[Uri, StreamOptions], FrameSink]] = {
    Kind.PICTURES: _pictures,
    Kind.RTSP: _rtsp,
    Kind.V4L2: _v4l2,
    Kind.RAW: _raw,
    Kind.NULL: _null,
}


def _gstreamer(uri: Uri, options: StreamOptions) -> FrameSink:
    from .gstreamer import gstreamer_sink

    return gstreamer_sink(uri, options)
