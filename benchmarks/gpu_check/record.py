"""What a stage leaves: one JSON file, rewritten after every row, so that a stage that is ended keeps what it had."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path

from ...engines._schema import SchemaError, decode, encode
from ...engines.errors import InputError
from ...engines.files import write_json
from ...engines.manifest import GoldenParity
from ..environment import Environment
from ..latency import Latency, Ratio
from .options import CheckOptions

SCHEMA_VERSION = 1

# The states of a stage. RUNNING in a file of a process that is gone means that it was ended from outside.
DONE, NOT_RUN, FAILED, KILLED, RUNNING = "done", "not run", "failed", "killed", "running"


@dataclass(frozen=True)
class Row:
    """One way to run the generator.

    ``engine``: the network alone; ``engine_clock`` says in words what that spans. ``frame``: frame in to image out in
    host memory, at the model's size, ``frame_hd`` with a 1280x720 frame. ``ratio`` and ``frame_ratio``: how many times
    as long the common row takes, which ran in turns with this one; None for the common row itself.
    ``device_bytes``: GPU memory taken, None where there is none. ``parity``: against unmerged FP32 PyTorch.
    """

    name: str
    backend: str
    precision: str
    engine: Latency
    engine_clock: str
    frame: Latency
    frame_hd: Latency
    ratio: Ratio | None
    frame_ratio: Ratio | None
    device_bytes: int | None
    parity: GoldenParity | None
    facts: dict[str, str]


@dataclass(frozen=True)
class StageRecord:
    """``key`` is what a finished stage is known by: when it changes, the stage is measured again.

    ``common`` names the row that every stage repeats, None for stages that time nothing. ``figures`` are what a stage
    found besides rows (TFLOP/s, seconds, bytes), by names that carry their unit; ``notes`` are sentences.
    """

    schema_version: int
    stage: str
    state: str
    reason: str | None
    key: dict[str, str]
    seconds: float
    environment: Environment
    common: str | None = None
    rows: tuple[Row, ...] = ()
    figures: dict[str, float] | None = None
    notes: tuple[str, ...] = ()


def key_of(stage: str, options: CheckOptions, environment: Environment) -> dict[str, str]:
    """What must be the same for a stage's figures to stand: the code, the model, the options and the machine."""
    return {
        "stage": stage,
        "model": options.model,
        "device": options.device,
        "runs": str(options.runs),
        "warmup": str(options.warmup),
        "code": environment.code,
        "machine": environment.machine,
        "driver": environment.gpu.driver if environment.gpu else "none",
        "packages": " ".join(f"{name}={version}" for name, version in sorted(environment.packages.items())),
    }


def folder_of(options: CheckOptions, environment: Environment) -> Path:
    """Where this machine's stage files lie: one folder for every kind of machine and model."""
    return options.results / name_of(options, environment)


def name_of(options: CheckOptions, environment: Environment) -> str:
    """``nvidia-geforce-rtx-4090``, ``cpu``, ``cpu-tiny``; ``no-gpu`` where a GPU was asked for and there is none."""
    machine = "cpu" if options.device == "cpu" else environment.machine if environment.gpu else "no-gpu"
    return machine if options.model == "full" else f"{machine}-{options.model}"


def write_record(path: Path, record: StageRecord) -> None:
    write_json(path, encode(record))


def read_record(path: Path) -> StageRecord | None:
    """The record at ``path``, None when there is none. Raises InputError for a file of another making."""
    if not path.is_file():
        return None
    try:
        record = decode(StageRecord, json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError) as error:
        what = "is not a stage's record of this version" if isinstance(error, SchemaError) else "cannot be read"
        raise InputError(f"{path} {what}: {error}", hint=f"rm {path}, and run the stage again") from error
    if record.schema_version != SCHEMA_VERSION:
        raise InputError(f"{path} is of another version", got=str(record.schema_version), hint=f"rm {path}")
    return record


def without_samples(record: StageRecord) -> StageRecord:
    """The record as the summary keeps it: percentiles, not the samples behind them."""

    def bare(row: Row) -> Row:
        timed = {name: replace(getattr(row, name), samples_ms=()) for name in ("engine", "frame", "frame_hd")}
        return replace(row, **timed)

    return replace(record, rows=tuple(bare(row) for row in record.rows))


def scrubbed(text: str, options: CheckOptions) -> str:
    """``text`` fit for a public file: the folders of this machine become words."""
    places = {str(options.work): "WORK", str(options.work.resolve()): "WORK", str(Path.home()): "~"}
    package = Path(__file__).resolve().parent.parent.parent
    places[str(package)] = "edgeturbo"
    for path in sorted(places, key=len, reverse=True):
        if len(path) > 1:
            text = text.replace(path, places[path])
    return text
