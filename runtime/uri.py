"""One URI for everything a stream can come from or go to; the forms are jetson-utils' where it has them.

Nothing here opens anything. A path without a known suffix is the one case where the disk is asked what it is.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from urllib.parse import SplitResult, parse_qsl, unquote, urlsplit

from ..engines.errors import UsageError
from .image import READABLE_SUFFIXES, WRITABLE_SUFFIXES

# Form and meaning, as the help and the README print them.
INPUTS = (
    ("picture.png, folder/, 'in/*.jpg'", "pictures, in order of their names"),
    ("clip.mp4, file:///data/clip.mkv", "a video file, every frame of it"),
    ("/dev/video0, v4l2:///dev/video0, 0", "a V4L2 camera; a bare number N is /dev/videoN"),
    ("csi://0", "a Jetson's CSI camera"),
    ("rtsp://user:password@host/path, rtsps://…", "a network camera"),
    ("rtsp://@:8554/path", "wait for a stream to be pushed here; from this machine, unless an address follows the @"),
    ("http://host/stream, https://…", "MJPEG, or a video file over HTTP"),
    ("udp://@:1234", "MPEG-TS sent here; from this machine, unless an address follows the @"),
    ("gst://<pipeline>", "your own GStreamer pipeline"),
    ("test://ball?size=1280x720&rate=30", "a moving picture made here; also bars, noise; frames=N, live=0"),
    ("-", "raw RGB frames on standard input, with --input-width and --input-height"),
)
OUTPUTS = (
    ("out/, out/%05d.jpg", "one picture a frame"),
    ("out.png", "one picture: the newest frame"),
    ("out.mp4, out.mkv", "a video file that can be played after a power cut"),
    ("/dev/video9, v4l2:///dev/video9", "a v4l2loopback device"),
    ("rtsp://host/path", "push to a media server"),
    ("rtsp://@:8554/path", "serve, for others to connect"),
    ("display://0", "a window"),
    ("http://:8080", "a page with the live picture; on this machine only, unless an address is given"),
    ("gst://<pipeline>", "your own GStreamer pipeline"),
    ("null://", "nowhere"),
    ("-", "raw RGB frames on standard output"),
)

VIDEO_SUFFIXES = (
    *(".avi", ".flv", ".h264", ".h265", ".hevc", ".m2ts", ".m4v", ".mjpeg", ".mjpg", ".mkv", ".mov", ".mp4", ".mpeg"),
    *(".mpg", ".mts", ".ts", ".webm", ".wmv", ".y4m"),
)
RECORDED_SUFFIXES = (".mkv", ".mp4")

_DEVICES = ("/dev/video", "/dev/v4l/")

TEST_PATTERNS = ("ball", "bars", "noise")

_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+)://", re.ASCII)
_PATTERN = re.compile(r"%(0\d+)?[di]", re.ASCII)


class Kind(Enum):
    """What a URI leads to."""

    PICTURES = "pictures"
    VIDEO = "video"
    V4L2 = "v4l2"
    CSI = "csi"
    RTSP = "rtsp"
    HTTP = "http"
    UDP = "udp"
    GSTREAMER = "gst"
    TEST = "test"
    RAW = "-"
    DISPLAY = "display"
    NULL = "null"


@dataclass(frozen=True)
class Uri:
    """One end of a stream. ``str()`` and ``repr()`` show no credentials; ``address`` does, and is for opening only.

    ``path``: of PICTURES, VIDEO and V4L2. ``host`` and ``port``: of RTSP, HTTP and UDP; ``listens`` says that the far
    end connects to us, with the host ``""`` where none was typed. ``number``: of CSI and DISPLAY. ``pipeline``: of
    GSTREAMER. ``query``: of TEST, and ``pattern`` its name.
    """

    kind: Kind
    address: str = field(repr=False)
    path: Path | None = None
    host: str = ""
    port: int | None = None
    listens: bool = False
    number: int = 0
    pipeline: str = field(default="", repr=False)
    pattern: str = ""
    query: tuple[tuple[str, str], ...] = field(default=(), repr=False)

    def __str__(self) -> str:
        return redacted(self.address)


# --- what must not be shown -------------------------------------------------------------------------------------------

_HIDDEN_KEY = (
    r"(?:[\w.-]*(?:pass|pwd|token|secret|signature|credential|api[_-]?key|access[_-]?key|auth|jwt|session)[\w.-]*"
    r"|key|sig|user|username|user-id|user-pw|usr|login|pw)"
)
_HIDDEN_VALUE = re.compile(rf"(?i)(?<![\w.%-])({_HIDDEN_KEY}=)(\"[^\"]*\"|'[^']*'|[^&;\s\"'!#]*)")
_WHOLE_URI = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*://)([^\s\"'<>]*)")
_PLAIN_AUTHORITY = re.compile(r"(\[[0-9A-Fa-f:.]+\]|localhost|[\w-]+(\.[\w-]+)+)?(:\d*)?$", re.ASCII)


def redacted(text: str) -> str:
    """``text`` with ``***`` for the user and password of every URI in it, and for values of keys such as ``token``.

    Rather too much is hidden than too little: where a password was typed without percent-encoding, so that it cannot
    be told where it ends, everything up to the last ``@`` is.
    """
    return _HIDDEN_VALUE.sub(r"\1***", _WHOLE_URI.sub(_without_user, text))


def _without_user(match: re.Match[str]) -> str:
    scheme, rest = match.groups()
    authority = re.split(r"[/?#]", rest, maxsplit=1)[0]
    before, at, after = rest.rpartition("@")
    if not at or not before or _PLAIN_AUTHORITY.match(authority):
        return match[0]
    return f"{scheme}***@{after}"


# --- reading what was typed -------------------------------------------------------------------------------------------


def parse_input(text: str) -> Uri:
    """What ``text`` means as a source. Raises UsageError, naming the forms of ``INPUTS``, for what cannot be meant."""
    if text.isascii() and text.isdigit():
        return Uri(Kind.V4L2, text, path=Path(f"/dev/video{int(text)}"))
    scheme = _scheme(text)
    if scheme is None:
        return Uri(Kind.RAW, text) if text == "-" else _input_path(text, text)
    readers: dict[str, Callable[[str], Uri]] = {
        "file": lambda text: _input_path(text, _file_path(text)),
        "v4l2": _v4l2,
        "csi": lambda text: _numbered(Kind.CSI, text),
        "rtsp": lambda text: _rtsp(text, may_listen=True),
        "rtsps": lambda text: _rtsp(text, may_listen=False),
        "http": _http_input,
        "https": _http_input,
        "udp": _udp,
        "gst": _gstreamer,
        "test": _test,
    }
    if scheme not in readers:
        raise _unknown(text, scheme, INPUTS, OUTPUTS, "an output, not an input")
    return readers[scheme](text)


def parse_output(text: str) -> Uri:
    """What ``text`` means as a sink. Raises UsageError, naming the forms of ``OUTPUTS``, for what cannot be meant."""
    scheme = _scheme(text)
    if scheme is None:
        return Uri(Kind.RAW, text) if text == "-" else _output_path(text, text)
    readers: dict[str, Callable[[str], Uri]] = {
        "file": lambda text: _output_path(text, _file_path(text)),
        "v4l2": _v4l2,
        "rtsp": lambda text: _rtsp(text, may_listen=True),
        "rtsps": lambda text: _rtsp(text, may_listen=False),
        "http": _http_output,
        "display": lambda text: _numbered(Kind.DISPLAY, text),
        "gst": _gstreamer,
        "null": _null,
    }
    if scheme not in readers:
        raise _unknown(text, scheme, OUTPUTS, INPUTS, "an input, not an output")
    return readers[scheme](text)


def numbers_pictures(path: Path) -> bool:
    """Whether a name such as ``%05d.jpg`` (or, as in jetson-utils, ``%i.jpg``) stands for one picture a frame."""
    return _PATTERN.search(path.name) is not None


def numbered(path: Path, number: int) -> Path:
    """The picture of this number: ``%05d`` of ``path``'s name replaced."""
    return path.with_name(_PATTERN.sub(lambda match: f"{number:{match[1] or ''}d}", path.name, count=1))


def _scheme(text: str) -> str | None:
    match = _SCHEME.match(text)
    return match[1].lower() if match else None


def _unknown(
    text: str, scheme: str, forms: tuple[tuple[str, str], ...], others: tuple[tuple[str, str], ...], other: str
) -> UsageError:
    is_other = any(f"{scheme}://" in form for form, _ in others)
    what = f"{redacted(text)} is {other}" if is_other else f"{scheme}:// is not among the schemes this package knows"
    return _cannot_mean(what, forms)


def _cannot_mean(what: str, forms: tuple[tuple[str, str], ...] = (), hint: str | None = None) -> UsageError:
    table = "one of\n" + "\n".join(f"    {form:<44} {meaning}" for form, meaning in forms) if forms else None
    return UsageError(what, expected=table, hint=hint)


# --- paths ------------------------------------------------------------------------------------------------------------


def _file_path(text: str) -> str:
    """``file:///abs`` and ``file://localhost/abs`` as RFC 8089 has it, ``file://relative`` as jetson-utils has it."""
    rest = unquote(text.partition("://")[2])
    return rest.removeprefix("localhost") if rest.startswith("localhost/") else rest


def _input_path(text: str, name: str) -> Uri:
    if not name:
        raise _cannot_mean("the input is empty", INPUTS)
    path = Path(name)
    if name.startswith(_DEVICES):
        return Uri(Kind.V4L2, text, path=path)
    suffix = path.suffix.lower()
    if suffix in READABLE_SUFFIXES or name.endswith("/"):
        return Uri(Kind.PICTURES, text, path=path)
    if suffix in VIDEO_SUFFIXES:
        return Uri(Kind.VIDEO, text, path=path)
    return Uri(Kind.VIDEO if path.is_file() else Kind.PICTURES, text, path=path)


def _output_path(text: str, name: str) -> Uri:
    if not name:
        raise _cannot_mean("the output is empty", OUTPUTS)
    path = Path(name)
    if name.startswith(_DEVICES):
        return Uri(Kind.V4L2, text, path=path)
    suffix = path.suffix.lower()
    if name.endswith("/") or path.is_dir() or not suffix:
        return Uri(Kind.PICTURES, text, path=path)
    if suffix in WRITABLE_SUFFIXES:
        return Uri(Kind.PICTURES, text, path=path)
    if suffix in RECORDED_SUFFIXES:
        return Uri(Kind.VIDEO, text, path=path)
    raise UsageError(
        f"cannot tell what to write to {path}",
        expected=f"a video ({', '.join(RECORDED_SUFFIXES)}), a picture ({', '.join(WRITABLE_SUFFIXES)}) or a folder",
        got=suffix,
        hint=f"name it {path.with_suffix('.mp4')}",
    )


# --- schemes ----------------------------------------------------------------------------------------------------------


def _v4l2(text: str) -> Uri:
    name = unquote(text.partition("://")[2])
    if not name.startswith("/dev/") or name.endswith("/"):
        raise _cannot_mean(f"{redacted(text)} names no device", hint="v4l2:///dev/video0, with three slashes")
    return Uri(Kind.V4L2, text, path=Path(name))


def _numbered(kind: Kind, text: str) -> Uri:
    number = text.partition("://")[2].rstrip("/")
    if not (number.isascii() and number.isdigit()):
        raise _cannot_mean(f"{redacted(text)} names no number", hint=f"{kind.value}://0")
    return Uri(kind, text, number=int(number))


def _network(text: str) -> tuple[SplitResult, int | None]:
    """Raises UsageError for a host or port that cannot be; also where a raw ``/``, ``?`` or ``#`` cuts a password."""
    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError as error:
        raise _cannot_mean(
            f"{redacted(text)} has no usable host and port",
            hint="write the special characters of a password percent-encoded: / is %2F, ? %3F, # %23, @ %40",
        ) from error
    if any(character.isspace() for character in parts.netloc):
        raise _cannot_mean(f"{redacted(text)} has a space in its host")
    return parts, port


def _rtsp(text: str, *, may_listen: bool) -> Uri:
    parts, port = _network(text)
    listens = parts.netloc.startswith("@")
    if listens and (port is None or not may_listen):
        raise _cannot_mean(f"{redacted(text)} lacks a port to listen at", hint="rtsp://@:8554/live")
    if not listens and not parts.hostname:
        raise _cannot_mean(f"{redacted(text)} names no host", hint="rtsp://host/path, or rtsp://@:8554/path to listen")
    return Uri(Kind.RTSP, text, host=parts.hostname or "", port=port, listens=listens)


def _udp(text: str) -> Uri:
    parts, port = _network(text)
    if port is None:
        raise _cannot_mean(f"{redacted(text)} names no port", hint="udp://@:1234")
    return Uri(Kind.UDP, text, host=parts.hostname or "", port=port, listens=True)


def _http_input(text: str) -> Uri:
    parts, port = _network(text)
    if not parts.hostname:
        raise _cannot_mean(f"{redacted(text)} names no host", hint="http://camera/stream")
    return Uri(Kind.HTTP, text, host=parts.hostname, port=port)


def _http_output(text: str) -> Uri:
    parts, port = _network(text)
    if parts.username is not None or parts.path not in ("", "/") or parts.query:
        raise _cannot_mean(f"{redacted(text)} is more than an address to serve at", hint="http://:8080")
    return Uri(Kind.HTTP, text, host=parts.hostname or "", port=8080 if port is None else port, listens=True)


def _gstreamer(text: str) -> Uri:
    pipeline = text.partition("://")[2].strip()
    if not pipeline:
        raise _cannot_mean("gst:// lacks a pipeline", hint="gst://videotestsrc ! video/x-raw,width=640,height=480")
    return Uri(Kind.GSTREAMER, text, pipeline=pipeline)


def _test(text: str) -> Uri:
    pattern, _, query = text.partition("://")[2].partition("?")
    pattern = pattern.rstrip("/")
    if pattern not in TEST_PATTERNS:
        raise UsageError(
            f"there is no test picture {pattern!r}",
            expected=", ".join(TEST_PATTERNS),
            hint="test://ball?size=1280x720&rate=30",
        )
    try:
        pairs = tuple(parse_qsl(query, strict_parsing=True, keep_blank_values=True)) if query else ()
    except ValueError as error:
        raise _cannot_mean(f"{redacted(text)} has a query that is not name=value&…") from error
    return Uri(Kind.TEST, text, pattern=pattern, query=pairs)


def _null(text: str) -> Uri:
    if text.partition("://")[2].strip("/"):
        raise _cannot_mean(f"{redacted(text)}: null:// goes nowhere, so nothing may follow it", hint="null://")
    return Uri(Kind.NULL, text)
