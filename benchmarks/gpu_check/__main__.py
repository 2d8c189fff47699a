"""``python -m edgeturbo.benchmarks.gpu_check``: runs the stages that are not finished yet, then makes the table."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Optional, cast

import typer

from ..._console import Console
from ...engines.errors import DeviceError, MissingComponentError, UsageError
from ..environment import Environment, read_environment
from ..performance_page import write_page
from .options import CheckOptions, Device, ModelSize
from .record import FAILED, KILLED, NOT_RUN, StageRecord, folder_of, name_of, read_record
from .report import gather, write_summary
from .stages import STAGES, stage_called
from .supervise import run_stages

_MODELS, _DEVICES = ("full", "tiny"), ("cuda", "cpu")


def main(  # noqa: PLR0913, PLR0917 -- the options are the signature
    work: Annotated[Path, typer.Option(help="Where weights, bundles and plans go: 15 GB for the full model.")],
    stage: Annotated[Optional[list[str]], typer.Option(help="Only this stage; may be repeated.")] = None,  # noqa: UP045
    model: Annotated[str, typer.Option(help="full (SD-Turbo's size, 512x512) or tiny (64x64: a proof).")] = "full",
    device: Annotated[str, typer.Option(help="cuda or cpu.")] = "cuda",
    runs: Annotated[int, typer.Option(help="Measured runs of everything.", min=1)] = 100,
    warmup: Annotated[int, typer.Option(help="Runs before those.", min=0)] = 10,
    results: Annotated[Path, typer.Option(help="Where the JSON files go.")] = Path("benchmarks/results"),
    docs: Annotated[Optional[Path], typer.Option(help="A Markdown page to put the table in.")] = None,  # noqa: UP045
    stage_limit: Annotated[float, typer.Option(help="Seconds after which a stage is ended.", min=0.1)] = 480.0,
    again: Annotated[bool, typer.Option("--again", help="Measure also what is finished.")] = False,
    list_: Annotated[bool, typer.Option("--list", help="Show the stages and their state, and run none.")] = False,
) -> None:
    """What the generator costs here: PyTorch, torch.compile, ONNX Runtime and TensorRT, measured in turns."""
    console = Console()
    with console.reporting_errors():
        options = CheckOptions(work, results, *_chosen(model, device), runs, warmup, stage_limit)
        environment = read_environment()
        if list_:
            _list(console, options, environment)
            return
        wanted = tuple(stage_called(name) for name in stage) if stage else STAGES
        work.mkdir(parents=True, exist_ok=True)
        records = run_stages(wanted, options, environment, console.note, again=again)
        for path in _report(options, environment, docs):
            console.say(str(path))
        _refuse_failure(records, work)


def _chosen(model: str, device: str) -> tuple[ModelSize, Device]:
    if model not in _MODELS:
        raise UsageError("no such model", expected=", ".join(_MODELS), got=model)
    if device not in _DEVICES:
        raise UsageError("no such device", expected=", ".join(_DEVICES), got=device)
    return cast("ModelSize", model), cast("Device", device)


def _list(console: Console, options: CheckOptions, environment: Environment) -> None:
    folder = folder_of(options, environment)
    for stage in STAGES:
        record = read_record(folder / f"{stage.name}.json")
        state = record.state if record else "not begun"
        console.say(f"{stage.name:22} {state:10} {stage.about}")


def _report(options: CheckOptions, environment: Environment, docs: Path | None) -> list[Path]:
    name = name_of(options, environment)
    records = gather(folder_of(options, environment))
    summary = options.results / f"{name}.json"
    write_summary(summary, records, options)
    if docs is None:
        return [summary]
    return [summary, *write_page(docs, options.results)]


def _refuse_failure(records: list[StageRecord], work: Path) -> None:
    """So that a script can tell: nothing is hidden by the stages that went well."""
    broken = [record.stage for record in records if record.state in (FAILED, KILLED)]
    if broken:
        raise DeviceError(
            f"{len(broken)} stages did not finish: {', '.join(broken)}", hint=f"read {work / 'logs'}, and run it again"
        )
    if records and all(record.state == NOT_RUN for record in records):
        raise MissingComponentError("no stage could run here", got=records[0].reason)


if __name__ == "__main__":
    typer.run(main)
