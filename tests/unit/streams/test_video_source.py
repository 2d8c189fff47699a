"""Video files as a source."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from clips import (
    STEP,
    add_sound,
    all_frames,
    corners,
    index_of,
    make_clip,
    nanoseconds,
    picture,
    quartered,
    ticks,
    turn_clip,
)
from edgeturbo.engines.errors import InputError
from edgeturbo.runtime.frame import Frame
from edgeturbo.runtime.options import StreamOptions
from edgeturbo.runtime.sources import open_source

av = pytest.importorskip("av", reason="PyAV is not installed")

HANG_S = 2.5  # what has to end within 0.5 s is given five times as long


@pytest.mark.parametrize("name", ["clip.mp4", "clip.mkv", "clip.ts"])
@pytest.mark.parametrize("variable", [False, True])
def test_every_frame_of_a_video_comes_at_its_time(tmp_path, name, variable):
    path = make_clip(tmp_path / name, variable=variable)
    frames = all_frames(open_source(str(path)))
    assert [index_of(frame.image) for frame in frames] == list(range(20))
    tolerance = {".mp4": 1, ".mkv": 500_001, ".ts": 5_600}[path.suffix]  # ns: half a tick of each container's clock
    np.testing.assert_allclose([f.pts_ns for f in frames], nanoseconds(ticks(20, variable=variable)), atol=tolerance)
    assert all(frame.image.flags.c_contiguous and frame.image.dtype == np.uint8 for frame in frames)


def test_a_video_plays_again_and_its_times_go_on(tmp_path):
    path = make_clip(tmp_path / "clip.mp4", 5)
    frames = all_frames(open_source(str(path), StreamOptions(loop=2)))
    assert [index_of(frame.image) for frame in frames] == list(range(5)) * 3
    expected = nanoseconds([i * STEP for i in range(15)])
    np.testing.assert_allclose([frame.pts_ns for frame in frames], expected, atol=3)


def test_a_video_is_scaled_when_asked(tmp_path):
    path = make_clip(tmp_path / "clip.mp4", 3)
    source = open_source(str(path), StreamOptions(input_width=32, input_height=20))
    assert {frame.image.shape for frame in all_frames(source)} == {(20, 32, 3)}
    assert (source.info.width, source.info.height, source.info.rate) == (32, 20, 30.0)


def still(path: Path, image: np.ndarray) -> Path:
    with av.open(str(path), mode="w") as container:
        stream = container.add_stream("libx264", rate=30, options={"crf": "10"})
        stream.height, stream.width = image.shape[:2]
        stream.pix_fmt = "yuv420p"
        container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode(None))
    return path


@pytest.mark.parametrize(
    ("matrix", "expected"),
    [
        ((1, 0, 0, 1), [0, 1, 2, 3]),
        ((0, 1, -1, 0), [2, 0, 3, 1]),  # a quarter clockwise, as a telephone held upright writes it
        ((-1, 0, 0, -1), [3, 2, 1, 0]),
        ((0, -1, 1, 0), [1, 3, 0, 2]),
        ((-1, 0, 0, 1), [1, 0, 3, 2]),  # mirrored, as its front camera does
        ((1, 0, 0, -1), [2, 3, 0, 1]),
        ((0, 1, 1, 0), [0, 2, 1, 3]),
        ((0, -1, -1, 0), [3, 1, 2, 0]),
    ],
)
def test_a_turned_video_comes_upright(tmp_path, matrix, expected):
    path = still(tmp_path / "clip.mp4", quartered())
    turn_clip(path, *matrix)
    (frame,) = all_frames(open_source(str(path)))
    assert corners(frame.image) == expected
    assert frame.image.shape[:2] == ((64, 48) if matrix[0] == 0 else (48, 64))


def test_a_video_whose_size_changes_in_the_middle(tmp_path):
    """Two H.264 streams, one after the other, as a camera sends them whose mode is switched."""
    data = b""
    for width, height in ((64, 48), (96, 64)):
        with av.open(str(tmp_path / "part.h264"), mode="w", format="h264") as container:
            stream = container.add_stream("libx264", rate=30, options={"bf": "0"})
            stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
            for index in range(4):
                container.mux(stream.encode(av.VideoFrame.from_ndarray(picture(index, width, height), format="rgb24")))
            container.mux(stream.encode(None))
        data += (tmp_path / "part.h264").read_bytes()
    (tmp_path / "both.h264").write_bytes(data)
    with open_source(str(tmp_path / "both.h264")) as source:
        seen = []
        while isinstance(frame := source.read(1), Frame):
            assert frame.image.shape == (source.info.height, source.info.width, 3)
            seen.append(frame.image.shape[:2])
    assert seen == [(48, 64)] * 4 + [(64, 96)] * 4


@pytest.mark.parametrize("suffix", [".ts", ".mp4"])
def test_damaged_packets_are_counted_and_survived(tmp_path, suffix):
    path = make_clip(tmp_path / f"clip{suffix}", 60)
    data = bytearray(path.read_bytes())
    middle = len(data) // 3
    data[middle : middle + 800] = np.random.default_rng(0).bytes(800)
    path.write_bytes(data)
    source = open_source(str(path))
    assert len(all_frames(source)) >= 10
    assert source.faults["corrupt"] > 0


@pytest.mark.parametrize("content", [b"", b"no video at all" * 100])
def test_a_file_that_is_no_video(tmp_path, content):
    (tmp_path / "a.mp4").write_bytes(content)
    with pytest.raises(InputError, match=r"a\.mp4 cannot be read as video"):
        open_source(str(tmp_path / "a.mp4")).open()


def test_a_file_of_sound_alone(tmp_path):
    with av.open(str(tmp_path / "a.mp4"), mode="w") as container:
        audio = container.add_stream("aac", rate=48000, layout="mono")
        add_sound(container, audio, 0.2)
    with pytest.raises(InputError, match="holds no video"):
        open_source(str(tmp_path / "a.mp4")).open()


@pytest.mark.parametrize("tagged", ["bt709", "smpte170m", None])
@pytest.mark.parametrize(("width", "height"), [(64, 48), (128, 720)])
def test_colours_follow_the_tags_or_else_the_number_of_lines(tmp_path, tagged, width, height):
    """Green differs most between the matrices: BT.601 read as BT.709 is 30 levels off."""
    matrix = {"bt709": 1, "smpte170m": 6, None: 2}[tagged]
    written_as = matrix if tagged else (1 if height > 576 else 6)
    image = np.zeros((height, width, 3), np.uint8)
    image[:] = (30, 200, 60)
    frame = av.VideoFrame.from_ndarray(image, format="rgb24").reformat(
        format="yuv420p", src_color_range=2, dst_colorspace={1: 1, 6: 5}[written_as], dst_color_range=1
    )
    path = tmp_path / "clip.mkv"
    with av.open(str(path), mode="w") as container:
        stream = container.add_stream("libx264", rate=30, options={"crf": "1"})
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        if tagged:
            stream.codec_context.colorspace = matrix
        stream.codec_context.color_range = 1
        frame.colorspace = matrix
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    (got,) = all_frames(open_source(str(path)))
    np.testing.assert_allclose(got.image.reshape(-1, 3).mean(0), (30, 200, 60), atol=3)
