"""GStreamer for real: test pictures in, files and RTSP out, and a child that is killed."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from edgeturbo.engines.errors import MissingComponentError, SinkError, SourceError, UsageError
from edgeturbo.runtime.frame import Emission, Frame, Signal, StreamInfo
from edgeturbo.runtime.options import StreamOptions
from edgeturbo.runtime.persistent import Persistence, PersistentSource
from edgeturbo.runtime.sinks import open_sink
from edgeturbo.runtime.sources import open_source
from edgeturbo.runtime.sources.gstreamer import ChildSource
from edgeturbo.runtime.stats import StreamStats


def has(*elements: str) -> bool:
    tool = shutil.which("gst-inspect-1.0")
    return tool is not None and all(
        subprocess.run([tool, "--exists", element], check=False).returncode == 0 for element in elements
    )


pytestmark = pytest.mark.skipif(
    not has("videotestsrc", "pnmenc", "rawvideoparse"), reason="GStreamer's tools and good and bad plugins are not here"
)

BALL = "gst://videotestsrc is-live=true pattern=ball ! video/x-raw,width=320,height=240,framerate=30/1"
HANG = 10.0


def next_frame(source) -> Frame:
    started = time.monotonic()
    while time.monotonic() - started < HANG:
        got = source.read(0.5)
        if isinstance(got, Frame):
            return got
    raise AssertionError("no frame")


def repeatedly(work) -> None:
    started = time.monotonic()
    while time.monotonic() - started < HANG:
        work()
        time.sleep(0.01)


@pytest.fixture
def ball():
    source = open_source(BALL, StreamOptions())
    assert isinstance(source, ChildSource)
    with source:
        yield source


def test_frames_come_out_of_a_pipeline(ball):
    assert (ball.info.width, ball.info.height, ball.live) == (320, 240, True)
    frames = [next_frame(ball) for _ in range(5)]
    assert [frame.index for frame in frames] == [0, 1, 2, 3, 4]
    assert all(frame.image.shape == (240, 320, 3) and frame.image.max() > 200 for frame in frames)
    assert any(not np.array_equal(frames[0].image, frame.image) for frame in frames[1:]), "the ball moves"


def test_a_slow_reader_gets_new_frames(ball):
    next_frame(ball)
    time.sleep(1.0)
    frame = next_frame(ball)
    assert (time.monotonic_ns() - frame.captured_ns) / 1e9 < 0.5
    assert ball.faults["superseded"] > 5


def test_colours_are_red_green_and_blue():
    for name, colour in (("0xffff0000", (255, 0, 0)), ("0xff00ff00", (0, 255, 0)), ("0xff0000ff", (0, 0, 255))):
        picture = f"videotestsrc pattern=solid-color foreground-color={name} num-buffers=3"
        with open_source(f"gst://{picture} ! video/x-raw,width=16,height=8", StreamOptions(buffer="all")) as source:
            assert tuple(next_frame(source).image[4, 8]) == colour


def test_a_child_that_is_killed_is_an_error_and_can_be_opened_again(ball):
    next_frame(ball)
    os.kill(ball.process_id, signal.SIGKILL)
    with pytest.raises(SourceError, match="GStreamer ended") as caught:
        repeatedly(lambda: ball.read(0.1))
    assert (caught.value.reason, "SIGKILL" in caught.value.got) == ("crashed", True)
    ball.close()
    ball.open()
    assert next_frame(ball).image.shape == (240, 320, 3)


def test_a_stream_survives_its_child_being_killed():
    stats = StreamStats()
    inner = open_source(BALL, StreamOptions())
    with PersistentSource(inner, stats, Persistence(first_wait=0.01, longest_wait=0.05), seed=0) as source:
        next_frame(source)
        os.kill(inner.process_id, signal.SIGKILL)
        started = time.monotonic()
        while not stats.reconnects and time.monotonic() - started < HANG:
            source.read(0.1)
    assert (stats.reconnects, stats.faults["crashed"]) == (1, 1)


def test_interrupting_ends_a_read_at_once(ball):
    threading.Timer(0.2, ball.interrupt).start()
    started = time.monotonic()
    while not ball._interrupted.is_set():
        ball.read(2.0)
    assert ball.read(0.1) is Signal.TIMEOUT
    assert time.monotonic() - started < HANG


def test_a_pipeline_that_cannot_be_says_why():
    with pytest.raises(SourceError, match="before its first frame") as caught:
        open_source("gst://nosuchelement ! fakesink", StreamOptions()).open()
    assert "nosuchelement" in caught.value.got


def test_a_password_is_not_in_what_gstreamer_said():
    uri = "rtsp://user:s3cret@127.0.0.1:9/live"
    with pytest.raises(SourceError) as caught:
        open_source(uri, StreamOptions(backend="gstreamer", open_timeout=3)).open()
    assert "s3cret" not in str(caught.value)


def test_no_gstreamer_is_named(monkeypatch):
    monkeypatch.setenv("PATH", "")
    with pytest.raises(MissingComponentError, match="gst-launch") as caught:
        open_source(BALL, StreamOptions()).open()
    assert "apt install" in caught.value.hint


# Sinks


def picture(level: int) -> Emission:
    frame = Frame(np.zeros((96, 128, 3), np.uint8), 0, None, time.monotonic_ns())
    return Emission(np.full((96, 128, 3), level, np.uint8), frame)


def test_pictures_reach_a_pipeline_of_ones_own(tmp_path):
    out = tmp_path / "raw.rgb"
    sink = open_sink(f"gst://video/x-raw,format=RGB ! filesink location={out}", StreamOptions())
    sink.open(StreamInfo(128, 96, 30.0, "test"))
    for level in (10, 20, 30):
        sink.write(picture(level))
    sink.close()
    data = np.fromfile(out, np.uint8).reshape(-1, 96, 128, 3)
    assert [int(frame.mean()) for frame in data] == [10, 20, 30]


@pytest.mark.skipif(not has("x264enc", "h264parse", "mp4mux"), reason="GStreamer's x264enc is not here")
def test_a_recording_through_gstreamer_can_be_played(tmp_path):
    av = pytest.importorskip("av", reason="PyAV plays it")
    path = tmp_path / "out.mp4"
    sink = open_sink(str(path), StreamOptions(backend="gstreamer"))
    sink.open(StreamInfo(128, 96, 30.0, "test"))
    for level in range(0, 240, 8):
        sink.write(picture(level))
    sink.close()
    with av.open(str(path)) as container:
        assert sum(1 for _ in container.decode(video=0)) == 30


def test_a_pipeline_that_dies_is_a_sink_error():
    sink = open_sink("gst://identity error-after=2 ! fakesink", StreamOptions())
    sink.open(StreamInfo(128, 96, 30.0, "test"))
    with pytest.raises(SinkError, match="GStreamer ended"):
        repeatedly(lambda: sink.write(picture(1)))
    sink.close()


@pytest.mark.skipif(not has("x264enc", "h264parse", "rtph264pay"), reason="GStreamer's x264enc is not here")
def test_rtsp_is_served_to_a_viewer():
    av = pytest.importorskip("av", reason="PyAV watches it")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    try:
        sink = open_sink(f"rtsp://@:{port}/live", StreamOptions())
    except MissingComponentError as error:
        pytest.skip(error.what)
    sink.open(StreamInfo(128, 96, 30.0, "test"))
    over = threading.Event()

    def feed():
        while not over.is_set():
            sink.write(picture(180))
            over.wait(0.03)

    feeder = threading.Thread(target=feed)
    feeder.start()
    try:
        seen = _watch(av, f"rtsp://127.0.0.1:{port}/live")
    finally:
        over.set()
        feeder.join()
        sink.close()
    assert abs(int(seen.mean()) - 180) <= 4


def _watch(av, url: str) -> np.ndarray:
    started = time.monotonic()
    while True:
        try:
            with av.open(url, options={"rtsp_transport": "tcp"}, timeout=(5, 5)) as container:
                return next(container.decode(video=0)).to_ndarray(format="rgb24")
        except (av.error.FFmpegError, OSError):
            assert time.monotonic() - started < 3 * HANG, "the server never answered"
            time.sleep(0.2)


def test_the_launch_line_of_a_file_plays_every_frame(tmp_path: Path):
    av = pytest.importorskip("av", reason="PyAV writes the file")
    path = tmp_path / "clip.avi"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mjpeg", rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuvj420p"
        for level in range(12):
            frame = av.VideoFrame.from_ndarray(np.full((48, 64, 3), level * 20, np.uint8), format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    levels = []
    with open_source(str(path), StreamOptions(backend="gstreamer")) as source:
        assert not source.live
        while (got := source.read(5.0)) is not Signal.EOS:
            assert isinstance(got, Frame)
            levels.append(int(got.image.mean()))
    assert len(levels) == 12
    assert levels == sorted(levels)


@pytest.fixture
def screen(monkeypatch):
    """An X server without a monitor."""
    server = shutil.which("Xvfb")
    if server is None:
        pytest.skip("Xvfb, a screen to look at, is not installed")
    receive, send = os.pipe()
    process = subprocess.Popen(
        [server, "-displayfd", str(send), "-screen", "0", "640x480x24", "-nolisten", "tcp"],
        pass_fds=[send], stderr=subprocess.DEVNULL,
    )  # fmt: skip
    os.close(send)
    with os.fdopen(receive) as number:
        display = f":{number.readline().strip()}"
    monkeypatch.setenv("DISPLAY", display)
    yield display
    process.terminate()
    process.wait(HANG)


@pytest.mark.skipif(not has("autovideosink", "ximagesink"), reason="GStreamer has no window here")
def test_a_window_shows_the_pictures(screen):
    av = pytest.importorskip("av", reason="PyAV looks at the screen")
    if "x11grab" not in av.formats_available:
        pytest.skip("this PyAV cannot look at a screen")
    sink = open_sink("display://0", StreamOptions())
    sink.open(StreamInfo(128, 96, 30.0, "test"))
    started = time.monotonic()
    seen = 0
    while seen < 128 * 96 * 0.9:
        assert time.monotonic() - started < HANG, f"only {seen} pixels of the picture were on the screen"
        sink.write(picture(180))
        with av.open(f"{screen}.0", format="x11grab", options={"video_size": "640x480"}) as grabbed:
            image = next(grabbed.decode(video=0)).to_ndarray(format="rgb24")
        seen = int((np.abs(image.astype(int) - 180).max(axis=2) <= 3).sum())
    sink.close()


def test_a_window_is_refused_where_none_is_wanted():
    with pytest.raises(UsageError, match="headless"):
        open_sink("display://0", StreamOptions(headless=True))
