"""What the generator's cost table says in a report: the roofline, its operators, and devices nobody here has."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from ..result import SWEEP
from . import charts
from .charts import Mark
from .section import Cells, Section

if TYPE_CHECKING:
    from ...engines.costs import Share
    from ..result import BenchResult, Roofline

_FIGURES = ("nodes", "GFLOP", "of all", "bytes moved", "weights", "FLOP/byte")
_PEAKS_UNKNOWN = "Nobody stated this device's peaks ({device}): no roof is drawn."


def cost_sections(result: BenchResult) -> list[Section | None]:
    """The sections that need a cost table; None for each that the result has no figures for."""
    found = result.roofline
    return [
        None if found is None else _roofline(result, found),
        None if found is None else _kinds(found),
        None if found is None else _heaviest(found),
        _predictions(result),
        _predicted_stages(result),
    ]


def _roofline(result: BenchResult, found: Roofline) -> Section:
    cells = _table(found.stages, found)
    if found.operations_per_s is None or found.bytes_per_s is None:
        return Section("Roofline", (_PEAKS_UNKNOWN.format(device=found.device),), ("stage", *_FIGURES), cells)
    *stages, total = found.stages
    reached = [
        (Mark(row.name, row.role), total.intensity, total.flops / row.engine.p50_ms * 1e3)
        for row in result.rows
        if row.engine is not None and row.backend != "pytorch" and row.role != SWEEP
    ]
    lines = (f"{found.device}: {found.operations_per_s / 1e9:,.4g} GFLOP/s and {found.bytes_per_s / 1e9:,.4g} GB/s at "
             "most. An engine that fuses nodes moves fewer bytes than the table counts.",)  # fmt: skip
    points = [(stage.name, stage.intensity) for stage in stages if stage.intensity > 0]
    roof = (found.operations_per_s, found.bytes_per_s)
    chart = partial(charts.roofline, roof, points, reached) if reached and total.intensity > 0 else None
    return Section("Roofline", lines, ("stage", *_FIGURES), cells, chart)


def _kinds(found: Roofline) -> Section | None:
    if not found.kinds:
        return None
    lines = ("Operations are those of matrix products and convolutions; the other kinds cost the bytes they move.",)
    return Section("Operators by kind", lines, ("kind", *_FIGURES), _table(found.kinds, found))


def _heaviest(found: Roofline) -> Section | None:
    if not found.heaviest:
        return None
    lines = ("Nodes of one stage that cost the same are one line, named after the first of them.",)
    return Section("The most expensive operators", lines, ("operator", *_FIGURES), _table(found.heaviest, found))


def _table(shares: tuple[Share, ...], found: Roofline) -> Cells:
    flops = found.stages[-1].flops or 1
    return tuple(
        (s.name, str(s.nodes), f"{s.flops / 1e9:,.4g}", f"{s.flops / flops:.1%}", f"{s.moved / 1e6:,.1f} MB",
         f"{s.weights / 1e6:,.1f} MB", f"{s.intensity:.3g}")
        for s in shares
    )  # fmt: skip


def _predictions(result: BenchResult) -> Section | None:
    if not result.predictions:
        return None
    head = ("device", "size", "ms, low to high", "ms", "fps", "bound by", "memory", "fits")
    cells = tuple(
        (p.device, f"{p.width}x{p.height}", f"{p.ms_low:.3g} to {p.ms_high:.3g}", f"{p.ms:.3g}", f"{p.fps:.3g}",
         p.bound_by, f"{p.memory_bytes / 1e9:.3g} GB", "yes" if p.fits_memory else "NO")
        for p in result.predictions
    )  # fmt: skip
    notes: dict[str, list[str]] = {}
    for prediction in result.predictions:
        notes.setdefault(prediction.note, []).append(prediction.device)
    lines = ["Estimates from a roofline over the cost table, for devices that were not measured."]
    lines += [f"{', '.join(names)}: {note}." for note, names in notes.items()]
    return Section("Predictions", tuple(lines), head, cells)


def _predicted_stages(result: BenchResult) -> Section | None:
    """A column for each stage that any device has, so that devices stand below each other."""
    names = list(dict.fromkeys(stage.stage for p in result.predictions for stage in p.per_stage))
    if not names:
        return None
    cells = []
    for prediction in result.predictions:
        taken = {stage.stage: f"{stage.ms:.3g} ms, {stage.bound_by}" for stage in prediction.per_stage}
        cells.append((f"{prediction.device}, {prediction.width}x{prediction.height}",
                      *(taken.get(name, "-") for name in names)))  # fmt: skip
    lines = ("The middle of each estimate, and what bounds the stage: arithmetic, memory, or the start of its nodes.",)
    return Section("Predictions by stage", lines, ("device", *names), tuple(cells))
