"""Network streams for real, on this machine: RTSP both ways, HTTP, MPEG-TS over UDP; and what goes wrong with them."""

from __future__ import annotations

import logging
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from edgeturbo.engines.errors import SinkError, SourceError
from edgeturbo.runtime.frame import Signal, StreamInfo
from edgeturbo.runtime.options import StreamOptions
from edgeturbo.runtime.sinks import open_sink
from edgeturbo.runtime.sources import open_source
from edgeturbo.runtime.sources.pattern import counter_of
from loopback import (
    HANG_S,
    PATIENT_S,
    QUICK,
    failure_of,
    frames_until_it_fails,
    free_port,
    next_frame,
    pumps,
    silent_server,
    took,
)

av = pytest.importorskip("av", reason="PyAV is not installed")

CREDENTIALS = "us%40er:hunter2%2F"  # us@er and hunter2/

RTSP_SERVER = """
import sys
import gi
gi.require_version("Gst", "1.0")
gi.require_version("GstRtspServer", "1.0")
from gi.repository import GLib, Gst, GstRtspServer
Gst.init(None)
server = GstRtspServer.RTSPServer()
server.set_address("127.0.0.1")
server.set_service(sys.argv[1])
factory = GstRtspServer.RTSPMediaFactory()
factory.set_launch(
    "( videotestsrc is-live=true pattern=smpte ! video/x-raw,width=320,height=240,framerate=30/1 "
    "! x264enc tune=zerolatency speed-preset=ultrafast key-int-max=10 ! rtph264pay name=pay0 pt=96 config-interval=1 )"
)
factory.set_shared(True)
if len(sys.argv) > 2:
    token = GstRtspServer.RTSPToken()
    token.set_string("media.factory.role", "user")
    auth = GstRtspServer.RTSPAuth()
    auth.add_basic(GstRtspServer.RTSPAuth.make_basic(sys.argv[2], sys.argv[3]), token)
    server.set_auth(auth)
    factory.add_role_from_structure(
        Gst.Structure.from_string("user,media.factory.access=true,media.factory.construct=true")[0]
    )
server.get_mount_points().add_factory("/live", factory)
server.attach(None)
sys.stdout.write("ready\\n")
sys.stdout.flush()
GLib.MainLoop().run()
"""
IMPORTS = (
    'import gi; gi.require_version("GstRtspServer", "1.0"); gi.require_version("Gst", "1.0"); '
    "from gi.repository import Gst, GstRtspServer; Gst.init(None); "
    'assert Gst.ElementFactory.find("x264enc") and Gst.ElementFactory.find("rtph264pay")'
)


def python_with_gstreamer() -> str | None:
    """Distributions give GStreamer's bindings to their own Python only."""
    for python in ("/usr/bin/python3", shutil.which("python3")):
        if python and Path(python).exists():
            done = subprocess.run([python, "-c", IMPORTS], capture_output=True, check=False)
            if done.returncode == 0:
                return python
    return None


SERVING_PYTHON = python_with_gstreamer()
needs_server = pytest.mark.skipif(
    SERVING_PYTHON is None, reason="needs gst-rtsp-server and x264enc with their Python bindings to serve RTSP"
)


@contextmanager
def rtsp_server(port: int, *credentials: str) -> Iterator[subprocess.Popen[str]]:
    command = [str(SERVING_PYTHON), "-c", RTSP_SERVER, str(port), *credentials]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as child:
        try:
            assert child.stdout.readline() == "ready\n"
            yield child
        finally:
            child.kill()


@pytest.fixture(autouse=True)
def no_thread_stays_behind() -> Iterator[None]:
    """A thread that was left inside FFmpeg ends by itself when FFmpeg's own time limit is over."""
    yield
    end = time.monotonic() + PATIENT_S
    while pumps() and time.monotonic() < end:
        time.sleep(0.05)
    assert pumps() == []


@needs_server
def test_rtsp_from_a_server():
    port = free_port()
    with rtsp_server(port), open_source(f"rtsp://127.0.0.1:{port}/live") as source:
        assert source.live
        frames = [next_frame(source) for _ in range(20)]
        assert (source.info.width, source.info.height) == (320, 240)
    assert {frame.image.shape for frame in frames} == {(240, 320, 3)}
    assert [frame.index for frame in frames] == list(range(20))
    captured = [frame.captured_ns for frame in frames]
    assert captured == sorted(set(captured))
    assert captured[-1] <= time.monotonic_ns()
    pts = [frame.pts_ns for frame in frames]
    assert all(0 < later - earlier < 1_000_000_000 for earlier, later in pairwise(pts))
    # The left bar of videotestsrc's smpte pattern is white, the second one yellow.
    np.testing.assert_allclose(frames[-1].image[100, [20, 65]], [(255, 255, 255), (255, 255, 0)], atol=12)


@needs_server
def test_rtsp_server_killed_and_back():
    port = free_port()
    source = open_source(f"rtsp://127.0.0.1:{port}/live", StreamOptions(open_timeout=5, read_timeout=2))
    with rtsp_server(port) as child:
        source.open()
        before = next_frame(source)
        child.send_signal(signal.SIGKILL)
        error = failure_of(source)
        assert error.reason in ("end", "reset", "refused", "unreachable")
    source.close()
    with pytest.raises(SourceError) as caught:
        source.open()
    assert caught.value.reason == "refused"
    with rtsp_server(port):
        source.open()
        assert next_frame(source).index > before.index
    source.close()


@needs_server
def test_rtsp_server_that_stalls():
    port = free_port()
    with rtsp_server(port) as child:
        source = open_source(f"rtsp://127.0.0.1:{port}/live", StreamOptions(read_timeout=1.5))
        source.open()
        next_frame(source)
        child.send_signal(signal.SIGSTOP)
        error = failure_of(source)
        child.send_signal(signal.SIGCONT)
        assert error.reason == "timeout"
        source.close()


@needs_server
def test_an_rtsp_read_is_interrupted():
    port = free_port()
    with rtsp_server(port) as child:
        source = open_source(f"rtsp://127.0.0.1:{port}/live", StreamOptions(read_timeout=4))
        source.open()
        next_frame(source)
        child.send_signal(signal.SIGSTOP)
        while source.read(0.3) is not Signal.TIMEOUT:
            pass
        threading.Timer(0.2, source.interrupt).start()
        assert took(lambda: source.read(60)) < HANG_S
        assert took(source.close) < HANG_S
        child.send_signal(signal.SIGCONT)


@needs_server
def test_credentials_open_the_door_and_are_never_shown(caplog, capfd):
    caplog.set_level(logging.DEBUG)
    port = free_port()
    with rtsp_server(port, "us@er", "hunter2/"):
        with open_source(f"rtsp://{CREDENTIALS}@127.0.0.1:{port}/live") as source:
            next_frame(source)
            assert source.info.description == f"rtsp://***@127.0.0.1:{port}/live"
        with pytest.raises(SourceError) as caught:
            open_source(f"rtsp://user:hunter2@127.0.0.1:{port}/live").open()
    assert caught.value.reason == "unauthorized"
    assert caught.value.__cause__ is None
    shown = f"{caught.value} {caplog.text} {capfd.readouterr()} {source.description}"
    assert "hunter2" not in shown


def test_nobody_there():
    port = free_port()
    for scheme in ("rtsp", "http"):
        with pytest.raises(SourceError) as caught:
            open_source(f"{scheme}://user:hunter2@127.0.0.1:{port}/x", QUICK).open()
        assert caught.value.reason == "refused"
        assert "hunter2" not in str(caught.value)
        assert caught.value.__suppress_context__  # FFmpeg's own error shows the whole URI
    with pytest.raises(SourceError) as caught:
        open_source("rtsp://user:hunter2@host.invalid/x", QUICK).open()
    assert caught.value.reason in ("unreachable", "timeout")


@pytest.mark.parametrize("scheme", ["rtsp", "http"])
def test_a_server_that_says_nothing(scheme):
    with silent_server() as port:
        source = open_source(f"{scheme}://127.0.0.1:{port}/x", QUICK)
        started = time.monotonic()
        with pytest.raises(SourceError) as caught:
            source.open()
        assert caught.value.reason == "timeout"
        assert time.monotonic() - started < PATIENT_S


@pytest.mark.parametrize("uri", ["rtsp://127.0.0.1:{}/x", "http://127.0.0.1:{}/x", "rtsp://@:{}/x", "udp://@:{}"])
def test_an_open_is_interrupted(uri):
    with silent_server() as silent:
        port = silent if "@" not in uri else free_port()
        source = open_source(uri.format(port), StreamOptions(open_timeout=6, read_timeout=6))
        threading.Timer(0.3, source.interrupt).start()
        started = time.monotonic()
        with pytest.raises(SourceError) as caught:
            source.open()
        assert time.monotonic() - started < HANG_S
        assert caught.value.reason == "interrupted"
        assert took(source.close) < HANG_S


# A process of its own: while FFmpeg connects, PyAV keeps Python's lock, which the reader of one process would need.
PUSHER = """
import sys, time
from edgeturbo.engines.errors import SinkError
from edgeturbo.runtime.frame import Emission
from edgeturbo.runtime.options import StreamOptions
from edgeturbo.runtime.sinks import open_sink
from edgeturbo.runtime.sources import open_source

sink = open_sink(sys.argv[1])
end = time.monotonic() + 20
with open_source("test://ball?size=320x240&rate=30&frames=" + sys.argv[2], StreamOptions(buffer="all")) as source:
    while time.monotonic() < end:
        try:
            sink.open(source.info)
            break
        except SinkError:
            time.sleep(0.1)
    try:
        for _ in range(int(sys.argv[2])):
            frame = source.read(1)
            sink.write(Emission(frame.image, frame))
    except SinkError as error:
        sys.stdout.write(str(error))
sink.close()
"""


@contextmanager
def pushing(uri: str, count: int) -> Iterator[subprocess.Popen[str]]:
    """A ball at 30 frames a second, pushed to whoever listens, as soon as somebody does."""
    command = [sys.executable, "-c", PUSHER, uri, str(count)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as child:
        try:
            yield child
        finally:
            child.kill()


def test_rtsp_pushed_to_us_without_a_server():
    port = free_port()
    source = open_source(f"rtsp://@:{port}/live", StreamOptions(buffer="all"))
    with pushing(f"rtsp://127.0.0.1:{port}/live", 60), source:
        frames, error = frames_until_it_fails(source)
    assert error.reason in ("end", "reset", "timeout")
    numbers = [counter_of(frame.image) for frame in frames]
    # What was sent before FFmpeg had understood the stream may be missing; after that nothing is.
    assert numbers == list(range(numbers[0], numbers[0] + len(numbers)))
    assert len(numbers) > 25
    np.testing.assert_allclose(np.diff([frame.pts_ns for frame in frames]), 33_333_333, atol=50_000)


def test_a_reader_that_goes_away_is_a_sink_error():
    port = free_port()
    with pushing(f"rtsp://user:hunter2@127.0.0.1:{port}/live", 600) as child:
        with open_source(f"rtsp://@:{port}/live") as source:
            next_frame(source)
        said = child.stdout.read()
    assert f"cannot send to rtsp://***@127.0.0.1:{port}/live" in said
    assert "hunter2" not in said


def test_a_push_to_a_server_that_says_nothing():
    with silent_server() as port:
        sink = open_sink(f"rtsp://127.0.0.1:{port}/x", StreamOptions(read_timeout=6))
        threading.Timer(0.3, sink.interrupt).start()
        started = time.monotonic()
        with pytest.raises(SinkError, match="interrupted"):
            sink.open(StreamInfo(64, 48, 30.0, ""))
        assert time.monotonic() - started < HANG_S
        sink = open_sink(f"rtsp://127.0.0.1:{port}/x", QUICK)
        with pytest.raises(SinkError, match="cannot open"):
            sink.open(StreamInfo(64, 48, 30.0, ""))
