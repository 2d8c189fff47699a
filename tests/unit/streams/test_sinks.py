"""Sinks: what was written is read again."""

from __future__ import annotations

import os
import threading
import time
from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
from clips import (
    CLOCK,
    FORCE,
    INFO,
    add_sound,
    copy,
    emission,
    images_of,
    index_of,
    make_clip,
    packets_of,
    picture,
    play,
    ticks,
    times_of,
)
from edgeturbo.engines.errors import (
    MissingComponentError,
    OutputExistsError,
    SinkError,
    UsageError,
)
from edgeturbo.runtime.frame import Emission, Frame, StreamInfo
from edgeturbo.runtime.image import load_frame
from edgeturbo.runtime.options import StreamOptions
from edgeturbo.runtime.sinks import backend_for, open_sink
from edgeturbo.runtime.sinks.raw import RawSink
from edgeturbo.runtime.sinks.timeline import Timeline
from edgeturbo.runtime.uri import parse_output

av = pytest.importorskip("av", reason="PyAV is not installed")

HANG_S = 2.5  # what has to end within 0.5 s is given five times as long


@pytest.mark.parametrize("variable", [False, True])
@pytest.mark.parametrize("sound", ["aac", "mp3", None])
def test_nothing_of_a_clip_is_lost(tmp_path, variable, sound):
    clip = make_clip(tmp_path / "in.mp4", 45, variable=variable, sound=sound)
    copy(clip, tmp_path / "out.mp4")
    assert [index_of(image) for image in images_of(tmp_path / "out.mp4")] == [i % 32 for i in range(45)]
    assert times_of(tmp_path / "out.mp4") == times_of(clip) == [tick * CLOCK for tick in ticks(45, variable=variable)]
    if sound:
        assert packets_of(tmp_path / "out.mp4", "audio") == packets_of(clip, "audio")


def test_matroska_keeps_milliseconds(tmp_path):
    clip = make_clip(tmp_path / "in.mkv", 45, variable=True, sound="aac")
    copy(clip, tmp_path / "out.mkv")
    assert times_of(tmp_path / "out.mkv") == times_of(clip)
    assert packets_of(tmp_path / "out.mkv", "audio") == packets_of(clip, "audio")


def test_sound_of_any_codec_goes_into_matroska_and_is_refused_by_mp4(tmp_path):
    clip = make_clip(tmp_path / "in.mkv", 10, sound="pcm_u8")
    copy(clip, tmp_path / "out.mkv")
    sounds = [[data for data, _ in packets_of(path, "audio")] for path in (clip, tmp_path / "out.mkv")]
    assert sounds[0] == sounds[1]
    with pytest.raises(UsageError, match="cannot hold the sound") as caught:
        copy(clip, tmp_path / "out.mp4")
    assert ".mkv" in str(caught.value)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.mkv", "out.mkv"]


def test_sound_ends_with_pictures_that_end_early(tmp_path):
    clip = make_clip(tmp_path / "in.mp4", 90, sound="aac")
    copy(clip, tmp_path / "out.mp4", frames=30)
    last = packets_of(tmp_path / "out.mp4", "audio")[-1][1]
    assert 0.9 < last <= 1.0
    assert len(times_of(tmp_path / "out.mp4")) == 30


def test_a_clip_that_does_not_begin_at_zero(tmp_path):
    """MPEG-TS never does: pictures and sound are moved to 0 together. Its AAC is repacked, so bytes differ."""
    clip = make_clip(tmp_path / "in.ts", 30, sound="aac")
    copy(clip, tmp_path / "out.mp4")
    with av.open(str(clip)) as container:
        start = Fraction(container.start_time, 1_000_000)
    assert start > 0
    for kind in ("video", "audio"):
        before = sorted(time - start for _, time in packets_of(clip, kind))
        after = sorted(time for _, time in packets_of(tmp_path / "out.mp4", kind))
        np.testing.assert_allclose(np.array(after, float), np.array(before, float), atol=2e-5)


@pytest.mark.parametrize("name", ["out.mp4", "out.mkv"])
@pytest.mark.parametrize("height", [48, 720])
def test_colours_survive(tmp_path, name, height):
    """Flat areas, since 4:2:0 halves the chroma: three levels is what 8-bit YCbCr and swscale's fast path cost."""
    colours = np.array(
        [(200, 30, 30), (30, 200, 60), (40, 40, 210), (250, 250, 250), (0, 0, 0), (128, 128, 128)], np.uint8
    )
    image = np.repeat(np.repeat(colours[None], height, 0), 32, 1)
    options = StreamOptions(output_bitrate=20_000_000)
    play(open_sink(str(tmp_path / name), options), [emission(0, image)], StreamInfo(192, height, 30.0, ""))
    (got,) = images_of(tmp_path / name)
    np.testing.assert_allclose(got[height // 2, 16::32].astype(int), colours, atol=4)
    with av.open(str(tmp_path / name)) as container:
        context = container.streams.video[0].codec_context
        matrix = 1 if height > 576 else 6
        tags = (context.colorspace, context.color_primaries, context.color_trc, context.color_range)
        assert tags == (matrix, matrix, matrix, 1)


@pytest.mark.parametrize(("codec", "decoder"), [("h264", "h264"), ("h265", "hevc"), ("mjpeg", "mjpeg")])
@pytest.mark.parametrize("name", ["out.mp4", "out.mkv"])
def test_codecs(tmp_path, codec, decoder, name):
    options = StreamOptions(output_codec=codec)
    play(open_sink(str(tmp_path / name), options), [emission(i, pts_ns=i * 40_000_000) for i in range(12)])
    with av.open(str(tmp_path / name)) as container:
        assert container.streams.video[0].codec_context.name == decoder
    assert [index_of(image) for image in images_of(tmp_path / name)] == list(range(12))
    np.testing.assert_allclose(np.array(times_of(tmp_path / name), float), np.arange(12) * 0.04, atol=6e-4)


def test_an_odd_size_is_padded_and_said(tmp_path):
    image = np.full((47, 63, 3), 200, np.uint8)
    image[-1], image[:, -1] = 40, 40
    sink = open_sink(str(tmp_path / "out.mp4"), StreamOptions(output_bitrate=5_000_000))
    sink.open(StreamInfo(63, 47, 30.0, ""))
    sink.write(emission(0, image))
    assert "64x48" in sink.description
    sink.close()
    (got,) = images_of(tmp_path / "out.mp4")
    assert got.shape == (48, 64, 3)
    np.testing.assert_allclose(got[20, 60:].mean(-1), [200, 200, 40, 40], atol=25)


def test_pictures_are_numbered(tmp_path):
    items = [emission(0), emission(1), replace(emission(1), repeated=True), emission(2)]
    play(open_sink(str(tmp_path / "out" / "f_%03d.png")), items)
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [f"f_00{i}.png" for i in range(3)]
    np.testing.assert_array_equal(load_frame(tmp_path / "out" / "f_002.png"), picture(2))
    play(open_sink(str(tmp_path / "folder")), items)
    assert sorted(path.name for path in (tmp_path / "folder").iterdir()) == [f"0000{i}.png" for i in range(3)]


def test_one_picture_is_the_newest(tmp_path):
    play(open_sink(str(tmp_path / "now.png")), [emission(i) for i in range(3)])
    np.testing.assert_array_equal(load_frame(tmp_path / "now.png"), picture(2))


def test_pictures_do_not_replace_others(tmp_path):
    for name in ("00000.png", "00002.png"):
        (tmp_path / name).write_text("earlier")
    sink = open_sink(f"{tmp_path}/%05d.png")
    with pytest.raises(OutputExistsError):
        sink.open(INFO)
    (tmp_path / "00000.png").unlink()
    with pytest.raises(OutputExistsError, match=r"00002\.png"):
        play(sink, [emission(i) for i in range(3)])
    assert (tmp_path / "00002.png").read_text() == "earlier"
    play(open_sink(f"{tmp_path}/%05d.png", FORCE), [emission(i) for i in range(3)])
    np.testing.assert_array_equal(load_frame(tmp_path / "00002.png"), picture(2))


def test_raw_frames_go_through_a_pipe_whole():
    reader, writer = os.pipe()
    images = np.random.default_rng(0).integers(0, 256, (3, 100, 120, 3), dtype=np.uint8)
    got = bytearray()

    def take() -> None:
        while data := os.read(reader, 4096):
            got.extend(data)

    thread = threading.Thread(target=take)
    thread.start()
    play(RawSink(writer), [emission(i, image) for i, image in enumerate(images)])
    os.close(writer)
    thread.join()
    os.close(reader)
    assert bytes(got) == images.tobytes()


def test_a_pipe_that_nobody_reads_can_be_left():
    reader, writer = os.pipe()
    sink = RawSink(writer)
    sink.open(INFO)
    threading.Timer(0.1, sink.interrupt).start()
    started = time.monotonic()
    big = np.zeros((400, 400, 3), np.uint8)
    sink.write(emission(0, big))
    assert time.monotonic() - started < HANG_S
    with pytest.raises(SinkError, match="within a frame"):
        sink.write(emission(1, big))
    os.close(reader)
    sink.close()
    sink.open(INFO)
    with pytest.raises(SinkError, match="has gone"):
        sink.write(emission(1, big))
    os.close(writer)


def test_nowhere_takes_everything():
    sink = open_sink("null://")
    play(sink, [emission(0), emission(1, picture(1, 9, 9))])
    assert sink.taken == 2


def placed(*points: tuple[int | None, int, bool]) -> list[int]:
    """Times for (pts, captured, repeated), all in ms."""
    timeline = Timeline()
    image = picture(0)
    times = []
    for pts, captured, repeated in points:
        frame = Frame(image, 0, None if pts is None else pts * 1_000_000, captured * 1_000_000)
        times.append(timeline.place(Emission(image, frame, repeated)))
    return [time // 1_000_000 for time in times]


def test_times_are_kept_while_they_grow():
    assert placed((0, 5, False), (40, 9, False), (45, 10, False), (900, 11, False)) == [0, 40, 45, 900]
    assert placed((500, 0, False), (540, 40, False)) == [500, 540]
    assert placed((None, 100, False), (None, 140, False), (None, 141, False)) == [0, 40, 41]


def test_times_go_on_when_the_source_begins_anew():
    assert placed((0, 0, False), (40, 40, False), (0, 1040, False), (40, 1085, False)) == [0, 40, 1040, 1080]
    assert placed((0, 0, False), (40, 40, False), (40, 40, False)) == [0, 40, 41]
    assert placed((-80, 0, False), (-40, 40, False)) == [0, 40]


def test_repeated_pictures_come_by_the_clock():
    now = time.monotonic_ns() // 1_000_000
    first, card, after = placed((0, now - 500, False), (0, now - 500, True), (2000, now + 1500, False))
    assert first == 0
    assert 500 <= card < 500 + HANG_S * 1000
    assert after == 2000


def test_backends():
    for text in ("display://0", "gst://x", "rtsp://@:8554/x"):
        assert backend_for(parse_output(text), StreamOptions()) == "gstreamer"
        with pytest.raises(UsageError, match="needs GStreamer"):
            backend_for(parse_output(text), StreamOptions(backend="pyav"))
    assert backend_for(parse_output("a.mp4"), StreamOptions()) == "pyav"
    assert backend_for(parse_output("null://"), StreamOptions(backend="gstreamer")) == "pyav"
    with pytest.raises(UsageError, match="cannot be opened alone"):
        open_sink("http://:8080")


def test_a_loopback_device_that_is_not_there():
    with pytest.raises(SinkError, match="does not exist") as caught:
        open_sink("/dev/video987").open(INFO)
    assert "modprobe v4l2loopback video_nr=987" in str(caught.value)
    with pytest.raises(UsageError):
        open_sink("/dev/video987", StreamOptions(output_codec="h264"))


def test_a_codec_that_ffmpeg_lacks(tmp_path, monkeypatch):
    from edgeturbo.runtime.sinks import video

    monkeypatch.setitem(video.RECORDED, "h264", replace(video.RECORDED["h264"], encoder="libnothing"))
    with pytest.raises(MissingComponentError, match="libnothing"):
        open_sink(str(tmp_path / "out.mp4")).open(INFO)
    assert list(tmp_path.iterdir()) == []


def test_several_sound_tracks_are_kept(tmp_path):
    clip = tmp_path / "in.mkv"
    with av.open(str(clip), mode="w") as container:
        video = container.add_stream("libx264", rate=30)
        video.width, video.height, video.pix_fmt = 64, 48, "yuv420p"
        tracks = [container.add_stream(codec, rate=48000, layout="mono") for codec in ("aac", "mp3")]
        for index in range(15):
            container.mux(video.encode(av.VideoFrame.from_ndarray(picture(index), format="rgb24")))
        container.mux(video.encode(None))
        for track in tracks:
            add_sound(container, track, 0.5)
    copy(clip, tmp_path / "out.mp4")
    with av.open(str(tmp_path / "out.mp4")) as container:
        assert [stream.codec_context.name for stream in container.streams.audio] == ["aac", "mp3float"]
