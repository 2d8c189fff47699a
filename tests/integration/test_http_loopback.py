"""MJPEG and files over HTTP, MPEG-TS over UDP, for real, on this machine."""

from __future__ import annotations

import http.server
import io
import socket
import socketserver
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import pairwise

import numpy as np
import pytest
from clips import index_of, make_clip, picture
from edgeturbo.engines.errors import SourceError
from edgeturbo.runtime.frame import Signal
from edgeturbo.runtime.options import StreamOptions
from edgeturbo.runtime.sources import open_source
from loopback import (
    PATIENT_S,
    QUICK,
    frames_until_it_fails,
    free_port,
    next_frame,
    pumps,
)
from PIL import Image

av = pytest.importorskip("av", reason="PyAV is not installed")


@pytest.fixture(autouse=True)
def no_thread_stays_behind() -> Iterator[None]:
    """A thread that was left inside FFmpeg ends by itself when FFmpeg's own time limit is over."""
    yield
    end = time.monotonic() + PATIENT_S
    while pumps() and time.monotonic() < end:
        time.sleep(0.05)
    assert pumps() == []


def jpeg(image: np.ndarray) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(image).save(stream, "JPEG", quality=95)
    return stream.getvalue()


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.0"

    def do_GET(self) -> None:
        if self.path not in self.server.pages:
            self.send_error(404)
            return
        self.server.pages[self.path](self)

    def log_message(self, *_: object) -> None:
        """Quiet."""


class Server(socketserver.ThreadingTCPServer):
    allow_reuse_address = True
    daemon_threads = True

    def handle_error(self, *_: object) -> None:
        """A reader that went away is no news."""


@contextmanager
def http_server(**pages: Callable[[Handler], None]) -> Iterator[int]:
    with Server(("127.0.0.1", 0), Handler) as server:
        server.pages = {f"/{name}": page for name, page in pages.items()}
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        yield server.server_address[1]
        server.shutdown()


def mjpeg(images: list[np.ndarray], pause: float) -> Callable[[Handler], None]:
    def page(handler: Handler) -> None:
        handler.send_response(200)
        handler.send_header("Content-Type", "multipart/x-mixed-replace; boundary=frame")
        handler.end_headers()
        for image in images:
            data = jpeg(image)
            head = f"--frame\r\nContent-Type: image/jpeg\r\nContent-Length: {len(data)}\r\n\r\n"
            handler.wfile.write(head.encode() + data + b"\r\n")
            time.sleep(pause)

    return page


def test_mjpeg_over_http_whose_size_changes():
    images = [picture(i % 20, *((64, 48) if i < 20 else (96, 64))) for i in range(40)]
    with http_server(live=mjpeg(images, 0.02)) as port:
        source = open_source(f"http://user:hunter2@127.0.0.1:{port}/live", StreamOptions(buffer="all"))
        source.open()
        assert source.live
        assert "hunter2" not in source.info.description
        sizes, numbers = [], []
        error = None
        while error is None:
            try:
                frame = source.read(5)
            except SourceError as caught:
                error = caught
                continue
            sizes.append((source.info.width, source.info.height))
            assert frame.image.shape == (source.info.height, source.info.width, 3)
            assert frame.pts_ns is None
            numbers.append(index_of(frame.image))
        source.close()
    assert error.reason == "end"
    assert numbers == [i % 20 for i in range(40)]
    assert sizes == [(64, 48)] * 20 + [(96, 64)] * 20


def test_a_reader_that_is_late_gets_the_newest():
    with http_server(live=mjpeg([picture(i % 30) for i in range(30)], 0.02)) as port:
        source = open_source(f"http://127.0.0.1:{port}/live")
        source.open()
        time.sleep(1.5)
        frames, _ = frames_until_it_fails(source)
        source.close()
    assert [index_of(frame.image) for frame in frames] == [29]
    assert source.faults == {"superseded": 29}


def test_a_video_file_over_http_is_read_whole(tmp_path):
    clip = make_clip(tmp_path / "clip.mp4", 30)

    def page(handler: Handler) -> None:
        data = clip.read_bytes()
        handler.send_response(200)
        handler.send_header("Content-Length", str(len(data)))
        handler.end_headers()
        handler.wfile.write(data)

    with http_server(clip=page) as port, open_source(f"http://127.0.0.1:{port}/clip") as source:
        assert not source.live
        frames = []
        while (frame := source.read(5)) is not Signal.EOS:
            frames.append(frame)
            time.sleep(0.005)
        assert source.faults == {}
        assert [index_of(frame.image) for frame in frames] == list(range(30))
        assert [round(frame.pts_ns * 30 / 1e9) for frame in frames] == list(range(30))


def test_an_address_where_nothing_is():
    with http_server() as port, pytest.raises(SourceError) as caught:
        open_source(f"http://127.0.0.1:{port}/nothing?token=hunter2", QUICK).open()
    assert caught.value.reason == "missing"
    assert "hunter2" not in str(caught.value)


def test_mpeg_ts_over_udp():
    port = free_port(socket.SOCK_DGRAM)
    stop = threading.Event()

    def send() -> None:
        with av.open(f"udp://127.0.0.1:{port}?pkt_size=1316", mode="w", format="mpegts") as container:
            stream = container.add_stream("libx264", rate=30, options={"tune": "zerolatency", "g": "5"})
            stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
            index = 0
            while not stop.is_set():
                container.mux(stream.encode(av.VideoFrame.from_ndarray(picture(index % 20), format="rgb24")))
                index += 1
                time.sleep(0.02)

    thread = threading.Thread(target=send)
    thread.start()
    try:
        with open_source(f"udp://@:{port}", StreamOptions(buffer="all")) as source:
            assert source.live
            numbers = [index_of(next_frame(source).image) for _ in range(30)]
    finally:
        stop.set()
        thread.join()
    assert all((later - earlier) % 20 == 1 for earlier, later in pairwise(numbers))


def test_another_codec_than_expected():
    with http_server(live=mjpeg([picture(1)] * 50, 0.02)) as port:
        source = open_source(f"http://127.0.0.1:{port}/live", StreamOptions(input_codec="h264"))
        with pytest.raises(SourceError, match="another codec"):
            source.open()
