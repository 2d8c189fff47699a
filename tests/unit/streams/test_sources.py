"""Sources that need neither a camera nor a network."""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from clips import (
    all_frames,
    corners,
    index_of,
    picture,
    quartered,
)
from edgeturbo.engines.errors import ImageError, InputError, MissingComponentError, SourceError, UsageError
from edgeturbo.runtime.frame import Frame, Signal
from edgeturbo.runtime.image import load_frame, save_image
from edgeturbo.runtime.options import FLIPS, StreamOptions
from edgeturbo.runtime.sources import backend_for, open_source
from edgeturbo.runtime.sources.pattern import counter_of
from edgeturbo.runtime.sources.raw import RawSource
from edgeturbo.runtime.uri import parse_input

av = pytest.importorskip("av", reason="PyAV is not installed")

HANG_S = 2.5  # what has to end within 0.5 s is given five times as long


def test_a_folder_of_pictures_comes_in_order_again_and_again(tmp_path):
    for name in ("b.png", "a.png", "c.jpg"):
        save_image(picture(ord(name[0]) - 96), tmp_path / name)
    (tmp_path / "notes.txt").write_text("no picture")
    frames = all_frames(open_source(str(tmp_path), StreamOptions(loop=1, input_rate=10)))
    assert [index_of(frame.image) for frame in frames] == [1, 2, 3, 1, 2, 3]
    assert [frame.pts_ns for frame in frames] == [i * 100_000_000 for i in range(6)]
    assert [index_of(f.image) for f in all_frames(open_source(str(tmp_path / "[ab].png")))] == [1, 2]
    assert all_frames(open_source(str(tmp_path / "b.png")))[0].pts_ns is None


def test_a_damaged_picture_among_others_is_counted(tmp_path):
    save_image(picture(1), tmp_path / "a.png")
    (tmp_path / "b.png").write_bytes(b"no picture")
    source = open_source(str(tmp_path))
    assert len(all_frames(source)) == 1
    assert source.faults == {"corrupt": 1}
    with pytest.raises(ImageError), open_source(str(tmp_path / "b.png"), StreamOptions(loop=-1)):
        pass


def test_pictures_may_change_their_size(tmp_path):
    save_image(picture(1, 64, 48), tmp_path / "a.png")
    save_image(picture(2, 32, 16), tmp_path / "b.png")
    with open_source(str(tmp_path)) as source:
        sizes = []
        for _ in range(2):
            source.read(1)
            sizes.append((source.info.width, source.info.height))
    assert sizes == [(64, 48), (32, 16)]


def test_an_input_that_is_not_there():
    for text, error in (("no/such.png", ImageError), ("no/such.mp4", InputError), ("/dev/video987", SourceError)):
        with pytest.raises(error, match="does not exist"):
            open_source(text).open()


def test_a_test_picture_gives_every_frame_when_it_is_not_live():
    source = open_source("test://ball?size=320x200&rate=25&live=0&frames=70")
    frames = all_frames(source)
    assert [counter_of(frame.image) for frame in frames] == list(range(70))
    assert [frame.pts_ns for frame in frames] == [i * 40_000_000 for i in range(70)]
    assert (source.live, source.info.rate, source.faults) == (False, 25.0, {})


def test_a_live_test_picture_loses_what_is_not_read_in_time():
    with open_source("test://ball?size=64x48&rate=100") as source:
        assert source.live
        first = source.read(1)
        time.sleep(0.2)
        second = source.read(1)
        lost = counter_of(second.image) - counter_of(first.image) - 1
        assert lost >= 15
        assert source.faults == {"superseded": lost}
        assert second.index == 1
        assert second.captured_ns <= time.monotonic_ns()
        assert second.captured_ns - first.captured_ns == (lost + 1) * 10_000_000


def test_a_live_test_picture_that_is_kept_whole():
    with open_source("test://ball?size=64x48&rate=200", StreamOptions(buffer="all")) as source:
        time.sleep(0.1)
        assert [counter_of(source.read(1).image) for _ in range(30)] == list(range(30))


def test_a_live_test_picture_says_when_none_is_due():
    with open_source("test://bars?size=64x48&rate=1") as source:
        assert isinstance(source.read(0.1), Frame)
        assert source.read(0.05) is Signal.TIMEOUT


def test_patterns_differ():
    first = {}
    for pattern in ("ball", "bars", "noise"):
        frames = all_frames(open_source(f"test://{pattern}?size=64x48&live=0&frames=2"))
        first[pattern] = frames[0].image.tobytes()
        assert (frames[0].image.tobytes() == frames[1].image.tobytes()) == (pattern == "bars")
    assert len(set(first.values())) == 3


@pytest.mark.parametrize("query", ["size=64", "size=0x1", "rate=0", "rate=x", "frames=-1", "live=2", "colour=red"])
def test_a_test_picture_that_cannot_be_meant(query):
    with pytest.raises(UsageError):
        open_source(f"test://ball?{query}")


def test_raw_frames_arrive_in_pieces():
    reader, writer = os.pipe()
    images = np.random.default_rng(0).integers(0, 256, (3, 8, 6, 3), dtype=np.uint8)
    options = StreamOptions(input_width=6, input_height=8, input_rate=20)

    def feed() -> None:
        data = images.tobytes()
        for start in range(0, len(data), 100):
            os.write(writer, data[start : start + 100])
        os.close(writer)

    thread = threading.Thread(target=feed)
    thread.start()
    frames = all_frames(RawSource(options, reader))
    thread.join()
    os.close(reader)
    np.testing.assert_array_equal([frame.image for frame in frames], images)
    assert [frame.pts_ns for frame in frames] == [0, 50_000_000, 100_000_000]


def test_raw_frames_that_end_in_the_middle():
    reader, writer = os.pipe()
    os.write(writer, bytes(100))
    os.close(writer)
    source = RawSource(StreamOptions(input_width=6, input_height=8), reader)
    source.open()
    with pytest.raises(SourceError, match="within a frame") as caught:
        source.read(1)
    os.close(reader)
    assert caught.value.reason == "end"


def test_raw_frames_need_a_size():
    with pytest.raises(UsageError, match="no size"):
        open_source("-")


def endless_raw() -> RawSource:
    return RawSource(StreamOptions(input_width=6, input_height=8), os.pipe()[0])


@pytest.mark.parametrize(
    "make", [endless_raw, lambda: open_source("test://bars?size=64x48&rate=0.01")], ids=["raw", "test"]
)
def test_an_interrupted_read_returns(make):
    source = make()
    source.open()
    if source.live:
        source.read(1)
    threading.Timer(0.1, source.interrupt).start()
    started = time.monotonic()
    assert source.read(60) is Signal.TIMEOUT
    assert time.monotonic() - started < HANG_S
    with pytest.raises(SourceError, match="interrupted"):
        source.open()
    source.close()
    source.open()
    source.close()


def test_a_camera_that_may_not_be_read(tmp_path):
    from edgeturbo.runtime.sources.v4l2 import device_error, v4l2_source

    said = {reason: str(device_error(Path("/dev/video0"), reason)) for reason in ("missing", "permission", "busy")}
    assert "v4l2-ctl --list-devices" in said["missing"]
    assert "usermod -aG video" in said["permission"]
    assert "fuser -v /dev/video0" in said["busy"]
    assert device_error(Path("/dev/video0"), "error") is None
    (tmp_path / "video0").write_text("no device")
    with pytest.raises(SourceError, match="cannot be opened as asked") as caught:
        v4l2_source(tmp_path / "video0", StreamOptions()).open()
    assert "--list-formats-ext" in str(caught.value)


def test_what_a_camera_is_asked_for():
    from edgeturbo.runtime.sources.v4l2 import kernel_time_ns, options_for

    asked = options_for(StreamOptions(input_width=1280, input_height=720, input_rate=60, input_codec="mjpeg"))
    assert asked == {"fflags": "4", "video_size": "1280x720", "framerate": "60", "input_format": "mjpeg"}
    assert kernel_time_ns(1_000_000, 1_020_000_000) == 1_000_000_000
    assert kernel_time_ns(1_700_000_000_000_000, 1_020_000_000) == 1_020_000_000  # another clock
    assert kernel_time_ns(None, 5) == 5


def test_ffmpeg_opens_a_device_without_waiting():
    """The number stands for AVFMT_FLAG_NONBLOCK in FFmpeg's own option."""
    with av.open("testsrc2=size=64x48", format="lavfi", options={"fflags": "4"}) as container:
        assert container.flags & 4


def test_backends():
    assert backend_for(parse_input("csi://0"), StreamOptions()) == "gstreamer"
    assert backend_for(parse_input("rtsp://h/x"), StreamOptions(backend="gstreamer")) == "gstreamer"
    assert backend_for(parse_input("test://ball"), StreamOptions(backend="gstreamer")) == "pyav"
    with pytest.raises(UsageError, match="needs GStreamer"):
        backend_for(parse_input("csi://0"), StreamOptions(backend="pyav"))


def test_an_option_that_means_nothing_is_refused():
    for text, options in (
        ("a.png", StreamOptions(input_width=1, input_height=1)),
        ("a.mp4", StreamOptions(input_rate=30)),
        ("rtsp://h/x", StreamOptions(loop=-1)),
        ("test://ball", StreamOptions(input_rate=30)),
        ("0", StreamOptions(loop=1)),
    ):
        with pytest.raises(UsageError, match="means nothing for"):
            open_source(text, options)


def test_without_pyav_the_error_says_what_to_install(monkeypatch):
    import builtins

    real = builtins.__import__

    def blocked(name, *rest):
        if name == "av":
            raise ImportError(name)
        return real(name, *rest)

    monkeypatch.setattr(builtins, "__import__", blocked)
    with pytest.raises(MissingComponentError, match="edgeturbo") as caught:
        open_source("clip.mp4").open()
    assert "[camera]" in str(caught.value)


def test_the_repository_s_own_pictures_are_read_alike(tmp_path):
    save_image(quartered(), tmp_path / "a.png")
    (frame,) = all_frames(open_source(f"file://{tmp_path}/a.png"))
    np.testing.assert_array_equal(frame.image, load_frame(tmp_path / "a.png"))


@pytest.mark.parametrize(
    ("flip", "expected"),
    [
        ("none", [0, 1, 2, 3]),
        ("counterclockwise", [1, 3, 0, 2]),
        ("rotate-180", [3, 2, 1, 0]),
        ("clockwise", [2, 0, 3, 1]),
        ("horizontal", [1, 0, 3, 2]),
        ("vertical", [2, 3, 0, 1]),
        ("upper-left-diagonal", [0, 2, 1, 3]),
        ("upper-right-diagonal", [3, 1, 2, 0]),
    ],
)
def test_flips(tmp_path, flip, expected):
    assert flip in FLIPS
    save_image(quartered(), tmp_path / "a.png")
    source = open_source(str(tmp_path / "a.png"), StreamOptions(flip=flip))
    (frame,) = all_frames(source)
    assert corners(frame.image) == expected
    assert frame.image.shape == (source.info.height, source.info.width, 3)
    assert frame.image.flags.c_contiguous
