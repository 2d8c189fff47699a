"""Where frames come from. Each kind of source stands in a file of its own, imported when it is asked for."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from ...engines.device import jetson
from ...engines.errors import UsageError
from ..options import StreamOptions
from ..uri import Kind, Uri, parse_input

if TYPE_CHECKING:
    from ..frame import FrameSource

_FOR_GSTREAMER_ALONE = (Kind.CSI, Kind.GSTREAMER)
_FOR_EITHER = (Kind.V4L2, Kind.RTSP, Kind.HTTP, Kind.VIDEO)
_BETTER_ON_A_JETSON = (Kind.V4L2, Kind.RTSP)


def open_source(uri: str | Uri, options: StreamOptions | None = None) -> FrameSource:
    """The source that ``uri`` means, not opened yet.

    Raises UsageError for a URI or an option that cannot be meant, MissingComponentError for a backend that is absent.
    """
    parsed = parse_input(uri) if isinstance(uri, str) else uri
    options = options or StreamOptions()
    if backend_for(parsed, options) == "gstreamer":
        return _gstreamer(parsed, options)
    return _MAKERS[parsed.kind](parsed, options)


def _pictures(uri: Uri, options: StreamOptions) -> FrameSource:
    from .pictures import PictureSource

    return PictureSource(uri.path or Path(), str(uri), options)


def _video(uri: Uri, options: StreamOptions) -> FrameSource:
    from .video import VideoFileSource

    return VideoFileSource(uri.path or Path(), str(uri), options)


def _v4l2(uri: Uri, options: StreamOptions) -> FrameSource:
    from .v4l2 import v4l2_source

    return v4l2_source(uri.path or Path(), options)


def _test(uri: Uri, options: StreamOptions) -> FrameSource:
    from .pattern import PatternSource

    return PatternSource(uri, options)


def _raw(uri: Uri, options: StreamOptions) -> FrameSource:  # noqa: ARG001 -- there is one standard input
    from .raw import RawSource

    return RawSource(options)


def _network(uri: Uri, options: StreamOptions) -> FrameSource:
    from .network import network_source

    return network_source(uri, options)


_MAKERS: dict[Kind, Callable[[Uri, StreamOptions], FrameSource]] = {
    Kind.PICTURES: _pictures,
    Kind.VIDEO: _video,
    Kind.V4L2: _v4l2,
    Kind.TEST: _test,
    Kind.RAW: _raw,
    Kind.RTSP: _network,
    Kind.HTTP: _network,
    Kind.UDP: _network,
}


def backend_for(uri: Uri, options: StreamOptions) -> str:
    """``pyav`` or ``gstreamer``; ``auto`` is GStreamer for CSI and, on a Jetson, for V4L2 and RTSP.

    Raises UsageError where the backend that was asked for cannot do it.
    """
    if uri.kind in _FOR_GSTREAMER_ALONE:
        if options.backend == "pyav":
            raise UsageError(f"{uri} needs GStreamer", got="--backend pyav", hint="leave --backend out")
        return "gstreamer"
    if uri.kind not in _FOR_EITHER:
        return "pyav"
    if options.backend == "auto":
        return "gstreamer" if uri.kind in _BETTER_ON_A_JETSON and not uri.listens and jetson() else "pyav"
    return options.backend


def _gstreamer(uri: Uri, options: StreamOptions) -> FrameSource:
    from .gstreamer import gstreamer_source

    return gstreamer_source(uri, options)
