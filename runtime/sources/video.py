"""Video files: every frame, in order, with the times that the file gives them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from ...engines.errors import InputError
from ..frame import Frame, Signal
from ..options import refuse_given
from ..pyav import load_av, reason_of
from .base import Source
from .decode import Decoded, RgbMaker, decoded, origin_ns_of, pts_ns_of, rate_of, video_stream

if TYPE_CHECKING:
    import av
    from av.container import InputContainer
    from av.video.stream import VideoStream

    from ..options import StreamOptions

# The duration of a last frame whose file does not say how long it lasts nor at which rate it plays, in a loop.
_UNKNOWN_DURATION_NS = 40_000_000


class VideoFileSource(Source):
    """Not live. Sound is not decoded; a sink copies it (``VideoFileSink``).

    ``pts_ns`` is the file's own, counted from what the file calls its start, so a variable rate stays variable; from
    one pass of a loop to the next it goes on. ``captured_ns`` is when the frame's packet was read.
    """

    def __init__(self, path: Path, description: str, options: StreamOptions) -> None:
        refuse_given("a video file", input_rate=options.input_rate, input_codec=options.input_codec)
        super().__init__(description, options)
        self._path = path
        self._container: InputContainer | None = None
        self._frames: Iterator[Decoded] = iter(())
        self._ahead: Decoded | None = None
        self._passes = 0
        self._origin_ns = 0
        self._end_ns = 0
        self._to_rgb: RgbMaker | None = None

    def open(self) -> None:
        """Raises InputError for a file that is missing or no video. Decodes the first frame."""
        self._refuse_interrupted()
        self._to_rgb = RgbMaker(self.options.input_size)
        self._passes = self._end_ns = 0
        self._start()
        self._ahead = next(self._frames, None)
        if self._ahead is None:
            raise InputError(f"{self.description} holds no picture that can be decoded", got=self._losses())
        self._describe(self._flipped(self._to_rgb(self._ahead.picture)))

    def read(self, timeout: float) -> Frame | Signal:  # noqa: ARG002 -- a file does not keep its reader waiting
        """The next frame, as fast as it can be decoded; TIMEOUT only after ``interrupt``."""
        if self._interrupted.is_set() or self._to_rgb is None:
            return Signal.TIMEOUT
        item = self._next()
        if item is None:
            return Signal.TIMEOUT if self._interrupted.is_set() else Signal.EOS
        pts_ns = pts_ns_of(item.picture, self._origin_ns)
        if pts_ns is not None:
            self._end_ns = max(self._end_ns, pts_ns + self._duration_ns(item))
        return self._deliver(self._to_rgb(item.picture), pts_ns, item.arrived_ns)

    def close(self) -> None:
        self._frames = iter(())
        self._ahead = None
        if self._container is not None:
            self._container.close()
            self._container = None
        self._interrupted.clear()

    def _start(self) -> None:
        pyav = load_av()
        if self._container is not None:
            self._container.close()
        try:
            self._container = container = pyav.open(str(self._path), mode="r", metadata_errors="replace")
        except pyav.FFmpegError as error:
            raise self._unusable(error) from None
        stream = video_stream(container, self.description)
        stream.thread_type = "AUTO"
        self._rate = rate_of(stream)
        self._origin_ns = origin_ns_of(container) - self._end_ns
        self._frames = self._guarded(container, stream)

    def _guarded(self, container: InputContainer, stream: VideoStream) -> Iterator[Decoded]:
        pyav = load_av()
        try:
            yield from decoded(container, stream, self._faults, self._interrupted.is_set, skips_damage=True)
        except pyav.FFmpegError as error:
            raise self._unusable(error) from None

    def _next(self) -> Decoded | None:
        item, self._ahead = self._ahead, None
        item = item or next(self._frames, None)
        if item is None and not self._interrupted.is_set() and self._plays_again():
            self._passes += 1
            self._start()
            item = next(self._frames, None)
        return item

    def _plays_again(self) -> bool:
        return self.options.loop < 0 or self._passes < self.options.loop

    def _duration_ns(self, item: Decoded) -> int:
        picture = item.picture
        if picture.duration and picture.time_base is not None:
            lasts_ns: int = round(picture.duration * picture.time_base * 1_000_000_000)
            return lasts_ns
        return round(1e9 / self._rate) if self._rate else _UNKNOWN_DURATION_NS

    def _losses(self) -> str | None:
        return ", ".join(f"{count} {reason}" for reason, count in self._faults.items() if count) or None

    def _unusable(self, error: av.FFmpegError) -> InputError:
        reason = reason_of(error)
        what = {"missing": "does not exist", "permission": "may not be read"}.get(reason, "cannot be read as video")
        return InputError(f"{self.description} {what}", got=error.strerror or type(error).__name__)
