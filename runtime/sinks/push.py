"""Live outputs that may block: RTSP to a media server, and a v4l2loopback device."""

from __future__ import annotations

import math
import os
import socket
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...engines.errors import SinkError, UsageError
from ..frame import Emission, FrameSink, StreamInfo
from ..pyav import load_av, sink_error
from .encode import SENT, VIDEO_CLOCK, YUYV, Codec, VideoEncoder
from .errand import Errand, Left
from .timeline import Timeline

if TYPE_CHECKING:
    import av
    from av.container import OutputContainer

    from ..options import StreamOptions
    from ..uri import Uri

_MICROSECONDS = 1_000_000
_RTSP_PORT = 554  # RFC 2326, section 3.2
_ANSWER = 4096
# While FFmpeg shakes hands PyAV holds Python's lock, so every thread stands still: a server that has just answered gets
# this long, no more.
_HANDSHAKE_S = 1.0


def rtsp_push_sink(uri: Uri, options: StreamOptions) -> PushSink:
    """Push H.264 (or ``output_codec``) to a media server over TCP.

    ``open`` first asks the server whether it is there, and waits ``open_timeout`` for an answer: a silent server would
    else stop the whole process, since PyAV keeps Python's lock while FFmpeg connects. A server that takes nothing for a
    second in mid-stream is an error.
    """
    silence = str(math.ceil(_HANDSHAKE_S * _MICROSECONDS))
    muxing = {"rtsp_transport": "tcp", "timeout": silence}
    codec = SENT[options.output_codec or "h264"]
    target = Target(uri.address, str(uri), "rtsp", muxing, lambda: _refuse_silent_server(uri, options.open_timeout))
    return PushSink(target, codec, options.output_bitrate)


def v4l2_sink(device: Path, options: StreamOptions) -> PushSink:
    """Write YUYV to a v4l2loopback device. Not run where no such device was."""
    if options.output_codec is not None or options.output_bitrate is not None:
        raise UsageError(f"{device} takes pictures as they are, so no codec or bitrate", hint="leave them out")
    target = Target(str(device), str(device), "v4l2", {}, lambda: _refuse_unusable_device(device))
    return PushSink(target, YUYV, None)


@dataclass(frozen=True)
class Target:
    """``check`` raises SinkError where opening cannot succeed; it may wait. ``address`` holds the credentials."""

    address: str = field(repr=False)
    description: str
    format_name: str
    muxing: dict[str, str]
    check: Callable[[], None]


class PushSink(FrameSink):
    """Pictures are encoded in the caller's thread and sent by another, so that ``interrupt`` frees the caller at once.

    Once a write has failed or was interrupted, the sink has to be closed; it may be opened again.
    """

    def __init__(self, target: Target, codec: Codec, bitrate: int | None) -> None:
        self._target = target
        self._codec = codec
        self._bitrate = bitrate
        self._errand: Errand | None = None
        self._container: OutputContainer | None = None
        self._encoder: VideoEncoder | None = None
        self._timeline = Timeline()

    @property
    def description(self) -> str:
        return self._target.description

    def open(self, info: StreamInfo) -> None:
        """Raises SinkError when it cannot be reached."""
        self._timeline = Timeline()
        self._errand = Errand("edgeturbo-push")
        try:
            self._doing(lambda: self._begin(info), "cannot open")
        except BaseException:
            self.close()
            raise

    def write(self, emission: Emission) -> None:
        if self._encoder is None:
            raise SinkError(f"{self._target.description} is not open")
        packets = self._encoder.encode(emission.image, self._timeline.place(emission))
        self._doing(lambda: self._send(packets), "cannot send to")

    def interrupt(self) -> None:
        errand = self._errand
        if errand is not None:
            errand.leave()

    def close(self) -> None:
        """Says good-bye to the far end, for at most 0.8 s."""
        errand, self._errand = self._errand, None
        container, self._container = self._container, None
        encoder, self._encoder = self._encoder, None
        if errand is not None:
            errand.stop(lambda: _end(container, encoder))

    def _begin(self, info: StreamInfo) -> None:
        self._target.check()
        container = load_av().open(
            self._target.address,
            mode="w",
            format=self._target.format_name,
            container_options=self._target.muxing,
        )
        self._container = container
        encoder = VideoEncoder(container, self._codec, info, self._bitrate, VIDEO_CLOCK)
        container.start_encoding()
        self._encoder = encoder

    def _send(self, packets: list[av.Packet[Any]]) -> None:
        if self._container is not None:
            self._container.mux(packets)

    def _doing(self, call: Any, what: str) -> None:
        pyav = load_av()
        errand = self._errand
        if errand is None:
            raise SinkError(f"{self._target.description} is not open")
        try:
            errand.do(call)
        except Left:
            raise SinkError(f"{self._target.description} was interrupted") from None
        except pyav.FFmpegError as error:
            raise sink_error(error, f"{what} {self._target.description}") from None


def _end(container: OutputContainer | None, encoder: VideoEncoder | None) -> None:
    """Whatever still can be said; a far end that is gone needs none of it."""
    with suppress(load_av().FFmpegError, OSError):
        if container is None:
            return
        try:
            if encoder is not None:
                container.mux(encoder.flush())
        finally:
            container.close()


def _refuse_silent_server(uri: Uri, patience: float) -> None:
    """Ask for the RTSP server's OPTIONS (RFC 2326, section 10.1); any answer will do."""
    question = f"OPTIONS rtsp://{uri.host}/ RTSP/1.0\r\nCSeq: 1\r\n\r\n"
    try:
        with socket.create_connection((uri.host, uri.port or _RTSP_PORT), timeout=patience) as connection:
            connection.sendall(question.encode())
            answered = bool(connection.recv(_ANSWER))
    except OSError as error:
        raise SinkError(
            f"cannot open {uri}",
            got=error.strerror or str(error) or type(error).__name__,
            hint="is the server running, and are the host and port right?",
        ) from None
    if not answered:
        raise SinkError(f"cannot open {uri}", got="the server hung up at once", hint="is it an RTSP server?")


def _refuse_unusable_device(device: Path) -> None:
    if not device.exists():
        number = device.name[5:] or "9"
        raise SinkError(f"{device} does not exist", hint=f"sudo modprobe v4l2loopback video_nr={number}")
    if not os.access(device, os.W_OK):
        raise SinkError(
            f"{device} may not be written by this user", hint="sudo usermod -aG video $USER, then log in again"
        )
