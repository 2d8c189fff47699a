"""Launch lines as words, for boards that no test machine is; and those that run here, run."""

from __future__ import annotations

import pytest
from edgeturbo.engines.device import Jetson
from edgeturbo.engines.errors import UsageError
from edgeturbo.runtime.gstreamer.board import Board, board_of
from edgeturbo.runtime.gstreamer.launch import _FLIP_METHODS, newest, raw_input, sink_line, source_line
from edgeturbo.runtime.options import FLIPS, StreamOptions
from edgeturbo.runtime.uri import parse_input, parse_output

HD = StreamOptions(input_width=1280, input_height=720, input_rate=30)
JETSONS = (Board.ORIN, Board.ORIN_NANO, Board.THOR)


def source(uri: str, board: Board, options: StreamOptions = HD, **more: object) -> str:
    options = StreamOptions(**{**vars(options), **more})
    return " ".join(source_line(parse_input(uri), options, board).words)


def sink(uri: str, board: Board, **options: object) -> str:
    return " ".join(sink_line(parse_output(uri), StreamOptions(**options), board))


@pytest.mark.parametrize(
    ("model", "board"),
    [
        ("NVIDIA Jetson Orin Nano Developer Kit", Board.ORIN_NANO),
        ("NVIDIA Jetson Orin Nano Engineering Reference Developer Kit Super", Board.ORIN_NANO),
        ("NVIDIA Jetson AGX Orin Developer Kit", Board.ORIN),
        ("NVIDIA Jetson Orin NX Engineering Reference Developer Kit", Board.ORIN),
        ("NVIDIA Jetson AGX Thor Developer Kit", Board.THOR),
    ],
)
def test_boards_are_known_by_their_models(model, board):
    assert board_of(Jetson(model, "36.4.3", "6.2", 8 << 30)) is board
    assert board_of(None) is Board.PC


@pytest.mark.parametrize("board", JETSONS)
def test_a_csi_camera_is_scaled_and_turned_before_it_leaves_nvmm(board):
    assert source("csi://1", board, flip="rotate-180") == (
        "nvarguscamerasrc sensor-id=1 ! video/x-raw(memory:NVMM),format=NV12,width=1280,height=720,framerate=30/1 ! "
        "nvvidconv flip-method=2 ! video/x-raw,format=RGBA,width=1280,height=720 ! videoconvert ! "
        "video/x-raw,format=RGB"
    )


def test_a_pc_has_no_csi_camera():
    with pytest.raises(UsageError, match="Jetson"):
        source("csi://0", Board.PC)


@pytest.mark.parametrize("board", list(Board))
def test_a_raw_v4l2_camera(board):
    assert source("/dev/video2", board) == (
        "v4l2src device=/dev/video2 do-timestamp=true ! video/x-raw,width=1280,height=720,framerate=30/1 ! "
        "videoconvert ! videoscale ! video/x-raw,format=RGB,width=1280,height=720"
    )


@pytest.mark.parametrize(
    ("board", "decoder"),
    [
        (Board.PC, "jpegdec"),
        (Board.ORIN, "nvv4l2decoder mjpeg=1"),
        (Board.ORIN_NANO, "nvv4l2decoder mjpeg=1"),
        (Board.THOR, "jpegdec"),  # its decoder takes no MJPEG
    ],
)
def test_an_mjpeg_camera_is_decoded_where_the_board_can(board, decoder):
    line = source("/dev/video0", board, input_codec="mjpeg")
    assert f"image/jpeg,width=1280,height=720,framerate=30/1 ! {decoder} !" in line
    assert ("nvvidconv" in line) is ("nvv4l2" in decoder)


@pytest.mark.parametrize("codec", ["h264", "h265"])
def test_rtsp_by_codec_and_board(codec):
    for board in JETSONS:
        line = source("rtsp://cam/live", board, StreamOptions(input_codec=codec, latency_ms=20))
        assert line == (
            "rtspsrc location=rtsp://cam/live latency=20 drop-on-latency=true protocols=tcp tcp-timeout=5000000 ! "
            f"rtp{codec}depay ! {codec}parse ! nvv4l2decoder enable-max-performance=1 ! nvvidconv flip-method=0 ! "
            "video/x-raw,format=RGBA ! videoconvert ! video/x-raw,format=RGB"
        )
    assert f"rtp{codec}depay ! {codec}parse ! decodebin" in source(
        "rtsp://cam/live", Board.PC, StreamOptions(input_codec=codec)
    )


def test_an_rtsp_stream_of_unknown_codec_is_left_to_decodebin():
    line = source("rtsp://cam/live", Board.ORIN, StreamOptions())
    assert "application/x-rtp,media=video ! decodebin ! videoconvert" in line
    with pytest.raises(UsageError, match="no decoder"):
        source("rtsp://cam/live", Board.PC, StreamOptions(input_codec="vp9"))


def test_nothing_in_a_uri_becomes_an_element():
    words = source_line(parse_input("rtsp://cam/a%20!%20filesink"), StreamOptions(input_codec="h264"), Board.PC).words
    assert "location=rtsp://cam/a%20!%20filesink" in words
    words = source_line(parse_input("file:///tmp/a ! filesink location=b.mp4"), StreamOptions(), Board.PC).words
    assert "location=/tmp/a ! filesink location=b.mp4" in words


def test_every_flip_has_a_method_of_the_vic():
    assert set(_FLIP_METHODS) == set(FLIPS)
    assert sorted(_FLIP_METHODS.values()) == list(range(8))


def test_live_frames_never_wait_behind_old_ones():
    line = source_line(parse_input("csi://0"), HD, Board.ORIN)
    assert line.live
    assert " ".join(newest(line.words)).endswith(
        "! queue leaky=downstream max-size-buffers=1 max-size-bytes=0 max-size-time=0"
    )
    assert not source_line(parse_input("clip.mp4"), StreamOptions(), Board.PC).live


def test_h264_is_encoded_in_hardware_where_there_is_some():
    for board in (Board.ORIN, Board.THOR):
        assert "nvv4l2h264enc bitrate=4000000" in sink("out.mkv", board)
        assert "nvv4l2h265enc bitrate=900000" in sink("out.mkv", board, output_codec="h265", output_bitrate=900_000)
    for board in (Board.ORIN_NANO, Board.PC):
        line = sink("rtsp://host/live", board)
        assert "x264enc tune=zerolatency speed-preset=ultrafast bitrate=4000 " in line
        assert line.endswith("h264parse ! rtspclientsink location=rtsp://host/live protocols=tcp latency=0")


def test_other_sinks():
    assert sink("display://0", Board.PC) == "videoconvert ! autovideosink sync=false"
    assert sink("display://0", Board.THOR).endswith("nv3dsink sync=false")
    assert sink("/dev/video9", Board.PC).endswith("v4l2sink device=/dev/video9 sync=false")
    assert sink("gst://videoflip ! fakesink", Board.PC) == "videoconvert ! videoflip ! fakesink"
    assert "mp4mux fragment-duration=1000" in sink("a.mp4", Board.PC)


def test_raw_frames_are_told_their_size_and_rate():
    assert " ".join(raw_input(640, 480, 29.97)) == (
        "fdsrc fd=0 blocksize=921600 ! rawvideoparse format=rgb width=640 height=480 framerate=30000/1001"
    ).replace("30000/1001", "2997/100")


def test_what_gstreamer_is_not_for_is_refused():
    for uri in ("test://ball", "udp://@:1234", "-"):
        with pytest.raises(UsageError, match="not read through GStreamer"):
            source(uri, Board.PC)
    with pytest.raises(UsageError, match="not written through GStreamer"):
        sink("null://", Board.PC)
    with pytest.raises(UsageError, match="open quote"):
        source("gst://videotestsrc pattern='ball", Board.PC)
