"""How many frames a second several streams get out of one machine together, and what the camera loop does with one."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from contextlib import ExitStack, suppress
from typing import TYPE_CHECKING

from ..engines.select import open_engine
from ..runtime.persistent import PersistentSource
from ..runtime.sinks.null import NullSink
from ..runtime.sources import open_source
from ..runtime.stats import StreamStats
from ..runtime.stream import LoopOptions, Stream
from ..runtime.translator import Translator
from .result import StreamFigures, ThroughputFigure

if TYPE_CHECKING:
    from ..engines.base import Engine, Tensors
    from ..engines.select import Choice

STREAMS = (1, 2)
SECONDS = 5.0
_CAMERA = (1280, 720)
_AGES = ("age_in", "age_out")


def measure_throughput(
    choice: Choice, feeds: Tensors, *, streams: tuple[int, ...] = STREAMS, seconds: float = SECONDS
) -> tuple[ThroughputFigure, ...]:
    """For each of ``streams``, that many engines of ``choice``, each on a thread of its own, all at once.

    Every engine holds the network's memory again: what several cameras on one machine really take.
    """
    batch = choice.bundle.manifest.model.batch
    figures = []
    for count in streams:
        with ExitStack() as stack:
            engines = [stack.enter_context(open_engine(choice)) for _ in range(count)]
            frames, taken = run_together(engines, feeds, seconds)
        figures.append(ThroughputFigure(count, batch, round(frames * batch / taken, 3), round(taken, 3)))
    return tuple(figures)


def run_together(engines: list[Engine], feeds: Tensors, seconds: float) -> tuple[int, float]:
    """Run open ``engines`` at once, over and over for ``seconds``, each once unmeasured before: runs ended, seconds.

    A run counts when it ends; the clock stops when the last has ended. Raises what an engine raises.
    """
    failures: list[BaseException] = []
    done = [0] * len(engines)
    ready = threading.Barrier(len(engines) + 1)
    ends_at = [0.0]

    def work(number: int, engine: Engine) -> None:
        try:
            engine.run(feeds)
            ready.wait()
            while time.perf_counter() < ends_at[0]:
                engine.run(feeds)
                done[number] += 1
        except BaseException as error:  # noqa: BLE001 -- raised again below, on the thread that asked
            failures.append(error)
            ready.abort()

    threads = [threading.Thread(target=work, args=pair) for pair in enumerate(engines)]
    ends_at[0] = float("inf")
    for thread in threads:
        thread.start()
    started = _begin(ready)
    ends_at[0] = started + seconds
    for thread in threads:
        thread.join()
    if failures:
        raise failures[0]
    return sum(done), time.perf_counter() - started


def _begin(ready: threading.Barrier) -> float:
    # Broken: an engine failed before it was ready, and the caller raises what it raised.
    with suppress(threading.BrokenBarrierError):
        ready.wait()
    return time.perf_counter()


def measure_stream(
    translator: Translator, *, rate: float, seconds: float, tell: Callable[[str], None] = lambda _: None
) -> StreamFigures:
    """A test camera of 1280x720 and ``rate`` frames a second into the loop that ``turbo-run`` has, for ``seconds``."""
    tell(f"stream, {rate:g} frames a second for {seconds:g} s")
    stats = StreamStats()
    source = PersistentSource(open_source(f"test://ball?size={_CAMERA[0]}x{_CAMERA[1]}&rate={rate:g}"), stats, seed=0)
    source.open()
    started = time.monotonic()
    options = LoopOptions(latest=True, duration=seconds, judge=translator.fault_of)
    Stream(source, translator.translate_unguarded, [NullSink()], options, stats).run()
    taken = time.monotonic() - started
    ages = [percentiles and (percentiles.p50, percentiles.p95) for percentiles in map(stats.percentiles, _AGES)]
    (in_50, in_95), (out_50, out_95) = (pair or (None, None) for pair in ages)
    return StreamFigures(
        rate, round(taken, 3), stats.captured, stats.emitted, dict(stats.dropped), round(stats.emitted / taken, 3),
        in_50, in_95, out_50, out_95,
    )  # fmt: skip
