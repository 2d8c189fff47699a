"""V4L2 cameras through FFmpeg. Not run where no camera was: the parts that need none are tested."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from ...engines.errors import SourceError
from ..options import StreamOptions, refuse_given
from ..pyav import load_av, reason_of, source_error
from .decode import Decoded, decoded, rate_of, video_stream
from .pump import Connection
from .pumped import PumpedSource

if TYPE_CHECKING:
    from av.container import InputContainer

# libavformat/avformat.h, AVFMT_FLAG_NONBLOCK: FFmpeg then opens the device with O_NONBLOCK and says EAGAIN while there
# is no frame (libavdevice/v4l2.c), where it would else wait for a stalled camera for ever, and keep it busy.
_NONBLOCK = "4"
# How old a frame may be when its kernel timestamp is believed.
_OLDEST_NS = 10_000_000_000

_MESSAGES = {
    "missing": ("{device} does not exist", "is the camera plugged in? list them: v4l2-ctl --list-devices"),
    "permission": (
        "{device} may not be read by this user",
        "sudo usermod -aG video $USER, then log in again",
    ),
    "busy": ("{device} is in use by another program", "find it: fuser -v {device}"),
}


def v4l2_source(device: Path, options: StreamOptions) -> PumpedSource:
    """``captured_ns`` is the kernel's time of the frame where the driver counts on the monotonic clock (UVC cameras do,
    from the frame's first byte), else when the frame was read. ``pts_ns`` is None. A stalled camera gives TIMEOUT.
    """
    refuse_given(f"{device}", loop=options.loop)

    @contextmanager
    def connect(faults: Counter[str], stopped: Callable[[], bool]) -> Iterator[Connection]:
        av = load_av()
        container = _opened(device, options)
        try:
            stream = video_stream(container, str(device))
            stream.thread_type = "SLICE"
            frames = decoded(container, stream, faults, stopped, skips_damage=False)
            yield Connection(_kernel_timed(frames), rate_of(stream), 0, has_times=False, live=True)
        except av.FFmpegError as error:
            raise device_error(device, reason_of(error)) or source_error(error, f"{device} failed") from None
        finally:
            container.close()

    # The size is the camera's to deliver: asked of it in _opened, not scaled to.
    return PumpedSource(connect, str(device), replace(options, input_width=None, input_height=None))


def options_for(options: StreamOptions) -> dict[str, str]:
    """FFmpeg's v4l2 options (https://ffmpeg.org/ffmpeg-devices.html): what the camera is asked for."""
    chosen = {"fflags": _NONBLOCK}
    if options.input_size is not None:
        chosen["video_size"] = "{}x{}".format(*options.input_size)
    if options.input_rate is not None:
        chosen["framerate"] = f"{options.input_rate:g}"
    if options.input_codec is not None:
        chosen["input_format"] = options.input_codec
    return chosen


def kernel_time_ns(pts_us: int | None, arrived_ns: int) -> int:
    """The kernel's timestamp in ns when it can be one of the monotonic clock, not long before the arrival."""
    if pts_us is None or not 0 <= arrived_ns - pts_us * 1000 < _OLDEST_NS:
        return arrived_ns
    return pts_us * 1000


def device_error(device: Path, reason: str) -> SourceError | None:
    """What a person can do about it, for the reasons that have an answer."""
    if reason not in _MESSAGES:
        return None
    what, hint = (text.format(device=device) for text in _MESSAGES[reason])
    return SourceError(what, reason=reason, hint=hint)


def _opened(device: Path, options: StreamOptions) -> InputContainer:
    if not device.exists():
        raise device_error(device, "missing") or AssertionError
    if not os.access(device, os.R_OK | os.W_OK):
        raise device_error(device, "permission") or AssertionError
    av = load_av()
    limits = (options.open_timeout, options.read_timeout)
    try:
        return av.open(str(device), mode="r", format="v4l2", options=options_for(options), timeout=limits)  # type: ignore[no-any-return]
    except av.FFmpegError as error:
        known = device_error(device, reason_of(error))
        if known is not None:
            raise known from None
        raise SourceError(
            f"{device} cannot be opened as asked",
            reason=reason_of(error),
            got=error.strerror,
            hint=f"see what it can do: v4l2-ctl -d {device} --list-formats-ext",
        ) from None


def _kernel_timed(frames: Iterator[Decoded]) -> Iterator[Decoded]:
    for item in frames:
        # FFmpeg's v4l2 counts in microseconds.
        yield replace(item, arrived_ns=kernel_time_ns(item.picture.pts, item.arrived_ns))
