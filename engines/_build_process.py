"""Runs the builder's process, hears what it says, ends it when we are interrupted, and puts its failure in words."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, cast

from . import device, errors
from .errors import BuildError, EdgeTurboError

_SECONDS_TO_END = 5.0
_LOG_LINES = 15


@dataclass(frozen=True)
class BuildProgress:
    """How far a build is.

    ``fraction``: of the builder's steps, not of its time (TensorRT for RTX spends most of that in one of the last
    steps, and is silent there; TensorRT 8.6 and OpenVINO count no steps at all); 0 to 1, never falls, and 1 is the
    last message of a build that succeeded. ``seconds`` since the builder's process began to work. ``peak_rss_bytes``:
    the most memory that process has held so far, None where the system does not say.
    """

    phase: str
    fraction: float
    seconds: float
    peak_rss_bytes: int | None


class Watch:
    """What the builder's process has said so far."""

    def __init__(self, report: Callable[[BuildProgress], None]) -> None:
        self._report = report
        self.last: BuildProgress | None = None
        self.built: dict[str, Any] | None = None
        self.failed: dict[str, str | None] | None = None

    def hear(self, line: str) -> None:
        if not line.endswith("\n"):
            return  # the process was killed while it wrote
        message = json.loads(line)
        event = message.pop("event")
        if event == "progress":
            self.last = BuildProgress(**message)
            self._report(self.last)
        elif event == "built":
            self.built = message
        elif event == "failed":
            self.failed = message


def run(command: list[str], log: IO[bytes], hear: Callable[[str], None]) -> int:
    """Run the builder's process to its end, or to ours; returns its exit code. ``hear`` is given each line it says."""
    try:
        # A session of its own: a terminal's Ctrl-C reaches us alone, and we end the builder, which could not itself.
        process = subprocess.Popen(  # noqa: S603 - our own module, and a list: no shell reads the paths
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=log,
            encoding="utf-8",
            start_new_session=True,
            # `python -m` would else let modules in the user's current folder hide installed ones (Python 3.11+).
            env={**os.environ, "PYTHONSAFEPATH": "1"},
        )
    except OSError as error:
        raise BuildError(f"cannot start the builder's process: {error.strerror}", got=_memory()) from error
    output = cast("IO[str]", process.stdout)  # it was asked for as a pipe
    with output:
        try:
            for line in output:
                hear(line)
            return process.wait()
        finally:
            _end(process)


def _end(process: subprocess.Popen[str]) -> None:
    try:
        process.terminate()
        with suppress(subprocess.TimeoutExpired):
            process.wait(_SECONDS_TO_END)
    finally:
        # Also when a second Ctrl-C cuts the waiting short.
        if process.poll() is None:
            process.kill()
            process.wait()


def failure(watch: Watch, code: int, log: Path, names: Mapping[str, str], generator_bytes: int) -> EdgeTurboError:
    """The error that the builder's process sent, or what its exit code tells, with where to read more.

    ``names``: of files, by the temporary names that they are written to, which the user does not know.
    """
    if watch.failed is not None:
        return _sent(watch.failed, log, names)
    hint = f"read {log}"
    if code >= 0:
        return BuildError(f"the engine builder ended with exit code {code}", got=_tail(log), hint=hint)
    name = signal.Signals(-code).name if -code in set(signal.Signals) else f"signal {-code}"
    likely = "out of memory is likely" if -code == getattr(signal, "SIGKILL", 9) else "a crash, or out of memory"
    return BuildError(
        f"the engine builder was killed by {name}: {likely}",
        expected=f"memory for three to four times the generator, which is {generator_bytes:,} bytes",
        got=f"{_held(watch.last)}; {_memory()}\n{_tail(log)}",
        hint=f"close other programs, or build on a machine with more memory; {hint}",
    )


def _sent(failed: Mapping[str, str | None], log: Path, names: Mapping[str, str]) -> EdgeTurboError:
    kind = getattr(errors, failed["error"] or "", BuildError)
    texts = {key: text and _known(text, names) for key, text in failed.items() if key != "error"}
    if issubclass(kind, BuildError):
        texts["got"] = f"{texts['got']}\n{_tail(log)}"
        texts["hint"] = f"read {log}"
    return kind(texts.pop("what") or "", **texts)


def _known(text: str, names: Mapping[str, str]) -> str:
    for temporary, name in names.items():
        text = text.replace(temporary, name)
    return text


def _held(last: BuildProgress | None) -> str:
    if last is None or last.peak_rss_bytes is None:
        return "the builder's memory is unknown"
    return f"the builder had held {last.peak_rss_bytes:,} bytes by '{last.phase}'"


def _memory() -> str:
    return str(device.memory() or "this machine's memory is unknown")


def _tail(log: Path) -> str:
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines()[-_LOG_LINES:]
    return "\n".join(["the log's last lines:", *lines]) if lines else "an empty log"
