"""``/metrics``: what a stream does, in Prometheus' words.

Counters are read from ``StreamStats`` when somebody asks; only the histograms are filled as frames go by (about a
microsecond each). Names follow Prometheus' conventions: base units, ``_total`` for counters.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from ..engines.errors import MissingComponentError
from .sensors import Sensors

if TYPE_CHECKING:
    from .stats import StreamStats

# Seconds. A frame of a camera lasts 0.033; a CPU may need tens of seconds for one.
_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.02, 0.033, 0.05, 0.075, 0.1, 0.15, 0.25, 0.5, 1.0, 2.5, 10.0, 60.0)
_STAGES = ("wait", "decode", "translate", "encode")
_AGES = {"age_in": "engine", "age_out": "sink"}


class Metrics:
    """Everything about one stream in a registry of its own. ``engine`` describes what runs it, by label."""

    def __init__(self, stats: StreamStats, engine: dict[str, str], sensors: Sensors | None = None) -> None:
        """Raises MissingComponentError without prometheus-client."""
        library = _library()
        self._stats = stats
        self._engine = engine
        self._sensors = sensors or Sensors()
        self._started = time.monotonic()
        self.registry = library.CollectorRegistry()
        self._stage = library.Histogram(
            "edgeturbo_stage_seconds", "Time of one stage for one frame.", ["stage"],
            buckets=_BUCKETS, registry=self.registry,
        )  # fmt: skip
        self._age = library.Histogram(
            "edgeturbo_frame_age_seconds", "Age of a frame since its capture.", ["at"],
            buckets=_BUCKETS, registry=self.registry,
        )  # fmt: skip
        self.registry.register(self)
        stats.listen(self._hear)

    def text(self) -> bytes:
        """The page, in Prometheus' text format."""
        return bytes(_library().generate_latest(self.registry))

    def collect(self) -> Iterator[Any]:
        """For the registry: counters and readings of this moment."""
        from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, InfoMetricFamily

        stats = self._stats
        yield InfoMetricFamily("edgeturbo_engine", "What translates the frames.", self._engine)
        frames = CounterMetricFamily("edgeturbo_frames", "Frames by what became of them.", labels=["outcome"])
        for outcome in ("captured", "translated", "reused", "emitted", "repeated"):
            frames.add_metric([outcome], getattr(stats, outcome))
        yield frames
        for name, text, counts in (
            ("dropped", "Captured frames that were not shown, by reason.", stats.dropped),
            ("bad_frames", "Pictures that broke in the network, by reason.", stats.bad_frames),
            ("source_faults", "What went wrong at the source and was survived, by reason.", stats.all_faults()),
        ):
            family = CounterMetricFamily(f"edgeturbo_{name}", text, labels=["reason"])
            for reason, count in sorted(dict(counts).items()):
                family.add_metric([reason], count)
            yield family
        yield CounterMetricFamily("edgeturbo_reconnects", "Times that the source came back.", stats.reconnects)
        for name, text, value in self._gauges():
            if value is not None:
                yield GaugeMetricFamily(f"edgeturbo_{name}", text, value)

    def _gauges(self) -> Iterator[tuple[str, str, float | None]]:
        stats, reading = self._stats, self._sensors.read()
        since = None if stats.last_emission_ns is None else (time.monotonic_ns() - stats.last_emission_ns) / 1e9
        yield "source_connected", "1 while the source delivers.", float(stats.connected)
        yield "fps", "New pictures a second, over the last ten.", stats.rate()
        yield "last_emission_age_seconds", "Since the last picture.", since
        yield "uptime_seconds", "Since the stream began.", time.monotonic() - self._started
        yield "resident_memory_bytes", "Of this process.", _resident()
        yield "temperature_celsius", "The hottest sensor.", reading.temperature_c
        yield "power_watts", "Into the module, or of the GPU.", reading.power_w
        yield "gpu_memory_bytes", "In use on the GPU, by all programs.", reading.gpu_memory_bytes
        yield "throttled", "1 while heat or power limits the clocks.", _number(reading.throttled)

    def _hear(self, name: str, seconds: float) -> None:
        if name in _STAGES:
            self._stage.labels(name).observe(seconds)
        elif name in _AGES:
            self._age.labels(_AGES[name]).observe(seconds)


def _library() -> Any:
    try:
        import prometheus_client
    except ImportError as error:
        raise MissingComponentError(
            "/metrics needs prometheus-client, which is not installed", hint='pip install "edgeturbo[service]"'
        ) from error
    return prometheus_client


def _resident() -> float | None:
    try:
        with open("/proc/self/statm", encoding="ascii") as stream:  # noqa: PTH123 -- asked for often; one call
            return int(stream.read().split()[1]) * 4096.0
    except OSError:
        return None


def _number(value: bool | None) -> float | None:
    return None if value is None else float(value)
