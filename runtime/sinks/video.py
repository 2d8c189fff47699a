"""Video files: every picture at its own time, with the sound of the input, playable after a power cut."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...engines.errors import DiskFullError, UsageError
from ...engines.files import filling_disk
from ..frame import Emission, FrameSink, StreamInfo
from ..pyav import load_av, sink_error
from .encode import RECORDED, VIDEO_CLOCK, VideoEncoder
from .recording import RecordingFile, refuse_existing
from .sound import SoundCopy
from .timeline import Timeline

if TYPE_CHECKING:
    import av
    from av.container import OutputContainer

    from ..options import StreamOptions

# MP4 in fragments of a second, each complete in itself: nothing at the end of the file is needed to play it. The header
# waits for the first of them (delay_moov): only then can it say that sound begins before 0, as AAC's does.
_FRAGMENTED = {"movflags": "+frag_keyframe+empty_moov+delay_moov+default_base_moof"}
_CONTAINERS = {
    ".mp4": ("mp4", {"flush_packets": "1", **_FRAGMENTED}),
    ".mkv": ("matroska", {"flush_packets": "1", "cluster_time_limit": "1000"}),
}
# The largest number of ticks a second that MP4 tables and FFmpeg's encoders take for a clock.
_FASTEST_CLOCK = 1_000_000


class VideoFileSink(FrameSink):
    """H.264, unless ``output_codec`` says otherwise, in fragmented MP4 or Matroska by ``path``'s suffix.

    The pictures' times are the frames' ``pts_ns`` (see Timeline). With ``audio_from``, the video file that the frames
    come from, its sound is copied and, in MP4, its clock is used, so that times are equal to the tick. Matroska counts
    in milliseconds from 0: where sound begins before the pictures (AAC does), all times move by as much. Sound of
    further passes of a loop is not repeated. See RecordingFile for the name while it is written. When the disk fills
    up, what fitted is closed, playable, and takes its final name.
    """

    def __init__(self, path: Path, options: StreamOptions, audio_from: Path | None = None) -> None:
        """Raises UsageError for a suffix that is neither .mp4 nor .mkv."""
        if path.suffix.lower() not in _CONTAINERS:
            raise UsageError(f"cannot record to {path}", expected=".mp4, .mkv", got=path.suffix or "no suffix")
        self._path = path
        self._options = options
        self._audio_from = audio_from
        self._file: RecordingFile | None = None
        self._container: OutputContainer | None = None
        self._encoder: VideoEncoder | None = None
        self._sound: SoundCopy | None = None
        self._timeline = Timeline()
        self._step_ns = 0
        self._end_ns = 0
        self._pictures = 0

    @property
    def description(self) -> str:
        return f"{self._path} ({self._encoder.note})" if self._encoder else str(self._path)

    def open(self, info: StreamInfo) -> None:
        """Raises UsageError when the container cannot hold the input's sound, OutputExistsError without ``force``."""
        refuse_existing(self._path, self._options.force)
        self._timeline = Timeline()
        self._step_ns = round(1e9 / (info.rate or 30))
        self._pictures = self._end_ns = 0
        self._file = RecordingFile(self._path)
        try:
            with self._writing():
                self._begin(info, self._file)
        except BaseException:
            self._abandon()
            raise

    def _begin(self, info: StreamInfo, file: RecordingFile) -> None:
        format_name, muxing = _CONTAINERS[self._path.suffix.lower()]
        sound_of = self._audio_from
        clock = VIDEO_CLOCK
        if format_name == "mp4":
            clock = clock if sound_of is None else _clock_of(sound_of)
            # Where pictures begin after 0 this is said in ticks of the film's own clock, of a millisecond if not told.
            muxing = muxing | {"movie_timescale": str(clock.denominator)}
        self._container = load_av().open(file, mode="w", format=format_name, container_options=muxing)
        codec = RECORDED[self._options.output_codec or "h264"]
        self._encoder = VideoEncoder(self._container, codec, info, self._options.output_bitrate, clock)
        if sound_of is not None:
            self._sound = SoundCopy(sound_of, self._container, str(self._path))
        self._container.start_encoding()

    def write(self, emission: Emission) -> None:
        """Raises DiskFullError; what was recorded until then is closed and in its place by ``close``."""
        if self._encoder is None:
            raise UsageError(f"{self._path} is not open")
        due_ns = self._timeline.place(emission)
        self._end_ns = due_ns + self._step_ns
        with self._writing():
            if self._sound is not None:
                self._mux(self._sound.until(due_ns))
            self._mux(self._encoder.encode(emission.image, due_ns))
        self._pictures += 1

    def interrupt(self) -> None:
        """``write`` waits for nothing but the disk."""

    def close(self) -> None:
        """Write what the encoder holds and the rest of the sound. Without a single picture no file is left.

        Raises DiskFullError, SinkError; the file is closed and has its name all the same.
        """
        file, self._file = self._file, None
        if file is None:
            return
        steps: tuple[Callable[[], object], ...] = (self._finish, self._close_container, self._close_sound, file.close)
        failed = None if file.failure else self._first_failure(steps, file)
        if file.failure:
            self._first_failure(steps[1:], file)
        self._encoder = None
        if self._pictures:
            file.publish(force=self._options.force)
        else:
            file.discard()
        if failed is not None:
            raise failed

    def _first_failure(self, steps: Iterable[Callable[[], object]], file: RecordingFile) -> Exception | None:
        """Take every step, whatever becomes of the others."""
        first: Exception | None = None
        for step in steps:
            try:
                with self._writing(file):
                    step()
            except Exception as error:  # noqa: BLE001 -- raised by close, once everything is closed
                first = first or error
        return first

    def _finish(self) -> None:
        if self._encoder is None or not self._pictures:
            return
        self._mux(self._encoder.flush())
        if self._sound is not None:
            self._mux(self._sound.rest(self._end_ns))

    def _close_container(self) -> None:
        container, self._container = self._container, None
        if container is not None:
            container.close()

    def _close_sound(self) -> None:
        sound, self._sound = self._sound, None
        if sound is not None:
            sound.close()

    def _abandon(self) -> None:
        file, self._file = self._file, None
        if file is not None:
            self._first_failure((self._close_container, self._close_sound, file.close), file)
            file.discard()
        self._encoder = None

    def _mux(self, packets: Iterable[av.Packet[Any]]) -> None:
        if self._container is not None:
            for packet in packets:
                self._container.mux_one(packet)

    @contextmanager
    def _writing(self, file: RecordingFile | None = None) -> Iterator[None]:
        """FFmpeg's and the system's complaints as errors of ours."""
        pyav = load_av()
        file = file or self._file
        try:
            with filling_disk(self._path):
                yield
        except DiskFullError as error:
            raise self._full() from error
        except pyav.FFmpegError as error:
            if file is not None and file.failure is not None:
                raise self._full() from error
            raise sink_error(error, f"{self._path} cannot be written") from error

    def _full(self) -> DiskFullError:
        return DiskFullError(
            f"no space left to record to {self._path}",
            got=f"{self._pictures:,} pictures so far, which can be played",
            hint="free some space, or record elsewhere",
        )


def _clock_of(path: Path) -> Any:
    """The clock of the file's pictures, where an output can have the same."""
    with load_av().open(str(path), mode="r", metadata_errors="replace") as container:
        clock = container.streams.video[0].time_base
    return clock if clock and clock.numerator == 1 and clock.denominator <= _FASTEST_CLOCK else VIDEO_CLOCK
