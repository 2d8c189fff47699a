"""What a report has only where somebody asked for it: other sizes and batches, measures with weights, a size to use."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from ..result import SUBJECT, SWEEP
from .section import NONE, Section
from .study_charts import Curve, growth

if TYPE_CHECKING:
    from ..result import BenchResult, RowResult


def asked_sections(result: BenchResult) -> list[Section | None]:
    """The sections of ``--size``, ``--batch``, ``--metric-weights`` and ``--size auto``, or None for each."""
    return [_sweep(result), _weights(result), _proposal(result)]


def _sweep(result: BenchResult) -> Section | None:
    rows = [row for row in result.rows if row.role in (SUBJECT, SWEEP) and row.engine is not None]
    if not any(row.role == SWEEP for row in rows):
        return None
    head = ("size", "a run, p50", "a frame", "fps", "times the bundle's", "peak resident memory")
    lines = ("The bundle exported again for other sizes and batches; the dashed line is what grows as the pixels do.",)
    points = [(_megapixels(result, row), row.engine.p50_ms) for row in rows if row.engine is not None]
    chart = partial(growth, [Curve("a run", tuple(points))], "megapixels of a run, log scale", "ms, log scale")
    return Section("Sizes and batches", lines, head, tuple(_sweep_cells(result, row) for row in rows), chart)


def _megapixels(result: BenchResult, row: RowResult) -> float:
    shape = result.shape_of(row)
    return shape.width * shape.height * shape.batch / 1e6


def _sweep_cells(result: BenchResult, row: RowResult) -> tuple[str, ...]:
    shape, fps, ratio = result.shape_of(row), result.fps_of(row), row.ratio
    ms = row.engine.p50_ms if row.engine is not None else 0.0
    return (
        str(shape), f"{ms:,.4g} ms", f"{ms / shape.batch:,.4g} ms", NONE if fps is None else f"{fps:.4g}",
        "1" if ratio is None else f"{ratio.value:.3f} ({ratio.low:.3f} to {ratio.high:.3f})",
        NONE if row.memory is None else f"{row.memory.peak_rss_bytes / 1e6:,.0f} MB",
    )  # fmt: skip


def _weights(result: BenchResult) -> Section | None:
    cells = [
        (row.name, f"{figures.title} ({figures.unit})", pair, f"{value:.4g}", str(len(figures.series.get(pair, ()))))
        for row in result.rows
        for figures in row.metrics.values()
        for pair, value in figures.mean.items()
    ]
    if not cells:
        return None
    return Section("Measures with weights", ("Means over the frames.",),
                   ("row", "measure", "between", "mean", "figures"), tuple(cells))  # fmt: skip


def _proposal(result: BenchResult) -> Section | None:
    found = result.proposed
    if found is None:
        return None
    size = f"{found.width}x{found.height}"
    return Section("A size to use", (
        f"{found.device}: {size}, {found.fps:.3g} frames a second, {found.ms_low:.3g} to {found.ms_high:.3g} ms a run. "
        f"{found.note}. turbo-export --size {size} makes it.",
    ))  # fmt: skip
