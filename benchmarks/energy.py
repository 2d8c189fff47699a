"""Power while a row runs, from whatever sensor the machine lets anybody read (``runtime/sensors.py``)."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from ..runtime.sensors import Reading, Sensors
from .result import UNREADABLE, EnergyFigures

# The sensors of a PC are asked every 5 s (runtime/sensors.py): a mean needs several answers.
SECONDS = 20.0
_BETWEEN = 0.5


@dataclass
class _Sampler:
    """Reads the power now and then on a thread of its own while the block runs."""

    read: Callable[[], Reading]
    between: float
    watts: list[float] = field(default_factory=list)
    mode: str | None = None
    _ended: threading.Event = field(default_factory=threading.Event)

    def __enter__(self) -> _Sampler:
        self._thread = threading.Thread(target=self._work, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    def _work(self) -> None:
        while not self._ended.wait(self.between):
            reading = self.read()
            self.mode = reading.power_mode
            if reading.power_w is not None:
                self.watts.append(reading.power_w)


def measure_energy(
    once: Callable[[], object],
    frames: int,
    *,
    seconds: float = SECONDS,
    read: Callable[[], Reading] | None = None,
    between: float = _BETWEEN,
) -> EnergyFigures | str:
    """Run ``once``, which makes ``frames`` frames, over and over for ``seconds``; or say why that says nothing.

    The mean power is of the whole GPU or board, idle share and neighbours included: what the socket pays for.
    """
    read = read or Sensors().read
    if read().power_w is None:
        return UNREADABLE
    runs, started = 0, time.monotonic()
    with _Sampler(read, between) as sampler:
        while time.monotonic() - started < seconds:
            once()
            runs += 1
        taken = time.monotonic() - started
    if not sampler.watts:
        return f"{UNREADABLE}: the sensor gave nothing in {taken:.0f} s"
    watts = sum(sampler.watts) / len(sampler.watts)
    joules = watts * taken / (runs * frames)
    return EnergyFigures(
        round(watts, 3), round(joules, 4), round(1 / joules, 4) if joules else 0.0, round(taken, 2),
        len(sampler.watts), sampler.mode,
    )  # fmt: skip
