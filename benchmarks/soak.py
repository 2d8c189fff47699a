"""``make soak``: half a million frames through the loop while the source fails thousands of times; nothing may grow.

``python -m edgeturbo.benchmarks.soak [--frames N] [--json FILE]``
"""

from __future__ import annotations

import statistics
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, BinaryIO

import numpy as np
import typer

from .._console import Console
from ..engines.errors import GateError, SourceError, UsageError
from ..engines.files import write_json
from ..runtime.allocator import keep_freed_frames
from ..runtime.frame import Emission, Frame, FrameSource, Signal, StreamInfo
from ..runtime.persistent import Persistence, PersistentSource
from ..runtime.sinks.null import NullSink
from ..runtime.stats import StreamStats
from ..runtime.stream import LoopOptions, Stream
from ..runtime.translator import Translator
from .environment import finished, read_environment
from .null_bundle import null_bundle

if TYPE_CHECKING:
    from numpy.typing import NDArray

_SIZE, _OTHER_SIZE = (64, 64), (96, 48)
FRAMES = 500_000
_FRAMES_PER_EVENT = 40
_SAMPLES = 400
# What a sample may differ by from one quarter to another without anything leaking: an allocator's pages; the source
# open or closed at that moment.
_TOLERANCES = {"resident_kib": 2048, "descriptors": 1, "threads": 1}
# Without a pause between attempts: an hour of outages would measure nothing but patience.
_AT_ONCE = Persistence(first_wait=0.0, longest_wait=0.0)


class FailingSource(FrameSource):
    """A live source that reads zeros from a device and, every ``every`` frames, fails, ends or changes its size.

    Which of the three comes next goes round. Each ``open`` takes a file descriptor, which ``close`` gives back.
    """

    live = True

    def __init__(self, every: int = _FRAMES_PER_EVENT) -> None:
        self._every = every
        self._size = _SIZE
        self._device: BinaryIO | None = None
        self._delivered = 0
        self._events = 0
        self._is_due = False

    @property
    def info(self) -> StreamInfo:
        return StreamInfo(*self._size, None, "a source that fails")

    def open(self) -> None:
        self._device = open("/dev/zero", "rb", buffering=0)  # noqa: PTH123, SIM115 -- closed by close

    def read(self, timeout: float) -> Frame | Signal:  # noqa: ARG002 -- it never waits
        if self._device is None:
            raise UsageError("this source is not open")
        if self._is_due:
            return self._event()
        image = self._image(self._device)
        self._delivered += 1
        self._is_due = self._delivered % self._every == 0
        return Frame(image, self._delivered - 1, None, time.monotonic_ns())

    def interrupt(self) -> None:
        """``read`` never waits."""

    def close(self) -> None:
        device, self._device = self._device, None
        if device is not None:
            device.close()

    def _event(self) -> Signal:
        self._is_due = False
        self._events += 1
        kind = self._events % 3
        if kind == 0:
            self._size = _OTHER_SIZE if self._size == _SIZE else _SIZE
            return Signal.TIMEOUT
        if kind == 1:
            raise SourceError("the source failed, as it shall", reason="failed")
        return Signal.EOS

    def _image(self, device: BinaryIO) -> NDArray[np.uint8]:
        width, height = self._size
        image = np.empty((height, width, 3), np.uint8)
        device.readinto(image.data.cast("B"))  # type: ignore[attr-defined] # an unbuffered file has it
        return image


class WatchingSink(NullSink):
    """Nowhere; looks at this process' memory, descriptors and threads every ``every`` pictures."""

    def __init__(self, every: int) -> None:
        super().__init__()
        self._every = max(every, 1)
        self.samples: list[dict[str, int]] = []

    def write(self, emission: Emission) -> None:
        super().write(emission)
        if self.taken % self._every == 0:
            self.samples.append(_look())


@dataclass(frozen=True)
class Growth:
    """Medians of the second and of the last quarter of the run; ``flat``: no further apart than ``tolerance``."""

    second_quarter: float
    last_quarter: float
    tolerance: float

    @property
    def flat(self) -> bool:
        return self.last_quarter - self.second_quarter <= self.tolerance


@dataclass(frozen=True)
class SoakResult:
    """``counts`` are the stream's own (``StreamStats.summary``); ``growth`` is by what was watched."""

    frames: int
    seconds: float
    counts: dict[str, Any]
    growth: dict[str, Growth]

    @property
    def lost(self) -> int:
        """Frames that were captured and neither came out nor were counted as dropped: must be 0."""
        return int(self.counts["captured"] - self.counts["emitted"] - sum(self.counts["dropped"].values()))

    @property
    def passed(self) -> bool:
        return self.lost == 0 and all(growth.flat for growth in self.growth.values())

    def as_data(self) -> dict[str, object]:
        growth = {name: {**asdict(one), "flat": one.flat} for name, one in self.growth.items()}
        return {**asdict(self), "growth": growth, "lost": self.lost, "passed": self.passed}


def soak(frames: int, source: FrameSource | None = None, sink: WatchingSink | None = None) -> SoakResult:
    """``frames`` pictures through the real loop and the null engine at 64x64; every captured frame is translated.

    ``source`` and ``sink`` take the place of FailingSource and WatchingSink. Raises what the stream raises.
    """
    sink = sink or WatchingSink(frames // _SAMPLES)
    stats = StreamStats()
    persistent = PersistentSource(source or FailingSource(), stats, _AT_ONCE, seed=0)
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        bundle = null_bundle(Path(folder) / "null", *_SIZE)
        with Translator(bundle.root, engine="null") as translator:
            persistent.open()
            options = LoopOptions(latest=False, max_frames=frames)
            Stream(persistent, translator.translate_unguarded, [sink], options, stats).run()
    seconds = round(time.monotonic() - started, 1)
    return SoakResult(stats.emitted, seconds, stats.summary(), _growth(sink.samples))


def _growth(samples: list[dict[str, int]]) -> dict[str, Growth]:
    quarter = len(samples) // 4
    if quarter < 1:
        raise UsageError("too few frames to see growth", expected="at least 4", hint="--frames 20000")
    medians = [
        {name: statistics.median(sample[name] for sample in part) for name in _TOLERANCES}
        for part in (samples[quarter : 2 * quarter], samples[-quarter:])
    ]
    return {name: Growth(medians[0][name], medians[1][name], limit) for name, limit in _TOLERANCES.items()}


def _look() -> dict[str, int]:
    """Resident memory as ``VmRSS`` of proc(5), in KiB, which the kernel keeps exact to some pages."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    resident = next(line for line in status.splitlines() if line.startswith("VmRSS:"))
    descriptors = sum(1 for _ in Path("/proc/self/fd").iterdir())
    return {"resident_kib": int(resident.split()[1]), "descriptors": descriptors, "threads": threading.active_count()}


def main(
    frames: Annotated[int, typer.Option(min=1000, help="How many pictures.")] = FRAMES,
    json_file: Annotated[Path | None, typer.Option("--json", help="Write the result here.")] = None,
) -> None:
    """Soak the loop. Exit code 5 when something grew or a frame was lost without being counted."""
    environment = read_environment()
    keep_freed_frames()  # as runtime/live.py does
    result = soak(frames)
    if json_file is not None:
        data = {"environment": asdict(finished(environment)), **result.as_data()}
        write_json(json_file, data, indent=2)
    say: Callable[[str], None] = Console().say
    say(f"{result.frames:,} frames, {result.counts['reconnects']:,} reconnects, {result.seconds:.0f} s")
    for name, growth in result.growth.items():
        say(f"{name}: {growth.second_quarter:g} -> {growth.last_quarter:g}: {'flat' if growth.flat else 'GREW'}")
    if not result.passed:
        raise typer.Exit(GateError.exit_code)


if __name__ == "__main__":
    typer.run(main)
