"""A command of ours in a process of its own: how long it took, how much memory it held, and what it said."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from .full_size import Watch


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
