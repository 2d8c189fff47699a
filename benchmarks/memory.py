"""A row's memory and loading time, in a process that does nothing else: ``python -m edgeturbo.benchmarks.memory``."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Optional

import typer

from .._console import Console
from ..engines._build_job import peak_rss_bytes
from ..engines._schema import SchemaError, decode
from ..engines.bundle import Bundle
from ..engines.device import gpu
from ..engines.errors import DeviceError
from ..export.base import DEFAULT_BASE
from .feeds import random_case
from .gpu_check.device import release_unused, used_bytes
from .result import MemoryFigures
from .rows import RowPlan, Setting, plan_row

_LIMIT_S = 1800.0


def measure_memory(setting: Setting, key: str) -> MemoryFigures:
    """Open the row ``key`` and run it once in a child process. Raises DeviceError when the child fails."""
    command = [sys.executable, "-m", "edgeturbo.benchmarks.memory", str(setting.bundle), key, "--base", setting.base]
    command += [] if setting.ckpt is None else ["--ckpt", str(setting.ckpt)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=_LIMIT_S)  # noqa: S603
    except subprocess.TimeoutExpired as error:
        raise DeviceError(f"measuring the memory of {key} did not end within {_LIMIT_S:g} s") from error
    try:
        return decode(MemoryFigures, json.loads(done.stdout.strip().splitlines()[-1]))
    except (IndexError, ValueError, SchemaError) as error:
        lines = (done.stderr or done.stdout).strip().splitlines()
        why = lines[-1][:300] if lines else f"exit code {done.returncode}"
        raise DeviceError(f"the process that measures the memory of {key} failed: {why}") from error


def opened_twice(row: RowPlan, bundle: Bundle) -> MemoryFigures:
    """In this process, which should be fresh: open ``row`` and run it once, twice over. The peak is of the first."""
    feeds = random_case(bundle).feeds
    # On a CPU nothing is loaded to ask: it would count as the row's own memory.
    kind = "cpu" if gpu() is None else "cuda"
    before = used_bytes(kind)
    seconds, peak, device = [], None, None
    for _ in range(2):
        started = time.perf_counter()
        with row.open(feeds) as subject:
            seconds.append(round(time.perf_counter() - started, 4))
            subject.engine.run(feeds)
            if peak is None:
                after = used_bytes(kind)
                device = None if before is None or after is None else after - before
                peak = peak_rss_bytes()
        release_unused()
    return MemoryFigures(peak or 0, seconds[0], seconds[1], device)


def main(
    bundle: Path,
    key: str,
    base: Annotated[str, typer.Option()] = DEFAULT_BASE,
    ckpt: Annotated[Optional[Path], typer.Option()] = None,  # noqa: UP045 -- Typer evaluates it on Python 3.10
) -> None:
    """Print the figures of one row as a line of JSON."""
    console = Console(as_json=True)
    with console.reporting_errors():
        figures = opened_twice(plan_row(Setting(bundle, ckpt, base), key), Bundle.open(bundle))
        console.result(asdict(figures))


if __name__ == "__main__":
    typer.run(main)
