"""The sound of the input file, copied packet by packet beside the new pictures."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...engines.errors import UsageError
from ..pyav import load_av
from ..sources.decode import origin_ns_of, video_stream

if TYPE_CHECKING:
    import av
    from av.container import InputContainer, OutputContainer
    from av.stream import Stream

_NS = 1_000_000_000
# Of the film's length: pictures are known to be complete when the last one lasts to within this of its end.
_LAST_PICTURE_NS = 500_000_000


class SoundCopy:
    """Every sound track of ``path`` goes to ``output``, its packets and times as they are; nothing is decoded.

    Raises UsageError when the output's container cannot hold a track's codec.
    """

    def __init__(self, path: Path, output: OutputContainer, output_name: str) -> None:
        self._input: InputContainer = load_av().open(str(path), mode="r", metadata_errors="replace")
        try:
            self.clock = video_stream(self._input, str(path)).time_base
            self._film_ns = self._length_ns()
            self._origin_ns = origin_ns_of(self._input)
            self._tracks = {
                stream.index: _Track(stream, path, output, output_name) for stream in self._input.streams.audio
            }
            self._packets = self._demuxed()
            self._ahead = next(self._packets, None)
        except BaseException:
            self._input.close()
            raise

    def until(self, due_ns: int) -> Iterator[av.Packet[Any]]:
        """The packets that start before ``due_ns``, ready to be muxed, in their order."""
        while self._ahead is not None and self._start_ns(self._ahead) < due_ns:
            packet, self._ahead = self._ahead, next(self._packets, None)
            yield from self._tracks[packet.stream_index].fitted(self._moved(packet))

    def rest(self, end_ns: int) -> Iterator[av.Packet[Any]]:
        """What is left, when the pictures last to ``end_ns``: all of it after the last picture of the film; when the
        pictures end early, the sound does too."""
        whole = self._film_ns is None or end_ns >= self._film_ns - _LAST_PICTURE_NS
        yield from self.until(1 << 62 if whole else end_ns)

    def close(self) -> None:
        self._input.close()

    def _length_ns(self) -> int | None:
        stream = self._input.streams.video[0]
        if stream.duration and stream.time_base:
            length_ns: int = round(stream.duration * stream.time_base * _NS)
            return length_ns
        return self._input.duration * 1000 if self._input.duration else None

    def _demuxed(self) -> Iterator[av.Packet[Any]]:
        if not self._tracks:
            return
        for packet in self._input.demux(*self._input.streams.audio):
            if packet.size:  # the last one is empty
                yield packet

    def _start_ns(self, packet: av.Packet[Any]) -> int:
        ticks = packet.dts if packet.pts is None else packet.pts
        start_ns: int = round((ticks or 0) * packet.time_base * _NS)
        return start_ns - self._origin_ns

    def _moved(self, packet: av.Packet[Any]) -> av.Packet[Any]:
        """Counted from the film's start."""
        shift = round(Fraction(self._origin_ns, _NS) / packet.time_base)
        if packet.pts is not None:
            packet.pts -= shift
        if packet.dts is not None:
            packet.dts -= shift
        return packet


class _Track:
    """One track of the output. AAC in ADTS frames, as in MPEG-TS, is taken out of them: MP4 wants it bare."""

    def __init__(self, stream: Stream, path: Path, output: OutputContainer, output_name: str) -> None:
        self._stream = _added(stream, output, output_name)
        self._filter: Any = None
        context = stream.codec_context
        if context.name == "aac" and not context.extradata:
            header = _first_packet(path, stream.index)
            self._stream.codec_context.extradata = _audio_specific_config(header)
            self._filter = load_av().bitstream.BitStreamFilterContext("aac_adtstoasc", stream)

    def fitted(self, packet: av.Packet[Any]) -> list[av.Packet[Any]]:
        packets = [packet] if self._filter is None else self._filter.filter(packet)
        for each in packets:
            each.stream = self._stream
        return packets


def _first_packet(path: Path, index: int) -> bytes:
    with load_av().open(str(path), mode="r", metadata_errors="replace") as container:
        return bytes(next(container.demux(container.streams[index])))


def _audio_specific_config(adts: bytes) -> bytes:
    """From an ADTS frame's header (ISO/IEC 14496-3, table 1.A.5) what MP4 keeps beside the packets (table 1.15)."""
    profile = (adts[2] >> 6) + 1
    rate_index = adts[2] >> 2 & 0b1111
    channels = (adts[2] & 1) << 2 | adts[3] >> 6
    return (profile << 11 | rate_index << 7 | channels << 3).to_bytes(2, "big")


def _added(stream: Stream, output: OutputContainer, output_name: str) -> Stream:
    try:
        return output.add_stream_from_template(stream)
    except ValueError as error:
        codec = stream.codec_context.name if stream.codec_context else "unknown"
        raise UsageError(
            f"{output_name} cannot hold the sound of the input",
            got=f"a track of {codec}",
            hint="name the output .mkv, which holds any",
        ) from error
