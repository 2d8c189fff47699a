"""What a URI means, and what of it may be shown."""

from __future__ import annotations

from pathlib import Path

import pytest
from edgeturbo.engines.errors import UsageError
from edgeturbo.runtime.options import StreamOptions
from edgeturbo.runtime.uri import INPUTS, OUTPUTS, Kind, numbered, numbers_pictures, parse_input, parse_output, redacted


@pytest.mark.parametrize(
    ("text", "kind", "path"),
    [
        ("a.png", Kind.PICTURES, "a.png"),
        ("A.JPG", Kind.PICTURES, "A.JPG"),
        ("in/*.jpg", Kind.PICTURES, "in/*.jpg"),
        ("in/", Kind.PICTURES, "in"),
        ("in", Kind.PICTURES, "in"),
        ("clip.mp4", Kind.VIDEO, "clip.mp4"),
        ("a/b.MKV", Kind.VIDEO, "a/b.MKV"),
        ("file:///a/b.mp4", Kind.VIDEO, "/a/b.mp4"),
        ("file://my.mp4", Kind.VIDEO, "my.mp4"),
        ("file://localhost/a.png", Kind.PICTURES, "/a.png"),
        ("file:///a%20b/c%23.png", Kind.PICTURES, "/a b/c#.png"),
        ("FILE:///a.png", Kind.PICTURES, "/a.png"),
        ("v4l2:///dev/video0", Kind.V4L2, "/dev/video0"),
        ("/dev/video2", Kind.V4L2, "/dev/video2"),
        ("/dev/v4l/by-id/usb-cam", Kind.V4L2, "/dev/v4l/by-id/usb-cam"),
        ("0", Kind.V4L2, "/dev/video0"),
        ("07", Kind.V4L2, "/dev/video7"),
        ("12", Kind.V4L2, "/dev/video12"),
        ("./0", Kind.PICTURES, "0"),
        (r"C:\a.png", Kind.PICTURES, r"C:\a.png"),
    ],
)
def test_inputs_that_are_paths(text, kind, path):
    uri = parse_input(text)
    assert (uri.kind, uri.path) == (kind, Path(path))


@pytest.mark.parametrize(
    ("text", "kind", "host", "port", "listens"),
    [
        ("rtsp://cam/live", Kind.RTSP, "cam", None, False),
        ("rtsp://u:p@10.0.0.2:554/a?b=c", Kind.RTSP, "10.0.0.2", 554, False),
        ("rtsp://[fe80::1]:8554/x", Kind.RTSP, "fe80::1", 8554, False),
        ("RTSPS://cam:322/x", Kind.RTSP, "cam", 322, False),
        ("rtsp://@:8554/live", Kind.RTSP, "", 8554, True),
        ("rtsp://@0.0.0.0:8554/live", Kind.RTSP, "0.0.0.0", 8554, True),  # noqa: S104 -- a case, nothing is bound
        ("http://cam/mjpeg", Kind.HTTP, "cam", None, False),
        ("https://host:8443/a.mp4", Kind.HTTP, "host", 8443, False),
        ("udp://@:1234", Kind.UDP, "", 1234, True),
        ("udp://239.0.0.1:1234", Kind.UDP, "239.0.0.1", 1234, True),
    ],
)
def test_inputs_that_are_addresses(text, kind, host, port, listens):
    uri = parse_input(text)
    assert (uri.kind, uri.host, uri.port, uri.listens) == (kind, host, port, listens)


def test_inputs_of_other_kinds():
    assert parse_input("-").kind is Kind.RAW
    assert parse_input("csi://1").number == 1
    assert parse_input("gst://videotestsrc ! video/x-raw").pipeline == "videotestsrc ! video/x-raw"
    test = parse_input("test://ball?size=64x48&rate=30")
    assert (test.pattern, test.query) == ("ball", (("size", "64x48"), ("rate", "30")))


def test_a_path_without_a_known_suffix_is_looked_at(tmp_path):
    (tmp_path / "clip.bin").write_bytes(b"x")
    (tmp_path / "frames.v2").mkdir()
    assert parse_input(str(tmp_path / "clip.bin")).kind is Kind.VIDEO
    assert parse_input(str(tmp_path / "frames.v2")).kind is Kind.PICTURES
    assert parse_output(str(tmp_path / "frames.v2")).kind is Kind.PICTURES


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("out.png", Kind.PICTURES),
        ("out/%05d.jpg", Kind.PICTURES),
        ("out/", Kind.PICTURES),
        ("out", Kind.PICTURES),
        ("out.mp4/", Kind.PICTURES),
        ("out.mp4", Kind.VIDEO),
        ("out.MKV", Kind.VIDEO),
        ("file:///a/out.mp4", Kind.VIDEO),
        ("/dev/video9", Kind.V4L2),
        ("v4l2:///dev/video9", Kind.V4L2),
        ("rtsp://host/path", Kind.RTSP),
        ("display://0", Kind.DISPLAY),
        ("http://:8080", Kind.HTTP),
        ("gst://appsrc ! autovideosink", Kind.GSTREAMER),
        ("null://", Kind.NULL),
        ("-", Kind.RAW),
    ],
)
def test_outputs(text, kind):
    assert parse_output(text).kind is kind


def test_outputs_that_others_connect_to():
    served = parse_output("rtsp://@:8554/live")
    assert (served.listens, served.host, served.port) == (True, "", 8554)
    assert not parse_output("rtsp://host:8554/live").listens
    page = parse_output("http://0.0.0.0:80")
    assert (page.host, page.port) == ("0.0.0.0", 80)  # noqa: S104 -- a case, nothing is bound
    assert parse_output("http://:9000/").host == ""


@pytest.mark.parametrize(
    "text",
    [
        "",
        "webrtc://@:8554/x",
        "display://0",
        "null://",
        "v4l2://",
        "v4l2://video0",
        "csi://",
        "csi://x",
        "csi://-1",
        "rtsp://",
        "rtsp:///path",
        "rtsp://@/path",
        "rtsps://@:8554/x",
        "rtsp://host:99999/x",
        "rtsp://host:port/x",
        "rtsp://[::1/x",
        "http://",
        "udp://host",
        "gst://",
        "gst://  ",
        "test://",
        "test://cat",
        "test://ball?size",
    ],
)
def test_inputs_that_cannot_be_meant(text):
    with pytest.raises(UsageError):
        parse_input(text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "out.txt",
        "out.avi",
        "csi://0",
        "test://ball",
        "udp://@:1",
        "https://:8443",
        "http://user:pw@:8080",
        "http://:8080/page",
        "display://",
        "null://x",
        "v4l2://9",
        "rtsp://",
        "gst://",
    ],
)
def test_outputs_that_cannot_be_meant(text):
    with pytest.raises(UsageError):
        parse_output(text)


def test_an_unknown_scheme_names_the_table():
    with pytest.raises(UsageError) as caught:
        parse_input("webrtc://@:8554/x")
    assert all(form in str(caught.value) for form, _ in INPUTS)
    with pytest.raises(UsageError) as caught:
        parse_output("ftp://x")
    assert all(form in str(caught.value) for form, _ in OUTPUTS)
    with pytest.raises(UsageError, match="is an output, not an input"):
        parse_input("display://0")
    with pytest.raises(UsageError, match="is an input, not an output"):
        parse_output("csi://0")


@pytest.mark.parametrize(("forms", "parse"), [(INPUTS, parse_input), (OUTPUTS, parse_output)])
def test_every_form_of_the_tables_can_be_typed(forms, parse):
    for form, _ in forms:
        for text in form.replace("'", "").split(", "):
            parse(text.replace("<pipeline>", "x").replace("…", "x"))


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("rtsp://user:pw@cam/x", "rtsp://***@cam/x"),
        ("rtsp://user@cam:554/x", "rtsp://***@cam:554/x"),
        ("rtsp://user:p%40w%2F@cam/x", "rtsp://***@cam/x"),
        ("rtsp://user:p@w@cam/x", "rtsp://***@cam/x"),
        ("rtsp://user:p/w@cam/x", "rtsp://***@cam/x"),
        ("rtsp://user:1/w@cam/x", "rtsp://***@cam/x"),
        ("rtsp://user:p?w@cam/x", "rtsp://***@cam/x"),
        ("rtsp://user:p#w@cam/x", "rtsp://***@cam/x"),
        ("http://u:s3cret@h/?a=1", "http://***@h/?a=1"),
        ("http://h/x?token=abc&size=2", "http://h/x?token=***&size=2"),
        ("http://h/x?user=admin&password=pw&channel=1", "http://h/x?user=***&password=***&channel=1"),
        ("http://h/x?API_KEY=abc", "http://h/x?API_KEY=***"),
        ("http://h/x?X-Amz-Signature=abc&x=1", "http://h/x?X-Amz-Signature=***&x=1"),
        ("http://h/x?access_token=a/b=c", "http://h/x?access_token=***"),
        (
            "rtsp://1.2.3.4:554/user=admin&password=pw&stream=0.sdp",
            "rtsp://1.2.3.4:554/user=***&password=***&stream=0.sdp",
        ),
        ("gst://rtspsrc location=rtsp://u:pw@h/x ! fakesink", "gst://rtspsrc location=rtsp://***@h/x ! fakesink"),
        (
            "gst://rtspsrc user-id=me user-pw=pw ! x key-int-max=30",
            "gst://rtspsrc user-id=*** user-pw=*** ! x key-int-max=30",
        ),
        ('gst://x user-pw="a b" ! y', "gst://x user-pw=*** ! y"),
        ("cannot open rtsp://u:pw@h/x: refused", "cannot open rtsp://***@h/x: refused"),
        ("from rtsp://u:pw@h/x to rtsp://v:pw@i/y", "from rtsp://***@h/x to rtsp://***@i/y"),
        # Nothing to hide
        ("rtsp://@:8554/x", "rtsp://@:8554/x"),
        ("rtsp://cam.local:554/a@b", "rtsp://cam.local:554/a@b"),
        ("http://10.0.0.2/x?size=2&rate=3", "http://10.0.0.2/x?size=2&rate=3"),
        ("test://ball?size=1280x720", "test://ball?size=1280x720"),
        ("a@b.png", "a@b.png"),
        ("", ""),
    ],
)
def test_what_is_shown(text, shown):
    assert redacted(text) == shown
    assert redacted(shown) == shown


@pytest.mark.parametrize("text", ["rtsp://user:hunter2@cam/x", "http://cam/x?token=hunter2", "udp://u:hunter2@:1"])
def test_a_uri_does_not_show_its_credentials(text):
    uri = parse_input(text)
    assert "hunter2" not in f"{uri} {uri!r} {[uri]}"
    assert "hunter2" in uri.address


@pytest.mark.parametrize(
    "text", ["rtsp://user:hunter2/x@cam/y", "rtsp://u:hunter2@h:99999/x", "webrtc://u:hunter2@h", "v4l2://u:hunter2@x"]
)
def test_a_refusal_does_not_show_credentials(text):
    with pytest.raises(UsageError) as caught:
        parse_input(text)
    assert "hunter2" not in str(caught.value)


def test_numbered_pictures():
    assert numbered(Path("a/%05d.jpg"), 7) == Path("a/00007.jpg")
    assert numbered(Path("frame_%i.png"), 123) == Path("frame_123.png")
    assert numbered(Path("%04i.png"), 12345) == Path("12345.png")
    assert not numbers_pictures(Path("100%.png"))
    assert not numbers_pictures(Path("%d/a.png"))


@pytest.mark.parametrize(
    "given",
    [
        {"input_width": 0, "input_height": 1},
        {"input_width": 64},
        {"input_rate": float("nan")},
        {"flip": "sideways"},
        {"loop": -2},
        {"latency_ms": -1},
        {"output_codec": "vp9"},
        {"output_bitrate": 1},
        {"buffer": "some"},
        {"max_frames": 0},
        {"duration_s": 0},
        {"backend": "opencv"},
        {"input_codec": "h264,evil=1"},
    ],
)
def test_options_that_cannot_be_meant(given):
    with pytest.raises(UsageError):
        StreamOptions(**given)
