"""RTSP, MJPEG or a file over HTTP, and MPEG-TS over UDP, through FFmpeg."""

from __future__ import annotations

import errno
import ipaddress
import math
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from ...engines.errors import SourceError
from ..options import StreamOptions, refuse_given
from ..pyav import load_av, source_error
from ..uri import Kind, Uri
from .decode import decoded, origin_ns_of, rate_of, video_stream
from .pump import Connection
from .pumped import PumpedSource

if TYPE_CHECKING:
    from av.container import InputContainer

_LOOPBACK = "127.0.0.1"
# One wait for somebody to push; then it is looked whether anybody still wants to know. FFmpeg counts whole seconds.
_LISTEN_S = 1
_MICROSECONDS = 1_000_000
# Enough for the parameters of a stream, and no more: what is read to probe is old when the first frame comes.
_SHORT_PROBE = {"fpsprobesize": "0", "analyzeduration": "1000000"}
# FFmpeg throws away what it read to probe. Not over HTTP, where the same bytes may be a file.
_LOW_DELAY = {"fflags": "nobuffer", "flags": "low_delay"}


def network_source(uri: Uri, options: StreamOptions) -> PumpedSource:
    """RTSP and UDP are live; HTTP is when it serves MJPEG, or says no duration."""
    refuse_given(f"{uri}", input_rate=options.input_rate, loop=options.loop)

    @contextmanager
    def connect(faults: Counter[str], stopped: Callable[[], bool]) -> Iterator[Connection]:
        av = load_av()
        container = _listening(uri, options, stopped) if _waits(uri) else _opened(uri, options)
        try:
            yield _connection(container, uri, options, faults, stopped)
        except av.FFmpegError as error:
            # Once connected, FFmpeg's input/output error means that the far end hung up.
            raise source_error(error, f"{uri} failed", "end" if error.errno == errno.EIO else None) from None
        finally:
            container.close()

    return PumpedSource(connect, str(uri), options)


def _waits(uri: Uri) -> bool:
    return uri.kind is Kind.RTSP and uri.listens


def _connection(
    container: InputContainer, uri: Uri, options: StreamOptions, faults: Counter[str], stopped: Callable[[], bool]
) -> Connection:
    stream = video_stream(container, str(uri))
    _refuse_other_codec(uri, options.input_codec, stream.codec_context.name)
    # Threads that work on several frames at once hold each frame back; slices of one frame do not.
    stream.thread_type = "SLICE"
    if uri.kind is not Kind.HTTP:
        stream.codec_context.options = {"flags": "low_delay"}
    # FFmpeg's mpjpeg demuxer invents 25 frames a second.
    is_mjpeg = container.format.name == "mpjpeg"
    return Connection(
        pictures=decoded(container, stream, faults, stopped, skips_damage=False),
        rate=None if is_mjpeg else rate_of(stream),
        origin_ns=origin_ns_of(container),
        has_times=not is_mjpeg,
        live=uri.kind is not Kind.HTTP or is_mjpeg or container.duration is None,
    )


def _refuse_other_codec(uri: Uri, expected: str | None, got: str) -> None:
    if expected is not None and expected not in (got, {"hevc": "h265"}.get(got)):
        raise SourceError(f"{uri} sends another codec than --input-codec", reason="codec", expected=expected, got=got)


def _listening(uri: Uri, options: StreamOptions, stopped: Callable[[], bool]) -> InputContainer:
    """Wait until somebody pushes, for as long as it takes."""
    while not stopped():
        try:
            return _opened(uri, options)
        except SourceError as error:
            # Somebody who hangs up at once only asked whether anybody is here, as our own sink does.
            if error.reason not in ("timeout", "end", "reset"):
                raise
    raise SourceError(f"waiting at {uri} was interrupted", reason="interrupted")


def _opened(uri: Uri, options: StreamOptions) -> InputContainer:
    av = load_av()
    seconds = options.open_timeout + (_LISTEN_S if _waits(uri) else 0)
    started = time.monotonic()
    try:
        return av.open(  # type: ignore[no-any-return] # av is Any here
            address_to_open(uri),
            mode="r",
            options=options_for(uri, options),
            timeout=(seconds, options.read_timeout),
            metadata_errors="replace",
        )
    except av.FFmpegError as error:
        # An RTSP handshake that FFmpeg breaks off reads as invalid data.
        late = time.monotonic() - started > (_LISTEN_S if _waits(uri) else seconds) * 0.9
        raise source_error(error, f"cannot open {uri}", "timeout" if late else None) from None


def address_to_open(uri: Uri) -> str:
    """What FFmpeg is given: for listening the empty host becomes this machine alone."""
    if not _waits(uri):
        return uri.address
    return (
        f"rtsp://{uri.host or _LOOPBACK}:{uri.port}{uri.address.partition('://')[2].partition('/')[2].join(('/', ''))}"
    )


def options_for(uri: Uri, options: StreamOptions) -> dict[str, str]:
    """FFmpeg's options (https://ffmpeg.org/ffmpeg-protocols.html, ffmpeg-formats.html) for a source."""
    chosen = _SHORT_PROBE | ({} if uri.kind is Kind.HTTP else _LOW_DELAY)
    if options.latency_ms is not None:
        chosen["max_delay"] = str(options.latency_ms * 1000)
    if uri.kind is Kind.RTSP:
        # TCP: over UDP a lost packet is a torn picture, and routers block the ports.
        chosen["rtsp_transport"] = "tcp"
        chosen |= (
            {"rtsp_flags": "listen", "listen_timeout": str(_LISTEN_S)}
            if uri.listens
            else {"timeout": str(math.ceil(options.read_timeout * _MICROSECONDS))}
        )
    elif uri.kind is Kind.HTTP:
        chosen["rw_timeout"] = str(math.ceil(options.read_timeout * _MICROSECONDS))
    elif not _is_multicast(uri.host):
        # FFmpeg's udp binds to every address of the machine unless told.
        chosen["localaddr"] = uri.host or _LOOPBACK
    return chosen


def _is_multicast(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_multicast
    except ValueError:
        return False
