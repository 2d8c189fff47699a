"""A command of ours in a process of its own: how long it took, how much memory it held, and what it said."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

_SECONDS_BETWEEN_LOOKS = 0.2
_PAGE = 4096


@dataclass(frozen=True)
class Ran:
    """A command that ended with the code ``exit`` after ``seconds`` by the clock, ``cpu_seconds`` of the processors'.

    ``result`` is the JSON that it printed, which is the error's message for one that failed.

    ``peak_rss_bytes``: the largest sum of resident memory over the process and its descendants, seen every 0.2 s.
    """

    exit: int
    seconds: float
    cpu_seconds: float
    peak_rss_bytes: int
    result: dict[str, Any]

    @property
    def error(self) -> str | None:
        """What it said when it failed, on one line."""
        return None if self.exit == 0 else " ".join(str(self.result.get("message", f"exit code {self.exit}")).split())


@dataclass
class Watch:
    """The largest sum of resident memory, in bytes, over a process and its descendants, looked at every 0.2 s."""

    process: subprocess.Popen[str]
    peak: int = 0
    _ended: threading.Event = field(default_factory=threading.Event)

    def __enter__(self) -> Watch:
        self._thread = threading.Thread(target=self._look, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    def _look(self) -> None:
        while not self._ended.wait(_SECONDS_BETWEEN_LOOKS):
            self.peak = max(self.peak, sum(resident(pid) for pid in family(self.process.pid)))


def resident(pid: int) -> int:
    """Resident bytes of a process, file mappings included; 0 when it has ended."""
    try:
        return int(Path(f"/proc/{pid}/statm").read_text(encoding="ascii").split()[1]) * _PAGE
    except (OSError, IndexError):
        return 0


def family(pid: int) -> list[int]:
    """A process and its descendants, by /proc."""
    try:
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="ascii").split()
    except OSError:
        return [pid]
    return [pid, *(descendant for child in children for descendant in family(int(child)))]


def run_command(command: str, words: Sequence[str]) -> Ran:
    """``turbo-COMMAND WORDS --json`` to its end, whatever that is."""
    code = (
        f"import sys; sys.argv = ['turbo-{command}', *sys.argv[1:]]; from edgeturbo.cli.{command} import main; main()"
    )
    started, before = time.perf_counter(), _processor_time()
    process = subprocess.Popen(  # noqa: S603 -- our own interpreter, our own words
        [sys.executable, "-c", code, *words, "--json"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    with Watch(process) as watch:
        output, complaint = process.communicate()
    seconds = round(time.perf_counter() - started, 1)
    return Ran(
        process.returncode, seconds, round(_processor_time() - before, 1), watch.peak, _parsed(output, complaint)
    )


def _processor_time() -> float:
    """Of all children that have ended, and of theirs: neighbours do not count in it, as they do by the clock."""
    times = os.times()
    return times.children_user + times.children_system


def _parsed(output: str, complaint: str) -> dict[str, Any]:
    """The command's last line of JSON; what a process that died said instead, its last line."""
    for line in reversed(output.splitlines()):
        if line.startswith("{"):
            return dict(json.loads(line))
    last = complaint.strip().splitlines()[-1:] or ["its process said nothing; out of memory is likely"]
    return {"message": last[0]}
