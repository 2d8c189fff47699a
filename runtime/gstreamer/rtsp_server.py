"""An RTSP server for frames on standard input: ``rtsp_server.py HOST PORT PATH WIDTH HEIGHT RATE ENCODER…``.

A program of its own, run by an interpreter that has GStreamer's bindings, so it imports nothing of this package.
Frames are read all the time and go nowhere while nobody watches: a first viewer sees what is now, and the writer is
never held up. Ends with its input.
"""

from __future__ import annotations

import sys
import threading
from fractions import Fraction
from typing import Any

_ADDRESS_WORDS = 6


def main(arguments: list[str]) -> int:
    """Serve until the input ends."""
    import gi

    gi.require_version("Gst", "1.0")
    gi.require_version("GstRtspServer", "1.0")
    from gi.repository import GLib, Gst, GstRtspServer

    Gst.init(None)
    host, port, path, width, height, rate = arguments[:_ADDRESS_WORDS]
    frame_rate = Fraction(rate).limit_denominator(1001)
    caps = (
        f"video/x-raw,format=RGB,width={width},height={height},"
        f"framerate={frame_rate.numerator}/{frame_rate.denominator}"
    )
    source = (
        f"appsrc name=frames is-live=true do-timestamp=true format=time max-buffers=1 leaky-type=downstream caps={caps}"
    )
    encode = " ".join(arguments[_ADDRESS_WORDS:])
    factory = GstRtspServer.RTSPMediaFactory()
    factory.set_launch(f"( {source} ! queue leaky=downstream max-size-buffers=1 ! {encode} )")
    factory.set_shared(True)
    viewers = Viewers()
    factory.connect("media-configure", lambda _, media: viewers.begin(media))
    server = GstRtspServer.RTSPServer()
    server.set_address(host)
    server.set_service(port)
    server.get_mount_points().add_factory(path, factory)
    loop = GLib.MainLoop()
    if server.attach(None) == 0:
        sys.stderr.write(f"cannot listen on {host}:{port}\n")
        return 1
    size = int(width) * int(height) * 3
    threading.Thread(target=_pump, args=(size, viewers, loop, Gst), daemon=True).start()
    loop.run()
    return 0


class Viewers:
    """The pipeline of whoever watches; all share one."""

    def __init__(self) -> None:
        self._source: Any = None

    def begin(self, media: Any) -> None:
        self._source = media.get_element().get_child_by_name("frames")
        media.connect("unprepared", lambda _: self.end())

    def end(self) -> None:
        self._source = None

    def show(self, buffer: Any) -> None:
        source = self._source
        if source is not None:
            source.emit("push-buffer", buffer)


def _pump(size: int, viewers: Viewers, loop: Any, gst: Any) -> None:
    stream = sys.stdin.buffer
    while True:
        data = stream.read(size)
        if len(data) < size:
            loop.quit()
            return
        viewers.show(gst.Buffer.new_wrapped(data))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
