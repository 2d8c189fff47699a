"""``python -m edgeturbo.benchmarks.stream``: what the loop around an engine costs, on the null engine.

Every figure stands beside its bar, and all come from one run. Nothing here needs a camera, a network or a GPU.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from .._console import Console
from ..engines.errors import GateError, SourceError
from ..engines.files import write_json
from ..engines.null import NullEngine
from ..runtime.allocator import keep_freed_frames
from ..runtime.frame import Emission, Frame, FrameSource, Signal
from ..runtime.options import StreamOptions
from ..runtime.persistent import PersistentSource
from ..runtime.sinks import open_sink
from ..runtime.sinks.null import NullSink
from ..runtime.sources import open_source
from ..runtime.sources.pattern import PatternSource
from ..runtime.stats import StreamStats
from ..runtime.stream import LoopOptions, Stream
from ..runtime.translator import Translator
from ..runtime.uri import parse_input
from .environment import finished, read_environment
from .latency import Latency
from .null_bundle import null_bundle
from .plain_loop import make_clip, plain_loop, plain_loop_rgb

if TYPE_CHECKING:
    from ..engines.base import Tensors

_SIZE = (1280, 720)
_CORES = 2
_THROUGHPUT_ROUNDS, _THROUGHPUT_FRAMES = 5, 1000
_AGE_ROUNDS, _AGE_SECONDS, _AGE_ENGINE_S = 2, 6.0, 0.050
_LATENCY_ROUNDS, _LATENCY_SECONDS, _LATENCY_ENGINE_S = 5, 4.0, 0.020
_SLEEPS = 100
# Outages from one that the first attempt ends to some at which the waits have grown as long as they get.
_OUTAGES_S = (0.05, 0.3, 0.7, 1.3, 2.1, 3.0, 4.2)
_CLIP_FRAMES, _CPU_ROUNDS = 150, 5

_BAR_FPS, _BAR_AGE, _BAR_RECONNECT_S, _BAR_LATENCY_MS, _BAR_CPU = 300.0, 1.2, 1.0, 3.0, 1.3


@dataclass(frozen=True)
class Figure:
    """``value`` is to be at least (``>=``), at most (``<=``) or below (``<``) ``bar``; ``samples`` say of what."""

    name: str
    value: float
    unit: str
    relation: str
    bar: float
    samples: dict[str, object]

    @property
    def met(self) -> bool:
        return {">=": self.value >= self.bar, "<=": self.value <= self.bar, "<": self.value < self.bar}[self.relation]

    def as_data(self) -> dict[str, object]:
        return {**asdict(self), "met": self.met}

    def __str__(self) -> str:
        verdict = "met" if self.met else "NOT MET"
        return f"{self.name}: {self.value:g} {self.unit} (bar {self.relation} {self.bar:g}): {verdict}"


class SleepingEngine(NullEngine):
    """The null engine that takes ``seconds`` as a device would, without the processor; ``took`` says how long."""

    def __init__(self, bundle_of: Translator, seconds: float) -> None:
        manifest = bundle_of.bundle.manifest
        super().__init__(manifest.inputs, manifest.outputs)
        self._seconds = seconds
        self.took: list[float] = []

    def _run(self, feeds: Tensors, out: Tensors | None) -> Tensors:
        started = time.perf_counter()
        time.sleep(self._seconds)
        results = super()._run(feeds, out)
        self.took.append(time.perf_counter() - started)
        return results


class AgeSink(NullSink):
    """Nowhere; ``ages`` are the seconds from each frame's capture to here, ``taken_ns`` when each came."""

    def __init__(self) -> None:
        super().__init__()
        self.ages: list[float] = []
        self.taken_ns: list[int] = []

    def write(self, emission: Emission) -> None:
        now = time.monotonic_ns()
        if not emission.repeated:
            self.ages.append((now - emission.frame.captured_ns) / 1e9)
            self.taken_ns.append(now)


class Outages(PatternSource):
    """A test picture that is away for each of ``outages`` seconds in turn, a second after it last came back."""

    def __init__(self, outages: Sequence[float]) -> None:
        super().__init__(parse_input("test://bars?size=64x64&rate=30"), StreamOptions())
        self._outages = iter(outages)
        self._away_at = time.monotonic() + 1.0
        self.back_at_ns: list[int] = []
        self._back_at = 0.0
        self.is_done = False

    def open(self) -> None:
        if time.monotonic() < self._back_at:
            raise SourceError("the test picture is away", reason="away")
        self._away_at = max(self._away_at, time.monotonic() + 1.0)
        super().open()

    def read(self, timeout: float) -> Frame | Signal:
        if time.monotonic() >= self._away_at and not self.is_done:
            outage = next(self._outages, None)
            self.is_done = outage is None
            if outage is not None:
                self._back_at = time.monotonic() + outage
                self.back_at_ns.append(int(self._back_at * 1e9))
                raise SourceError("the test picture went away", reason="away")
        return super().read(timeout)


def throughput(bundle: Path) -> Figure:
    """Unpaced test pictures at the engine's own size through the whole loop, on two cores, losing none.

    The fastest round counts: what others do on the machine can only slow a round down.
    """
    rates, cpu_ms = [], []
    with _on_cores(_CORES), Translator(bundle, engine="null") as translator:
        for _ in range(_THROUGHPUT_ROUNDS):
            uri = f"test://ball?size={_SIZE[0]}x{_SIZE[1]}&live=0&frames={_THROUGHPUT_FRAMES}"
            started, cpu = time.perf_counter(), time.process_time()
            stats = _play(open_source(uri), translator, NullSink(), LoopOptions(latest=False))
            rates.append(round(stats.emitted / (time.perf_counter() - started), 1))
            cpu_ms.append(round((time.process_time() - cpu) * 1e3 / stats.emitted, 3))
    samples: dict[str, object] = {"rounds_fps": rates, "rounds_cpu_ms_per_frame": cpu_ms, "cores": _CORES}
    return Figure("frames through the loop, null engine, 1280x720", max(rates), "frames/s", ">=", _BAR_FPS, samples)


def age(bundle: Path, rate: int) -> Figure:
    """A camera of ``rate`` frames/s into an engine that takes 50 ms: how old is what enters it, in camera intervals?

    The better round counts, as in ``throughput``.
    """
    options = LoopOptions(latest=True, duration=_AGE_SECONDS)
    rounds = []
    with _sleeping(bundle, _AGE_ENGINE_S) as (translator, _):
        for _round in range(_AGE_ROUNDS):
            found = _play(_camera(rate), translator, NullSink(), options).percentiles("age_in")
            if found is None:
                raise SourceError("the test camera gave no frame", reason="silent")
            rounds.append(vars(found))
    samples: dict[str, object] = {"rounds_age_ms": rounds, "interval_ms": round(1e3 / rate, 3), "engine_ms": 50}
    value = round(min(float(one["p95"]) for one in rounds) * rate / 1e3, 3)
    return Figure(f"age entering the engine, {rate} frames/s, p95", value, "intervals", "<=", _BAR_AGE, samples)


def added_latency(bundle: Path) -> Figure:
    """From when a frame was due at the camera until a sink has it, less what the engine took for it.

    The engine takes 20 ms and the camera's interval is 33, so no frame waits for the one before. The best round counts,
    as in ``throughput``; ``wakes_late_ms`` says how late this machine wakes any thread that sleeps.
    """
    rounds = []
    options = LoopOptions(latest=True, duration=_LATENCY_SECONDS)
    for _ in range(_LATENCY_ROUNDS):
        sink = AgeSink()
        with _sleeping(bundle, _LATENCY_ENGINE_S) as (translator, engine):
            _play(_camera(30), translator, sink, options)
        # By order: where a sink misses a frame the engine's times, all nearly alike, move by one.
        rounds.append(Latency.of([age - took for age, took in zip(sink.ages, engine.took, strict=False)]))
    samples: dict[str, object] = {"rounds_ms": [_described(one) for one in rounds], "wakes_late_ms": _lateness()}
    least = min(one.p95_ms for one in rounds)
    return Figure("added by the loop to the engine, p95", least, "ms", "<", _BAR_LATENCY_MS, samples)


def reconnect(bundle: Path) -> Figure:
    """From when a source can be opened again until its first picture is emitted: the longest of several outages."""
    source, sink = Outages(_OUTAGES_S), AgeSink()
    with Translator(bundle, engine="null") as translator:
        duration = sum(_OUTAGES_S) + 2.5 * len(_OUTAGES_S)
        _play(source, translator, sink, LoopOptions(latest=True, duration=duration))
    waits = [_first_after(sink.taken_ns, back) for back in source.back_at_ns]
    samples: dict[str, object] = {"outages_s": _OUTAGES_S, "until_a_picture_s": waits}
    return Figure("picture after the source is back, longest", max(waits), "s", "<=", _BAR_RECONNECT_S, samples)


def processor(bundle: Path, folder: Path) -> Figure:
    """Processor time for a clip, decoded and encoded by libx264, through the loop and through PyAV alone, in turns.

    PyAV alone converts each picture to an RGB array and back, as anything must that shows it to an engine;
    ``without_rgb`` says how much a loop takes that does not.
    """
    clip, out = folder / "clip.mp4", folder / "out.mp4"
    make_clip(clip, _SIZE, _CLIP_FRAMES)
    with Translator(bundle, engine="null") as translator:
        calls: dict[str, Callable[[], None]] = {
            "loop": lambda: _play_clip(clip, out, translator),
            "plain": lambda: plain_loop_rgb(clip, out),
            "without_rgb": lambda: plain_loop(clip, out),
        }
        cpu: dict[str, list[float]] = {name: [] for name in calls}
        for turn in range(-1, _CPU_ROUNDS):
            for name, call in calls.items():
                started = time.process_time()
                call()
                if turn >= 0:
                    cpu[name].append((time.process_time() - started) / _CLIP_FRAMES)
    by = {name: Latency.of(seconds).p50_ms for name, seconds in cpu.items()}
    samples: dict[str, object] = {"cpu_ms_per_frame": by, "without_rgb": round(by["loop"] / by["without_rgb"], 3)}
    ratio = round(by["loop"] / by["plain"], 3)
    return Figure("processor time beside plain PyAV, 1280x720 libx264", ratio, "times", "<=", _BAR_CPU, samples)


def measure_all(folder: Path, tell: Callable[[str], None] = lambda _: None) -> dict[str, object]:
    """All figures, as data; ``folder`` is for scratch files. Takes about two minutes."""
    environment = read_environment()
    keep_freed_frames()  # as runtime/live.py does
    bundle = null_bundle(folder / "null", *_SIZE).root
    figures: list[Figure] = []
    measurements: tuple[Callable[[], Figure], ...] = (
        lambda: throughput(bundle),
        lambda: age(bundle, 30),
        lambda: age(bundle, 60),
        lambda: added_latency(bundle),
        lambda: reconnect(bundle),
        lambda: processor(bundle, folder),
    )
    for measured in measurements:
        figures.append(measured())
        tell(str(figures[-1]))
    return {
        "environment": asdict(finished(environment)),
        "niceness": os.nice(0),
        "figures": [figure.as_data() for figure in figures],
    }


def _lateness() -> dict[str, float]:
    late = []
    for _ in range(_SLEEPS):
        started = time.perf_counter()
        time.sleep(_LATENCY_ENGINE_S)
        late.append(time.perf_counter() - started - _LATENCY_ENGINE_S)
    return _described(Latency.of(late))


def _described(latency: Latency) -> dict[str, float]:
    return {"n": latency.n, "p50": latency.p50_ms, "p95": latency.p95_ms, "p99": latency.p99_ms}


def _camera(rate: int) -> FrameSource:
    return open_source(f"test://bars?size={_SIZE[0]}x{_SIZE[1]}&rate={rate}")


def _play(source: FrameSource, translator: Translator, sink: NullSink, options: LoopOptions) -> StreamStats:
    stats = StreamStats()
    if source.live:
        source = PersistentSource(source, stats, seed=0)
    source.open()
    Stream(source, translator.translate_unguarded, [sink], options, stats).run()
    return stats


def _play_clip(clip: Path, out: Path, translator: Translator) -> None:
    source = open_source(str(clip))
    source.open()
    sink = open_sink(str(out), StreamOptions(force=True))
    Stream(source, translator.translate_unguarded, [sink], LoopOptions(latest=False), StreamStats()).run()


@contextmanager
def _sleeping(bundle: Path, seconds: float) -> Iterator[tuple[Translator, SleepingEngine]]:
    engine = SleepingEngine(Translator(bundle, engine="null"), seconds)
    with Translator(bundle, engine=engine) as translator:
        yield translator, engine


@contextmanager
def _on_cores(count: int) -> Iterator[None]:
    """Threads started inside run on ``count`` of this process' cores, where the system can say so (Linux)."""
    if not hasattr(os, "sched_setaffinity"):
        yield
        return
    allowed = os.sched_getaffinity(0)
    os.sched_setaffinity(0, sorted(allowed)[:count])
    try:
        yield
    finally:
        os.sched_setaffinity(0, allowed)


def _first_after(taken_ns: list[int], back_ns: int) -> float:
    """Seconds from ``back_ns`` to the first of ``taken_ns`` after it; infinite without one."""
    return min((round((taken - back_ns) / 1e9, 3) for taken in taken_ns if taken >= back_ns), default=float("inf"))


def main(json_file: Annotated[Path | None, typer.Option("--json", help="Write the figures here.")] = None) -> None:
    """Measure the loop and say which bars are met. Exit code 5 when one is not."""
    console = Console()
    with tempfile.TemporaryDirectory() as folder:
        results = measure_all(Path(folder), console.say)
    if json_file is not None:
        write_json(json_file, results, indent=2)
    if not all(figure["met"] for figure in results["figures"]):  # type: ignore[attr-defined]
        raise typer.Exit(GateError.exit_code)


if __name__ == "__main__":
    typer.run(main)
