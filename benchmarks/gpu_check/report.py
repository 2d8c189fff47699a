"""All stages of one machine as one JSON file and one Markdown block."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

from ...engines._schema import encode
from ...engines.errors import UsageError
from ...engines.files import write_json
from .options import CheckOptions
from .record import DONE, Row, StageRecord, read_record, without_samples
from .stages import STAGES
from .targets import Target, share_of_ceiling, targets

# Where the blocks of machines that were not measured before go.
MORE = "<!-- gpu-check:more -->"

_HEAD = (
    "| row | engine p50 | p95 | p99 | MAD | frame p50 | p95 | p99 | frame 1280x720 p50 | fps | times the common row "
    "| device memory | of the ceiling | parity | n |"
)
_RULE = "|" + "---|" * 15


def gather(folder: Path) -> dict[str, StageRecord]:
    """The records in ``folder``, by stage, in the stages' order. Raises InputError for a damaged one."""
    found = {stage.name: read_record(folder / f"{stage.name}.json") for stage in STAGES}
    return {name: record for name, record in found.items() if record is not None}


def write_summary(path: Path, records: Mapping[str, StageRecord], options: CheckOptions) -> None:
    """The records without samples, and the targets, as one JSON file."""
    summary = {
        "model": options.model,
        "device": options.device,
        "targets": [asdict(target) for target in _judged(records, options)],
        "stages": [encode(without_samples(record)) for record in records.values()],
    }
    write_json(path, summary)


def markdown(name: str, records: Mapping[str, StageRecord], options: CheckOptions) -> str:
    """The block for ``name``: what it ran on, the rows by stage, what did not run, the targets."""
    lines = [f"### {name}", "", *_about(records, options), "", _HEAD, _RULE]
    for record in records.values():
        lines += [_line(row, record, records) for row in record.rows]
    lines += ["", *_figures(records), *_absent(records), "", *_target_table(records, options)]
    return "\n".join(lines).strip() + "\n"


def with_block(text: str, name: str, block: str) -> str:
    """``text`` with the block of ``name`` between its markers, replaced or put before the marker for new ones.

    Raises UsageError when ``text`` has neither.
    """
    begin, end = f"<!-- gpu-check:begin {name} -->", f"<!-- gpu-check:end {name} -->"
    whole = f"{begin}\n{block}{end}"
    if begin in text and end in text:
        before, _, rest = text.partition(begin)
        return before + whole + rest.partition(end)[2]
    if MORE not in text:
        raise UsageError("the page has no place for a new table", expected=MORE, got="no such line")
    return text.replace(MORE, f"{whole}\n\n{MORE}")


def _judged(records: Mapping[str, StageRecord], options: CheckOptions) -> tuple[Target, ...]:
    """The targets are the full-size generator's: a tiny one reaches or misses none of them."""
    return targets(records if options.model == "full" else {})


def _about(records: Mapping[str, StageRecord], options: CheckOptions) -> list[str]:
    if not records:
        return ["Nothing was run."]
    environment = list(records.values())[-1].environment
    gpu = environment.gpu
    where = f"{gpu.name}, {gpu.sm}, driver {gpu.driver}" if gpu and options.device == "cuda" else environment.cpu
    versions = environment.packages
    named = [
        f"{name} {versions[name]}" for name in ("torch", "onnxruntime", "tensorrt", "tensorrt-rtx") if name in versions
    ]
    lines = [f"{where}; {environment.cores} cores, Python {environment.python}, {', '.join(named)}."]
    if options.model == "tiny":
        lines.append("A tiny model of 64x64 pixels: these rows prove the script and say nothing about speed.")
    busy = sorted({record.environment.busy for record in records.values() if record.environment.busy and record.rows})
    return [*lines, f"Note: {busy[0]}."] if busy else lines


def _line(row: Row, record: StageRecord, records: Mapping[str, StageRecord]) -> str:
    share = share_of_ceiling(row, records)
    ratio = row.ratio
    cells = (
        f"{record.stage}: {row.name}",
        *_times(row),
        f"{row.frame.fps:.1f}",
        "the common row" if ratio is None else f"{ratio.value:.2f} ({ratio.low:.2f} to {ratio.high:.2f})",
        "-" if row.device_bytes is None else f"{row.device_bytes / 1e9:.2f} GB",
        "-" if share is None else f"{share:.1%}",
        _parity(row),
        str(row.engine.n),
    )
    return "| " + " | ".join(cells) + " |"


def _times(row: Row) -> tuple[str, ...]:
    engine, frame = row.engine, row.frame
    figures = (engine.p50_ms, engine.p95_ms, engine.p99_ms, engine.mad_ms, frame.p50_ms, frame.p95_ms, frame.p99_ms)
    return tuple(f"{figure:.2f}" for figure in (*figures, row.frame_hd.p50_ms))


def _parity(row: Row) -> str:
    if row.parity is None or row.precision == "none":
        return "-"
    return "equal" if row.parity.psnr_db is None else f"{row.parity.psnr_db:.1f} dB"


def _figures(records: Mapping[str, StageRecord]) -> list[str]:
    """What stages without rows found."""
    lines = [
        f"{stage}: " + ", ".join(f"{name} {value:g}" for name, value in record.figures.items())
        for stage, record in records.items()
        if record.figures and stage in ("prepare-weights", "ceiling", "goldens")
    ]
    return [f"- {line}" for line in lines]


def _absent(records: Mapping[str, StageRecord]) -> list[str]:
    ended = {name: record for name, record in records.items() if record.state != DONE}
    lines = [f"- {name}: {record.state}: {record.reason}" for name, record in ended.items()]
    never = [stage.name for stage in STAGES if stage.name not in records]
    return [*lines, f"- not asked for yet: {', '.join(never)}"] if never else lines


def _target_table(records: Mapping[str, StageRecord], options: CheckOptions) -> list[str]:
    return [
        "| target | wanted | got | |",
        "|---|---|---|---|",
        *(
            f"| {target.name} | {target.wanted} | {target.got} | {target.verdict} |"
            for target in _judged(records, options)
        ),
    ]
