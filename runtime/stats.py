"""What a stream has done: counts that add up, and how long each stage takes. Safe to read from any thread."""

from __future__ import annotations

import threading
import time
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .frame import Emission, FrameSource

# The newest so many samples of each timing are kept: percentiles are of these, however long a stream runs.
_KEPT = 4096
_RATE_SECONDS = 10.0

TIMINGS = ("wait", "decode", "translate", "encode", "age_in", "age_out")


@dataclass(frozen=True)
class Percentiles:
    """In milliseconds, of the newest samples, at most 4,096; ``count`` is of all that were ever taken."""

    count: int
    p50: float
    p95: float
    p99: float
    worst: float


@dataclass
class StreamStats:
    """``captured`` = ``emitted`` + all ``dropped`` + what is still under way: nothing is lost silently.

    ``emitted`` counts the pictures for captured frames that the first sink has taken, ``repeated`` the same picture or
    a card shown again while the source was away; ``translated`` and ``reused`` say how the former came about.
    ``bad_frames``: results of the engine that were no pictures (``guard.py``), by reason, whatever was done with them;
    they are among the ``translated``, and where the last good picture stood in, that is among the ``emitted``. It is
    nothing new, though: neither the rate, nor ages, nor ``last_new_ns``, nor the watchdog, which hears of ages, take
    it for a sign of life. Timings: ``translate`` is the engine and the host's work around it; ``age_in`` from capture
    to the engine, ``age_out`` from capture until a sink has taken the picture.
    """

    captured: int = 0
    translated: int = 0
    reused: int = 0
    emitted: int = 0
    repeated: int = 0
    reconnects: int = 0
    dropped: Counter[str] = field(default_factory=Counter)
    faults: Counter[str] = field(default_factory=Counter)
    bad_frames: Counter[str] = field(default_factory=Counter)
    connected: bool = False
    last_emission_ns: int | None = None
    last_new_ns: int | None = None

    def __post_init__(self) -> None:
        self._lock = threading.Lock()
        self._samples: dict[str, deque[float]] = {name: deque(maxlen=_KEPT) for name in TIMINGS}
        self._counts: Counter[str] = Counter()
        self._emissions: deque[int] = deque(maxlen=_KEPT)
        self._source: FrameSource | None = None
        self._listeners: list[Callable[[str, float], None]] = []

    def add(self, **counts: int) -> None:
        """Add to the plain counters: ``stats.add(captured=1)``."""
        with self._lock:
            for name, count in counts.items():
                setattr(self, name, getattr(self, name) + count)

    def took(self, emission: Emission, seconds: float) -> None:
        """The first sink has taken a picture, which lasted so many seconds."""
        now = time.monotonic_ns()
        self.last_emission_ns = now
        if emission.repeated:
            self.add(repeated=1)
            return
        self.add(emitted=1)
        if emission.stands_in:
            return
        self.last_new_ns = now
        self._emissions.append(now)
        self.time("encode", seconds)
        self.time("age_out", (now - emission.frame.captured_ns) / 1e9)

    def rate(self) -> float:
        """New pictures a second, over the last ten seconds or since the first."""
        now = time.monotonic_ns()
        recent = [taken for taken in tuple(self._emissions) if now - taken <= _RATE_SECONDS * 1e9]
        if len(recent) < 2:
            return 0.0
        return (len(recent) - 1) / max((now - recent[0]) / 1e9, 1e-9)

    def drop(self, reason: str, count: int = 1) -> None:
        """Frames that were captured and will not be seen, and why."""
        if count:
            with self._lock:
                self.dropped[reason] += count

    def bad(self, reason: str) -> None:
        """A result of the engine that is no picture, and why."""
        with self._lock:
            self.bad_frames[reason] += 1

    def fault(self, reason: str) -> None:
        """Something that went wrong at the source and was survived."""
        with self._lock:
            self.faults[reason] += 1

    def also(self, source: FrameSource) -> None:
        """Count what happens inside ``source``, too."""
        self._source = source

    def all_faults(self) -> dict[str, int]:
        """The stream's and its source's."""
        inside = self._source.faults if self._source is not None else {}
        with self._lock:
            return dict(self.faults + Counter(inside))

    def time(self, name: str, seconds: float) -> None:
        """One sample of a timing, in seconds. Whoever listens (a histogram of metrics) is told."""
        with self._lock:
            self._samples[name].append(seconds * 1e3)
            self._counts[name] += 1
            listeners = tuple(self._listeners)
        for hear in listeners:
            hear(name, seconds)

    def listen(self, hear: Callable[[str, float], None]) -> None:
        """Call ``hear(name, seconds)`` for every further sample, from the thread that took it."""
        with self._lock:
            self._listeners.append(hear)

    def percentiles(self, name: str) -> Percentiles | None:
        """Nearest-rank percentiles of one timing; None before its first sample."""
        with self._lock:
            samples, count = sorted(self._samples[name]), self._counts[name]
        if not samples:
            return None
        p50, p95, p99 = (samples[min(int(len(samples) * p), len(samples) - 1)] for p in (0.5, 0.95, 0.99))
        return Percentiles(count, round(p50, 3), round(p95, 3), round(p99, 3), round(samples[-1], 3))

    def summary(self) -> dict[str, Any]:
        """Everything as plain data, ready for JSON."""
        timings = {name: self.percentiles(name) for name in TIMINGS}
        faults = self.all_faults()
        with self._lock:
            counts = {
                name: getattr(self, name)
                for name in ("captured", "translated", "reused", "emitted", "repeated", "reconnects")
            }
            return {
                **counts,
                "dropped": dict(self.dropped),
                "faults": faults,
                "bad_frames": dict(self.bad_frames),
                "ms": {name: vars(found) for name, found in timings.items() if found is not None},
            }
