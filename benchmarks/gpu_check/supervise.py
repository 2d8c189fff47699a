"""Runs a stage in a process of its own: one that hangs, crashes or runs out of memory takes no other with it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path

from ..commands import family
from ..environment import Environment, finished
from .options import CheckOptions
from .record import (
    DONE,
    FAILED,
    KILLED,
    NOT_RUN,
    RUNNING,
    SCHEMA_VERSION,
    StageRecord,
    folder_of,
    key_of,
    read_record,
    scrubbed,
    write_record,
)  # fmt: skip
from .stages import Stage

_SECONDS_TO_END = 15.0
_WORKER = f"{__package__}.worker"


@dataclass(frozen=True)
class Ended:
    """How a process ended: its exit code, negative for a signal; ``timed_out`` when it was we who ended it."""

    code: int
    seconds: float
    timed_out: bool


def run_stage(
    stage: Stage, options: CheckOptions, environment: Environment, *, again: bool
) -> tuple[StageRecord, bool]:
    """The stage's record, and whether it was measured now (False: it was finished before, by the same key).

    Whatever happens to the stage ends up in its record's ``state`` and ``reason``; nothing is raised for it. Raises
    InputError for an old record of another making, and what writing ``options.results`` raises.
    """
    path = folder_of(options, environment) / f"{stage.name}.json"
    key = key_of(stage.name, options, environment)
    earlier = read_record(path)
    if (
        earlier is not None
        and earlier.state == DONE
        and earlier.key == key
        and not again
        and stage.still_there(options)
    ):
        return earlier, False
    record = StageRecord(SCHEMA_VERSION, stage.name, RUNNING, None, key, 0.0, environment)
    reason = stage.problem(options)
    if reason is not None:
        record = replace(record, state=NOT_RUN, reason=reason)
        write_record(path, record)
        return record, True
    write_record(path, record)
    log = options.work / "logs" / f"{stage.name}.log"
    command = [sys.executable, "-m", _WORKER, stage.name, str(path), options.to_json()]
    ended = run_limited(command, log, options.limit_s)
    record = concluded(read_record(path) or record, ended, _last_line(log), options)
    write_record(path, record)
    return record, True


def concluded(record: StageRecord, ended: Ended, last_line: str, options: CheckOptions) -> StageRecord:
    """What the worker left, completed by how its process ended. A worker that spoke for itself is believed."""
    record = replace(record, seconds=round(ended.seconds, 1), environment=finished(record.environment))
    if ended.timed_out:
        reason = f"ended at the limit of {options.limit_s:g} s, with {len(record.rows)} rows finished"
        return replace(record, state=KILLED, reason=reason)
    if record.state != RUNNING:
        return record
    if ended.code < 0:
        name = signal.Signals(-ended.code).name if -ended.code in set(signal.Signals) else f"signal {-ended.code}"
        return replace(record, state=KILLED, reason=f"the stage's process was killed by {name}")
    reason = scrubbed(f"the stage's process ended with exit code {ended.code}: {last_line}", options)
    return replace(record, state=FAILED, reason=reason)


def run_limited(command: list[str], log: Path, limit_s: float) -> Ended:
    """Run ``command`` with its output in ``log``; at ``limit_s`` seconds it and all its descendants are ended."""
    log.parent.mkdir(parents=True, exist_ok=True)
    started = time.perf_counter()
    with log.open("wb") as output:
        process = subprocess.Popen(  # noqa: S603 -- our own module, and a list: no shell reads the paths
            command, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT, start_new_session=True,
            # `python -m` would else let modules in the user's current folder hide installed ones (Python 3.11+).
            env={**os.environ, "PYTHONSAFEPATH": "1"},
        )  # fmt: skip
        timed_out = False
        with _ending(process):
            try:
                process.wait(limit_s)
            except subprocess.TimeoutExpired:
                timed_out = True
    return Ended(process.returncode, time.perf_counter() - started, timed_out)


@contextmanager
def _ending(process: subprocess.Popen[bytes]) -> Iterator[None]:
    """Leave no process behind, also when we are interrupted: builders run in sessions of their own."""
    try:
        yield
    finally:
        if process.poll() is None:
            descendants = family(process.pid)[1:]
            process.terminate()
            with suppress(subprocess.TimeoutExpired):
                process.wait(_SECONDS_TO_END)
            process.kill()
            for pid in descendants:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            process.wait()


def _last_line(log: Path) -> str:
    lines = [line for line in log.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()]
    return lines[-1][:300] if lines else "it said nothing"


Say = Callable[[str], None]


def run_stages(
    stages: tuple[Stage, ...], options: CheckOptions, environment: Environment, say: Say, *, again: bool
) -> list[StageRecord]:
    """Run ``stages`` in order and say, in a sentence each, how they ended."""
    records = []
    for stage in stages:
        say(f"{stage.name}: {stage.about} …")
        record, fresh = run_stage(stage, options, environment, again=again)
        say(f"{stage.name}: {outcome(record, fresh)}")
        records.append(record)
    return records


def outcome(record: StageRecord, fresh: bool) -> str:
    if not fresh:
        return "finished before with the same code, options and machine; --again measures it again"
    rows = f", {len(record.rows)} rows" if record.rows else ""
    if record.state == DONE:
        return f"done in {record.seconds:.0f} s{rows}"
    return f"{record.state}{rows}: {record.reason}"
