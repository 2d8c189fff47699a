"""Windows, RTSP and recordings through a GStreamer pipeline in a child process, fed with raw RGB frames."""

from __future__ import annotations

import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ...engines.device import jetson
from ...engines.errors import MissingComponentError, OutputExistsError, SinkError, UsageError
from ..frame import Emission, FrameSink, StreamInfo
from ..gstreamer.board import Board, board_of
from ..gstreamer.child import Child
from ..gstreamer.launch import encoder, raw_input, sink_line
from ..uri import Kind, Uri, redacted

if TYPE_CHECKING:
    from ..gstreamer.launch import Words
    from ..options import StreamOptions

_SERVER = Path(__file__).parents[1] / "gstreamer" / "rtsp_server.py"
_SYSTEM_PYTHON = "/usr/bin/python3"
_SERVER_HINT = "sudo apt install python3-gi gir1.2-gst-rtsp-server-1.0 gstreamer1.0-plugins-ugly"


def gstreamer_sink(uri: Uri, options: StreamOptions, board: Board | None = None) -> FrameSink:
    """The sink for ``uri``, not opened yet. Raises UsageError, MissingComponentError or OutputExistsError."""
    board = board or board_of(jetson())
    if uri.kind is Kind.RTSP and uri.listens:
        return RtspServerSink(uri, options, board)
    if uri.kind is Kind.DISPLAY and options.headless:
        raise UsageError(f"{uri} opens a window, and --headless was given", hint="leave one of the two out")
    if uri.kind is Kind.VIDEO and uri.path is not None and uri.path.exists() and not options.force:
        raise OutputExistsError(f"{uri.path} exists", hint="add --force to replace it")
    return ChildSink(str(uri), sink_line(uri, options, board))


class ChildSink(FrameSink):
    """Feeds ``words`` with raw frames. The size of the first picture is the size of all."""

    def __init__(self, description: str, words: Words) -> None:
        self._description = description
        self._words = words
        self._child: Child | None = None

    @property
    def description(self) -> str:
        return self._description

    def open(self, info: StreamInfo) -> None:
        self._child = self._started(info)

    def write(self, emission: Emission) -> None:
        child = self._child
        if child is None:
            raise SinkError(f"{self.description} is not open")
        try:
            child.write(np.ascontiguousarray(emission.image).data.cast("B"))
        except (BrokenPipeError, ValueError) as error:
            raise SinkError(f"{self.description}: GStreamer ended", got=child.how_it_ended()) from error

    def interrupt(self) -> None:
        child = self._child
        if child is not None:
            child.kill()

    def close(self) -> None:
        child, self._child = self._child, None
        if child is not None:
            child.close()

    def _started(self, info: StreamInfo) -> Child:
        return Child((*raw_input(info.width, info.height, info.rate), "!", *self._words), feeds=True)


class RtspServerSink(ChildSink):
    """``rtsp://@:port/path``: a server in a child process; pictures flow whether anybody watches or not.

    Without an address after the ``@`` it listens on this machine alone.
    """

    def __init__(self, uri: Uri, options: StreamOptions, board: Board) -> None:
        host, path = uri.host or "127.0.0.1", "/" + uri.address.partition("://")[2].partition("/")[2]
        codec = options.output_codec or "h264"
        payload = (*encoder(options, board), "!", f"rtp{codec}pay", "name=pay0", "pt=96", "config-interval=1")
        super().__init__(redacted(f"rtsp://{host}:{uri.port}{path}"), payload)
        self._where = (host, str(uri.port), path)
        self._python = _python_with_gi()

    def _started(self, info: StreamInfo) -> Child:
        rate = f"{info.rate or 30:g}"
        words = (*self._where, str(info.width), str(info.height), rate, *self._words)
        return Child(words, feeds=True, command=(self._python, str(_SERVER)))


def _python_with_gi() -> str:
    """An interpreter that has GStreamer's bindings: this one, or the system's, whose packages they are."""
    if find_spec("gi") is not None:
        return sys.executable
    python = shutil.which(_SYSTEM_PYTHON)
    probe = "import gi; gi.require_version('GstRtspServer', '1.0'); from gi.repository import GstRtspServer"
    if python and subprocess.run([python, "-c", probe], capture_output=True, check=False).returncode == 0:  # noqa: S603
        return python
    raise MissingComponentError("serving RTSP needs GStreamer's RTSP server and its Python bindings", hint=_SERVER_HINT)
