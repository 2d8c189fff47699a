"""``python -m edgeturbo.benchmarks.cpu_sizes``: SD-Turbo's true size on a CPU, engine beside engine, size by size.

The generator has ``make full-size``'s random weights: times and memory are real, the pictures mean nothing. Every row
takes its turn in a process of its own, A B C A B C, so that no engine's threads or memory are there when another is
measured. Turns are kept in WORK/turns.json as they end: what was interrupted goes on, and nothing is repeated.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

import typer

from .._console import Console
from ..engines.errors import DeviceError, UsageError
from ..engines.files import write_json
from ..engines.frame_layout import size_of
from .apart import call_apart
from .cpu_sizes_report import summarise
from .cpu_sizes_rows import ROWS, Case, Turn, take_turn, write_graphs
from .environment import finished, read_environment

RESULTS = "cpu_sizes.json"
_TURNS = "turns.json"


@dataclass(frozen=True)
class Plan:
    """What to measure: every row of ``rows`` at every size, ``rounds`` times; each turn runs ``warmup`` frames
    unmeasured and ``runs`` measured."""

    sizes: tuple[tuple[int, int], ...]
    rows: tuple[str, ...]
    rounds: int = 3
    runs: int = 1
    warmup: int = 1

    def __post_init__(self) -> None:
        unknown = [row for row in self.rows if row not in ROWS]
        if unknown:
            raise UsageError("--row names what is not known", expected=", ".join(ROWS), got=", ".join(unknown))


def main(  # noqa: PLR0913, PLR0917 -- each is an option of the command
    work: Annotated[
        Path, typer.Option(help="Holds base/ and cyclegan.pkl of `make full-size`; takes 6 GB more.")
    ] = Path("full-size"),
    results: Annotated[Path, typer.Option(help="Where to put the figures.")] = Path("benchmarks/results"),
    size: Annotated[list[str] | None, typer.Option(metavar="WxH", help="Default: 512x512.")] = None,
    row: Annotated[list[str] | None, typer.Option(help=f"Default: all of {', '.join(ROWS)}.")] = None,
    rounds: Annotated[int, typer.Option(help="Turns of every row.")] = 3,
    runs: Annotated[int, typer.Option(help="Measured frames in a turn.")] = 1,
    warmup: Annotated[int, typer.Option(help="Frames before them.")] = 1,
) -> None:
    """Measure the full-size generator on this CPU, and write down times, ratios, memory and how they grow."""
    console = Console()
    with console.reporting_errors():
        sizes = tuple(size_of(text, "--size") for text in size or ("512x512",))
        plan = Plan(sizes, tuple(row or ROWS), rounds, runs, warmup)
        console.say(str(record(console, work, results, plan)))


def record(console: Console, work: Path, results: Path, plan: Plan) -> Path:
    """Take the turns that are missing and write ``results``/cpu_sizes.json of all that were ever taken in ``work``."""
    environment = read_environment()
    turns = _read(work / _TURNS)
    for width, height in plan.sizes:
        case = Case(work, width, height)
        wanted = [(row, round_) for round_ in range(plan.rounds) for row in plan.rows]
        missing = [each for each in wanted if not any(turn.is_of(each[0], case, each[1]) for turn in turns)]
        write_graphs(case, tuple({row: None for row, _ in missing}), console.note)
        for row, round_ in missing:
            turns.append(_turn(case, row, round_, plan))
            console.note(f"{width}x{height}, round {round_ + 1}, {row}: {turns[-1]}")
            write_json(work / _TURNS, {"turns": [asdict(turn) for turn in turns]})
    found = {"environment": asdict(finished(environment)), **summarise(work, turns)}
    write_json(results / RESULTS, found)
    return results / RESULTS


def _turn(case: Case, row: str, round_: int, plan: Plan) -> Turn:
    try:
        return call_apart(take_turn, case, row, round_, plan.warmup, plan.runs)
    except DeviceError as error:
        return Turn(row, case.width, case.height, round_, note=str(error))


def _read(path: Path) -> list[Turn]:
    if not path.exists():
        return []
    listed = json.loads(path.read_text(encoding="utf-8"))["turns"]
    return [
        Turn(**{**turn, "seconds": tuple(turn["seconds"]), "cpu_seconds": tuple(turn["cpu_seconds"])})
        for turn in listed
    ]


if __name__ == "__main__":
    typer.run(main)
