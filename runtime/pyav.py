"""What every part that uses PyAV needs: the package itself, and FFmpeg's complaints as errors of ours."""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING, Any

from ..engines.errors import MissingComponentError, SinkError, SourceError

if TYPE_CHECKING:
    import av

# FFmpeg's own codes, of libavutil/error.h: MKTAG('E','X','I','T') and MKTAG('E','O','F',' '), as PyAV gives them.
_EXIT, _EOF = 0x54495845, 0x20464F45

_REASONS = {
    errno.ECONNREFUSED: "refused",
    errno.ETIMEDOUT: "timeout",
    errno.EAGAIN: "timeout",
    _EXIT: "timeout",  # PyAV's own time limits interrupt FFmpeg
    _EOF: "end",
    errno.EPIPE: "reset",
    errno.ECONNRESET: "reset",
    errno.ECONNABORTED: "reset",
    errno.EHOSTUNREACH: "unreachable",
    errno.ENETUNREACH: "unreachable",
    errno.EIO: "unreachable",  # also what FFmpeg makes of a host name that nobody knows
    errno.ENOENT: "missing",
    errno.ENODEV: "missing",
    errno.ENXIO: "missing",
    errno.EBUSY: "busy",
    errno.EACCES: "permission",
    errno.EPERM: "permission",
    errno.EADDRINUSE: "busy",
    errno.EADDRNOTAVAIL: "unreachable",
}
_REASONS_BY_NAME = {
    "HTTPUnauthorizedError": "unauthorized",
    "HTTPForbiddenError": "unauthorized",
    "HTTPNotFoundError": "missing",
    "InvalidDataError": "corrupt",
}
_HINTS = {
    "refused": "is the server running, and is the port right?",
    "timeout": "is it switched on and reachable? ping its address",
    "unreachable": "check the host name and the network",
    "unauthorized": "check the user and password; special characters are written percent-encoded, @ as %40",
    "missing": "check the path after the host",
    "busy": "another program holds it: close that one first",
}


def load_av() -> Any:
    """The PyAV module. Raises MissingComponentError where it is not installed."""
    try:
        import av
    except ImportError as error:
        raise MissingComponentError(
            "PyAV, which reads and writes video, is not installed", hint='pip install "edgeturbo[camera]"'
        ) from error
    return av


def reason_of(error: av.FFmpegError) -> str:
    """The short fixed word for what FFmpeg complains of."""
    return _REASONS_BY_NAME.get(type(error).__name__) or _REASONS.get(error.errno or 0, "error")


def source_error(error: av.FFmpegError, doing: str, reason: str | None = None) -> SourceError:
    """``doing`` names what failed, without credentials. Raise it ``from None``: FFmpeg's own holds the URI."""
    word = reason or reason_of(error)
    return SourceError(doing, reason=word, got=error.strerror or type(error).__name__, hint=_HINTS.get(word))


def sink_error(error: av.FFmpegError, doing: str) -> SinkError:
    """As ``source_error``, for a sink."""
    word = reason_of(error)
    return SinkError(doing, got=f"{error.strerror or type(error).__name__} ({word})", hint=_HINTS.get(word))
