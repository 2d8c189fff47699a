"""The commands as a user types them, in this process: an import of torch for each would take most of the time."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from edgeturbo.cli import bench, build, export, inspect, run

_COMMANDS = {
    "turbo-export": export.main,
    "turbo-build": build.main,
    "turbo-run": run.main,
    "turbo-bench": bench.main,
    "turbo-inspect": inspect.main,
}


@dataclass(frozen=True)
class Ended:
    """How a command ended and what it printed."""

    code: int
    out: str
    err: str


Turbo = Callable[..., Ended]


def terminal(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Turbo:
    """``turbo("turbo-run", "bundle", "frame.jpg")``."""

    def turbo(*words: str | Path) -> Ended:
        monkeypatch.setattr(sys, "argv", [str(word) for word in words])
        capfd.readouterr()
        with pytest.raises(SystemExit) as end:
            _COMMANDS[str(words[0])]()
        printed = capfd.readouterr()
        return Ended(int(end.value.code or 0), printed.out, printed.err)

    return turbo
