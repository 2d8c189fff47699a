"""``http://:8080``: the stream as a page in a browser."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..frame import Emission, FrameSink, StreamInfo

if TYPE_CHECKING:
    from ..web import Latest


class WebSink(FrameSink):
    """Hands pictures to a web server that somebody else keeps; nobody needs to look."""

    fixed_size = False

    def __init__(self, latest: Latest, url: str) -> None:
        self._latest = latest
        self._url = url

    @property
    def description(self) -> str:
        return self._url

    def open(self, info: StreamInfo) -> None:
        """Pictures of any size and rate are welcome."""

    def write(self, emission: Emission) -> None:
        """Keeps the emission until the next: its pictures must not change."""
        self._latest.publish(emission)

    def interrupt(self) -> None:
        """``write`` never waits."""

    def close(self) -> None:
        """The server is closed by who made it, so that the last picture and the figures can still be seen."""
