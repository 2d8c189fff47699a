"""Clips made on the spot: a bright square whose place tells the frame, with sound, at a steady or a variable rate."""

from __future__ import annotations

import struct
from fractions import Fraction
from pathlib import Path

import numpy as np
from edgeturbo.runtime.frame import Emission, Frame, Signal, StreamInfo
from edgeturbo.runtime.options import StreamOptions
from edgeturbo.runtime.sinks import open_sink
from edgeturbo.runtime.sources import open_source

CLOCK = Fraction(1, 15360)
INFO = StreamInfo(64, 48, 30.0, "a test")
FORCE = StreamOptions(force=True)

STEP = 512  # of the clock: 30 frames a second


def ticks(frames: int, *, variable: bool) -> list[int]:
    """When each frame is due: every third one comes late in a clip of variable rate."""
    steps = [STEP + 188 * (variable and i % 3 == 0) for i in range(frames)]
    return [sum(steps[:i]) for i in range(frames)]


def picture(index: int, width: int = 64, height: int = 48) -> np.ndarray:
    """Grey level ``8 * index`` (modulo 256) all over."""
    return np.full((height, width, 3), 8 * index % 256, np.uint8)


def index_of(image: np.ndarray) -> int:
    return round(float(image.mean()) / 8)


def make_clip(
    path: Path, frames: int = 20, *, variable: bool = False, sound: str | None = None, b_frames: int = 2
) -> Path:
    """H.264 of ``frames`` pictures of 64x48; ``sound`` names its codec."""
    import av

    due = ticks(frames, variable=variable)
    with av.open(str(path), mode="w") as container:
        video = container.add_stream("libx264", rate=30, options={"crf": "10", "bf": str(b_frames)})
        video.width, video.height, video.pix_fmt = 64, 48, "yuv420p"
        video.codec_context.time_base = CLOCK
        audio = container.add_stream(sound, rate=48000, layout="mono") if sound else None
        for index, tick in enumerate(due):
            frame = av.VideoFrame.from_ndarray(picture(index), format="rgb24")
            frame.pts, frame.time_base = tick, CLOCK
            container.mux(video.encode(frame))
        if audio is not None:
            add_sound(container, audio, float((due[-1] + STEP) * CLOCK))
        container.mux(video.encode(None))
    return path


def add_sound(container, audio, seconds: float) -> None:
    import av

    done = 0
    with av.open("sine=frequency=440:sample_rate=48000", format="lavfi") as source:
        for frame in source.decode(audio=0):
            frame.pts, frame.time_base = done, Fraction(1, 48000)
            done += frame.samples
            container.mux(audio.encode(frame))
            if done >= seconds * 48000:
                break
    container.mux(audio.encode(None))


def packets_of(path: Path, kind: str) -> list[tuple[bytes, Fraction]]:
    """Data and time in seconds of every packet, in the order of the file."""
    import av

    with av.open(str(path)) as container:
        found = [packet for packet in container.demux(**{kind: 0}) if packet.size]
        return [(bytes(packet), packet.pts * packet.time_base) for packet in found]


def times_of(path: Path) -> list[Fraction]:
    return sorted(time for _, time in packets_of(path, "video"))


def turn_clip(path: Path, a: int, b: int, c: int, d: int) -> None:
    """Write a display matrix into an MP4's track header (ISO/IEC 14496-12, 8.3.2)."""
    data = bytearray(path.read_bytes())
    matrix = data.index(b"tkhd") + 4 + 4 + 20 + 8 + 8
    numbers = [value << 16 for value in (a, b, 0, c, d, 0, 0, 0)] + [1 << 30]
    data[matrix : matrix + 36] = struct.pack(">9i", *numbers)
    path.write_bytes(data)


def all_frames(source) -> list[Frame]:
    frames = []
    with source:
        while (got := source.read(1.0)) is not Signal.EOS:
            assert isinstance(got, Frame), got
            frames.append(got)
    assert [frame.index for frame in frames] == list(range(len(frames)))
    return frames


def nanoseconds(due: list[int]) -> list[int]:
    return [round(tick * CLOCK * 1_000_000_000) for tick in due]


def quartered() -> np.ndarray:
    image = np.zeros((48, 64, 3), np.uint8)
    image[:24, :32], image[:24, 32:], image[24:, :32], image[24:, 32:] = 0, 80, 160, 240
    return image


def corners(image: np.ndarray) -> list[int]:
    """Grey levels, in tens of 80: upper left, upper right, lower left, lower right."""
    height, width = image.shape[:2]
    quarters = [(h, w) for h in (height // 4, 3 * height // 4) for w in (width // 4, 3 * width // 4)]
    return [round(int(image[h, w, 0]) / 80) for h, w in quarters]


def emission(index: int, image: np.ndarray | None = None, pts_ns: int | None = None) -> Emission:
    image = picture(index) if image is None else image
    return Emission(image, Frame(image, index, pts_ns, index * 33_333_333))


def play(sink, emissions, info: StreamInfo = INFO) -> None:
    with sink:
        sink.open(info)
        write_all(sink, emissions)


def write_all(sink, emissions) -> None:
    for item in emissions:
        sink.write(item)


def copy(source_path: Path, target: Path, options: StreamOptions = FORCE, frames: int | None = None) -> None:
    """A whole clip through source and sink, as the loop does it."""
    source, sink = open_source(str(source_path)), open_sink(str(target), options, audio_from=source_path)
    with source, sink:
        sink.open(source.info)
        done = 0
        while isinstance(frame := source.read(1), Frame) and done != frames:
            sink.write(Emission(frame.image, frame))
            done += 1


def images_of(path: Path) -> list[np.ndarray]:
    with open_source(str(path)) as source:
        images = []
        while (frame := source.read(1)) is not Signal.EOS:
            images.append(frame.image)
    return images
