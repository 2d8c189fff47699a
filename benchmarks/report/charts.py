"""Charts as SVG, made by hand: no script, no font and no file from elsewhere, in the reader's light or dark.

Every chart is drawn for a given width in pixels, so that its letters are as large on a phone as on a desk.
"""

from __future__ import annotations

import html
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..latency import Latency
from ..result import FAIR, PUBLISHED, SUBJECT
from .svg import STAGE_COLOURS, Log, decades, fitted, legend, line, rect, rotated, svg, text_at, ticks

_COLOUR = {SUBJECT: "var(--bundle)", PUBLISHED: "var(--published)", FAIR: "var(--fair)"}
_PEER = "var(--peer)"
_BINS = 48


@dataclass(frozen=True)
class Mark:
    """One row in a chart."""

    name: str
    role: str

    @property
    def colour(self) -> str:
        return _COLOUR.get(self.role, _PEER)


def distributions(rows: Sequence[tuple[Mark, Latency]], width: int) -> str:
    """For each row a histogram of its samples on one logarithmic axis of milliseconds, with p50 and p95."""
    samples = [np.asarray(latency.samples_ms) for _, latency in rows]
    low, high = min(s.min() for s in samples) / 1.1, max(s.max() for s in samples) * 1.1
    axis = Log(low, high, 8, width - 16)
    high_of, parts = 64, []
    edges = np.geomspace(low, high, _BINS + 1)
    for number, ((mark, latency), values) in enumerate(zip(rows, samples, strict=True)):
        top = number * (high_of + 26)
        parts.append(text_at(8, top + 14, fitted(mark.name, width - 16)))
        counts, _ = np.histogram(values, edges)
        parts += [
            rect(axis(edges[i]), top + 22 + 38 * (1 - count / counts.max()), axis(edges[i + 1]) - axis(edges[i]) - 0.5,
                  38 * count / counts.max(), mark.colour)
            for i, count in enumerate(counts) if count
        ]  # fmt: skip
        parts.append(line(axis(latency.p50_ms), top + 20, axis(latency.p50_ms), top + 64, "var(--ink)"))
        said = f"p50 {latency.p50_ms:.4g} ms · p95 {latency.p95_ms:.4g} · p99 {latency.p99_ms:.4g} · {latency.n} runs"
        parts.append(text_at(8, top + 76, said, "faint"))
    bottom = len(rows) * (high_of + 26) + 4
    return svg(width, bottom + 34, "latency distributions", [*parts, *ticks(axis, bottom, width, "ms, log scale")])


def waterfall(rows: Sequence[tuple[Mark, dict[str, float]]], width: int) -> str:
    """For each row its stages one after the other, on one linear axis of milliseconds."""
    names = list(rows[0][1])
    longest = max(sum(stages.values()) for _, stages in rows)
    scale = (width - 16) / (longest or 1.0)
    parts, top = legend(names, width)
    for mark, stages in rows:
        parts.append(text_at(8, top + 14, fitted(f"{mark.name}: {sum(stages.values()):.4g} ms", width - 16)))
        left = 8.0
        for number, (name, taken) in enumerate(stages.items()):
            said = f"{name}: {taken:.4g} ms"
            parts.append(rect(left, top + 20, max(taken * scale, 0.5), 18, f"var(--s{number % STAGE_COLOURS})", said))
            left += taken * scale
        top += 50
    return svg(width, top + 4, "stages of one picture", parts)


def pareto(rows: Sequence[tuple[Mark, float, float | None]], width: int) -> str:
    """Frames a second to the right (logarithmic), PSNR of the worst frame upwards; None, equal, stands at the top.

    Points that no other beats in both are joined: that is where one would choose.
    """
    finite = [db for _, _, db in rows if db is not None]
    floor, ceiling = min([30.0, *finite]) - 5, max([60.0, *finite]) + 10
    rates = [rate for _, rate, _ in rows]
    axis, height = Log(min(rates) / 1.6, max(rates) * 1.6, 44, width - 60), 260.0

    def place(db: float | None) -> float:
        return 28 + (height - 38) * (1 - ((ceiling if db is None else db) - floor) / (ceiling - floor))

    parts = []
    for db in range(10 * math.ceil(floor / 10), int(ceiling) - 5, 10):
        parts += [line(44, place(db), width - 8, place(db)), text_at(40, place(db) + 4, str(db), "faint", "end")]
    parts.append(text_at(40, place(None) + 4, "equal", "faint", "end"))
    parts.append(text_at(44, 10, "PSNR of the worst frame, dB", "faint"))
    points = [(axis(rate), place(db), mark) for mark, rate, db in rows]
    best = sorted(p for p in points if not any(q[0] >= p[0] and q[1] <= p[1] and q[:2] != p[:2] for q in points))
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y, _ in best)
    parts.append(f'<polyline points="{path}" class="roof" stroke-dasharray="4 4"/>')
    parts += [_dot(x, y, str(i + 1), mark) for i, (x, y, mark) in enumerate(points)]
    parts += ticks(axis, height, width, "frames a second, log scale")
    below, bottom = _key([mark for _, _, mark in points], height + 54, width)
    return svg(width, bottom, "speed against likeness", [*parts, *below])


def roofline(
    roof: tuple[float, float],
    stages: Sequence[tuple[str, float]],
    rows: Sequence[tuple[Mark, float, float]],
    width: int,
) -> str:
    """``roof``: operations and bytes a second at most. ``stages``: (name, operations a byte) on the roof.

    ``rows``: (mark, operations a byte, operations a second reached).
    """
    compute, memory = roof
    knee = compute / memory
    xs = [knee, *(x for _, x in stages), *(x for _, x, _ in rows)]
    ys = [compute, *(y for _, _, y in rows), *(min(compute, x * memory) for x in xs)]
    across, height = Log(min(xs) / 3, max(xs) * 3, 52, width - 68), 260.0
    upwards = Log(min(ys) / 3 / 1e9, max(ys) * 2 / 1e9, height, -(height - 18))
    left, right = across.low, across.high
    path = [(x, min(compute, x * memory)) for x in (left, knee, right)]
    points = " ".join(f"{across(x):.1f},{upwards(max(y / 1e9, upwards.low)):.1f}" for x, y in path)
    parts = []
    for tick in decades(upwards.low, upwards.high):
        y = upwards(tick)
        parts += [line(52, y, width - 16, y), text_at(48, y + 4, f"{tick:g}", "faint", "end")]
    parts.append(f'<polyline points="{points}" class="roof"/>')
    parts.append(text_at(52, 10, "GFLOP/s at most (line) and reached (dots)", "faint"))
    for name, x in stages:
        y = upwards(min(compute, x * memory) / 1e9)
        parts += [line(across(x), y - 5, across(x), y + 5, "var(--ink)"), rotated(across(x), y + 10, name)]
    parts += [_dot(across(x), upwards(y / 1e9), str(i + 1), mark) for i, (mark, x, y) in enumerate(rows)]
    parts += ticks(across, height, width, "operations for each byte moved, log scale")
    below, bottom = _key([mark for mark, _, _ in rows], height + 54, width)
    return svg(width, bottom, "roofline", [*parts, *below])


def _key(marks: Sequence[Mark], top: float, width: int) -> tuple[list[str], float]:
    parts = []
    for number, mark in enumerate(marks):
        y = top + 20 * number
        parts += [_dot(16, y - 4, str(number + 1), mark), text_at(30, y, fitted(mark.name, width - 38))]
    return parts, top + 20 * len(marks)


def _dot(x: float, y: float, label: str, mark: Mark) -> str:
    style = 'text-anchor="middle" style="fill:var(--paper);font-size:10px"'
    text = f'<text x="{x:.1f}" y="{y + 3.5:.1f}" {style}>{label}</text>'
    circle = f'<circle cx="{x:.1f}" cy="{y:.1f}" r="8" fill="{mark.colour}">'
    return f"{circle}<title>{html.escape(mark.name)}</title></circle>{text}"
