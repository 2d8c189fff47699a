"""What ``build.py`` and the process that it starts both know: the job, its flags, and the messages about it."""

from __future__ import annotations

import json
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .errors import UsageError

# A large network has thousands of steps; more than a few hundred messages show nobody anything.
_SMALLEST_ADVANCE = 0.005

_PATHS = ("onnx", "plan")
_NUMBERS = ("workspace_bytes", "tactic_memory_bytes", "optimization_level")
_FLAGS = {
    "--backend": "backend",
    "--onnx": "onnx",
    "--plan": "plan",
    "--target": "targets",
    "--workspace-bytes": "workspace_bytes",
    "--tactic-memory-bytes": "tactic_memory_bytes",
    "--optimization-level": "optimization_level",
    "--timing-cache": "timing_cache",
    "--new-timing-cache": "new_timing_cache",
    "--precision": "precision",
    "--fp32-island": "fp32_islands",
    "--hint": "hints",
}


@dataclass(frozen=True)
class Job:
    """What to build. Paths are relative to the working directory; the rest is as in ``build.BuildRequest``.

    ``new_timing_cache``: where to write the timing cache that came of this build; None writes none.
    """

    backend: str
    onnx: Path
    plan: Path
    targets: tuple[str, ...]
    workspace_bytes: int | None = None
    tactic_memory_bytes: int | None = None
    optimization_level: int | None = None
    timing_cache: Path | None = None
    new_timing_cache: Path | None = None
    precision: str = "fp16"
    fp32_islands: tuple[str, ...] = ()
    hints: Mapping[str, str] = field(default_factory=dict)


def flags(job: Job) -> list[tuple[str, str]]:
    """``job`` as the flags and values that ``parse`` reads; a field that is as it is without a flag has none."""
    default = Job("", Path(), Path(), ())
    return [
        (flag, text)
        for flag, name in _FLAGS.items()
        if getattr(job, name) != getattr(default, name)
        for text in _texts(getattr(job, name))
    ]


def parse(arguments: Sequence[str]) -> Job:
    """The job that ``--flag value`` pairs describe. Raises UsageError."""
    if len(arguments) % 2:
        raise UsageError(f"{arguments[-1]} stands alone", expected="--flag value pairs")
    values: dict[str, list[str]] = {}
    for flag, value in zip(arguments[::2], arguments[1::2], strict=True):
        if flag not in _FLAGS:
            raise UsageError(f"no flag {flag}", expected=", ".join(_FLAGS))
        values.setdefault(_FLAGS[flag], []).append(value)
    missing = [flag for flag in ("--backend", "--onnx", "--plan", "--target") if _FLAGS[flag] not in values]
    if missing:
        raise UsageError(f"a build needs {', '.join(missing)}", expected=", ".join(_FLAGS))
    return Job(**{name: _value(name, texts) for name, texts in values.items()})


def _texts(value: object) -> list[str]:
    if isinstance(value, Mapping):
        return [f"{key}={text}" for key, text in value.items()]
    return list(value) if isinstance(value, tuple) else [str(value)]


def _value(name: str, texts: list[str]) -> Any:
    if name in ("targets", "fp32_islands"):
        return tuple(texts)
    if name == "hints":
        return dict(text.split("=", 1) for text in texts)
    if name in _NUMBERS:
        return int(texts[-1])
    return Path(texts[-1]) if name in _PATHS or name.endswith("timing_cache") else texts[-1]


def send(event: str, **fields: Any) -> bool:
    """Write one message to standard output. False when nobody listens any more."""
    try:
        sys.stdout.write(json.dumps({"event": event, **fields}) + "\n")
        sys.stdout.flush()
    except OSError:
        return False
    return True


class Progress:
    """Turns a builder's nested phases into one fraction that never falls. Called from several threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._start = time.monotonic()
        self._sent = 0.0
        self._parents: dict[str, str | None] = {}
        self._steps: dict[str, int] = {}
        self._done: dict[str, int] = {}

    def phase(self, name: str) -> bool:
        """A phase outside the builder: reading before it, writing and checking after. False as in ``advance``."""
        return self._report(name, self._sent)

    def begin(self, name: str, parent: str | None, steps: int) -> None:
        """The builder begins a phase of ``steps`` steps, as one step of phase ``parent``."""
        with self._lock:
            self._parents[name], self._steps[name], self._done[name] = parent, max(steps, 1), 0
            self._report(name, self._sent)

    def advance(self, name: str, step: int) -> bool:
        """Step number ``step`` of a phase is done. False when nobody listens any more: the build is to stop."""
        with self._lock:
            self._done[name] = step + 1
            fraction = self._fraction(name)
            return fraction < self._sent + _SMALLEST_ADVANCE or self._report(name, fraction)

    def _fraction(self, name: str) -> float:
        fraction = 0.0
        for phase in self._upwards(name):
            fraction = min((self._done[phase] + fraction) / self._steps[phase], 1.0)
        return fraction

    def _upwards(self, name: str) -> Iterator[str]:
        phase: str | None = name
        while phase is not None and phase in self._steps:
            yield phase
            phase = self._parents[phase]

    def _report(self, phase: str, fraction: float) -> bool:
        self._sent = fraction
        seconds = time.monotonic() - self._start
        return send("progress", phase=phase, fraction=self._sent, seconds=seconds, peak_rss_bytes=peak_rss_bytes())


def peak_rss_bytes() -> int | None:
    """The most memory this process has held, in bytes; None where the system does not say (not Linux).

    Not ``getrusage``: its figure begins with that of the process which started this one.
    """
    try:
        status = Path("/proc/self/status").read_text(encoding="ascii")
    except OSError:
        return None
    for line in status.splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    return None
