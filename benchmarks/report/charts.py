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

STYLE = """
svg.chart{font:12px system-ui,sans-serif;--ink:#1f2328;--faint:#656d76;--line:#d8dee4;--bundle:#1f6feb;
--published:#d1661a;--fair:#8250df;--peer:#6e7781;--s0:#54aeff;--s1:#7ee2b8;--s2:#1f6feb;--s3:#2da44e;--s4:#e2a03f}
@media (prefers-color-scheme:dark){svg.chart{--ink:#e6edf3;--faint:#9198a1;--line:#30363d;--bundle:#58a6ff;
--published:#f0883e;--fair:#bc8cff;--peer:#9198a1;--s0:#79c0ff;--s1:#56d4a0;--s2:#388bfd;--s3:#3fb950;--s4:#e3b341}}
svg.chart text{fill:var(--ink)} svg.chart .faint{fill:var(--faint)} svg.chart .rule{stroke:var(--line)}
svg.chart .roof{stroke:var(--ink);fill:none;stroke-width:1.5}
"""
_COLOUR = {SUBJECT: "var(--bundle)", PUBLISHED: "var(--published)", FAIR: "var(--fair)"}
_PEER = "var(--peer)"
_STAGE_COLOURS = 5
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
    axis = _Log(low, high, 8, width - 16)
    high_of, parts = 64, []
    edges = np.geomspace(low, high, _BINS + 1)
    for number, ((mark, latency), values) in enumerate(zip(rows, samples, strict=True)):
        top = number * (high_of + 26)
        parts.append(_text(8, top + 14, _fit(mark.name, width - 16)))
        counts, _ = np.histogram(values, edges)
        parts += [
            _rect(axis(edges[i]), top + 22 + 38 * (1 - count / counts.max()), axis(edges[i + 1]) - axis(edges[i]) - 0.5,
                  38 * count / counts.max(), mark.colour)
            for i, count in enumerate(counts) if count
        ]  # fmt: skip
        parts.append(_line(axis(latency.p50_ms), top + 20, axis(latency.p50_ms), top + 64, "var(--ink)"))
        said = f"p50 {latency.p50_ms:.4g} ms · p95 {latency.p95_ms:.4g} · p99 {latency.p99_ms:.4g} · {latency.n} runs"
        parts.append(_text(8, top + 76, said, "faint"))
    bottom = len(rows) * (high_of + 26) + 4
    return _svg(width, bottom + 34, "latency distributions", [*parts, *_ticks(axis, bottom, width, "ms, log scale")])


def waterfall(rows: Sequence[tuple[Mark, dict[str, float]]], width: int) -> str:
    """For each row its stages one after the other, on one linear axis of milliseconds."""
    names = list(rows[0][1])
    longest = max(sum(stages.values()) for _, stages in rows)
    scale = (width - 16) / (longest or 1.0)
    parts, top = _legend(names, width)
    for mark, stages in rows:
        parts.append(_text(8, top + 14, _fit(f"{mark.name}: {sum(stages.values()):.4g} ms", width - 16)))
        left = 8.0
        for number, (name, taken) in enumerate(stages.items()):
            said = f"{name}: {taken:.4g} ms"
            parts.append(_rect(left, top + 20, max(taken * scale, 0.5), 18, f"var(--s{number % _STAGE_COLOURS})", said))
            left += taken * scale
        top += 50
    return _svg(width, top + 4, "stages of one picture", parts)


def pareto(rows: Sequence[tuple[Mark, float, float | None]], width: int) -> str:
    """Frames a second to the right (logarithmic), PSNR of the worst frame upwards; None, equal, stands at the top.

    Points that no other beats in both are joined: that is where one would choose.
    """
    finite = [db for _, _, db in rows if db is not None]
    floor, ceiling = min([30.0, *finite]) - 5, max([60.0, *finite]) + 10
    rates = [rate for _, rate, _ in rows]
    axis, height = _Log(min(rates) / 1.6, max(rates) * 1.6, 44, width - 60), 260.0

    def place(db: float | None) -> float:
        return 28 + (height - 38) * (1 - ((ceiling if db is None else db) - floor) / (ceiling - floor))

    parts = []
    for db in range(10 * math.ceil(floor / 10), int(ceiling) - 5, 10):
        parts += [_line(44, place(db), width - 8, place(db)), _text(40, place(db) + 4, str(db), "faint", "end")]
    parts.append(_text(40, place(None) + 4, "equal", "faint", "end"))
    parts.append(_text(44, 10, "PSNR of the worst frame, dB", "faint"))
    points = [(axis(rate), place(db), mark) for mark, rate, db in rows]
    best = sorted(p for p in points if not any(q[0] >= p[0] and q[1] <= p[1] and q[:2] != p[:2] for q in points))
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y, _ in best)
    parts.append(f'<polyline points="{path}" class="roof" stroke-dasharray="4 4"/>')
    parts += [_dot(x, y, str(i + 1), mark) for i, (x, y, mark) in enumerate(points)]
    parts += _ticks(axis, height, width, "frames a second, log scale")
    below, bottom = _key([mark for _, _, mark in points], height + 48, width)
    return _svg(width, bottom, "speed against likeness", [*parts, *below])


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
    across, height = _Log(min(xs) / 3, max(xs) * 3, 52, width - 68), 260.0
    upwards = _Log(min(ys) / 3 / 1e9, max(ys) * 2 / 1e9, height, -(height - 18))
    left, right = across.low, across.high
    path = [(x, min(compute, x * memory)) for x in (left, knee, right)]
    points = " ".join(f"{across(x):.1f},{upwards(max(y / 1e9, upwards.low)):.1f}" for x, y in path)
    parts = []
    for tick in _decades(upwards.low, upwards.high):
        y = upwards(tick)
        parts += [_line(52, y, width - 16, y), _text(48, y + 4, f"{tick:g}", "faint", "end")]
    parts.append(f'<polyline points="{points}" class="roof"/>')
    parts.append(_text(52, 10, "GFLOP/s at most (line) and reached (dots)", "faint"))
    for name, x in stages:
        y = upwards(min(compute, x * memory) / 1e9)
        parts += [_line(across(x), y - 5, across(x), y + 5, "var(--ink)"), _rotated(across(x), y + 10, name)]
    parts += [_dot(across(x), upwards(y / 1e9), str(i + 1), mark) for i, (mark, x, y) in enumerate(rows)]
    parts += _ticks(across, height, width, "operations for each byte moved, log scale")
    below, bottom = _key([mark for mark, _, _ in rows], height + 48, width)
    return _svg(width, bottom, "roofline", [*parts, *below])


def standalone(chart: str) -> str:
    """The same chart as a file of its own."""
    return chart.replace("<svg ", '<svg xmlns="http://www.w3.org/2000/svg" ', 1)


class _Log:
    """Values from ``low`` to ``high`` on ``length`` pixels from ``start``, logarithmically."""

    def __init__(self, low: float, high: float, start: float, length: float) -> None:
        self.low, self.high, self._start = low, high, start
        self._scale = length / math.log(high / low)

    def __call__(self, value: float) -> float:
        return self._start + math.log(value / self.low) * self._scale


def _decades(low: float, high: float) -> list[float]:
    """Round values between the two: tens, or 1-2-5 where there would be fewer than three."""
    exponents = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    tens = [10.0**e for e in exponents if low <= 10.0**e <= high]
    if len(tens) >= 3:
        return tens
    return [m * 10.0**e for e in exponents for m in (1, 2, 5) if low <= m * 10.0**e <= high]


def _ticks(axis: _Log, top: float, width: int, label: str) -> list[str]:
    parts, free = [_line(8, top, width - 8, top)], 0.0
    for value in _decades(axis.low, axis.high):
        x = axis(value)
        parts.append(_line(x, top, x, top + 4))
        if x - 16 > free and x < width - 16:
            parts.append(_text(x, top + 17, f"{value:g}", "faint", "middle"))
            free = x + 16
    return [*parts, _text(8, top + 31, label, "faint")]


def _legend(names: Sequence[str], width: int) -> tuple[list[str], float]:
    parts, left, top = [], 8.0, 6.0
    for number, name in enumerate(names):
        wide = 26 + 6.6 * len(name)
        if left + wide > width:
            left, top = 8.0, top + 18
        parts += [_rect(left, top, 11, 11, f"var(--s{number % _STAGE_COLOURS})"), _text(left + 16, top + 10, name)]
        left += wide
    return parts, top + 22


def _key(marks: Sequence[Mark], top: float, width: int) -> tuple[list[str], float]:
    parts = []
    for number, mark in enumerate(marks):
        y = top + 20 * number
        parts += [_dot(16, y - 4, str(number + 1), mark), _text(30, y, _fit(mark.name, width - 38))]
    return parts, top + 20 * len(marks)


def _dot(x: float, y: float, label: str, mark: Mark) -> str:
    text = f'<text x="{x:.1f}" y="{y + 3.5:.1f}" text-anchor="middle" style="fill:#fff;font-size:10px">{label}</text>'
    circle = f'<circle cx="{x:.1f}" cy="{y:.1f}" r="8" fill="{mark.colour}">'
    return f"{circle}<title>{html.escape(mark.name)}</title></circle>{text}"


def _text(x: float, y: float, text: str, kind: str = "", anchor: str = "start") -> str:
    style = f' class="{kind}"' if kind else ""
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}"{style}>{html.escape(text)}</text>'


def _rotated(x: float, y: float, text: str) -> str:
    return f'<text class="faint" transform="translate({x + 3:.1f} {y:.1f}) rotate(60)">{html.escape(text)}</text>'


def _rect(x: float, y: float, wide: float, high: float, fill: str, title: str = "") -> str:
    said = f"<title>{html.escape(title)}</title>" if title else ""
    place = f'x="{x:.1f}" y="{y:.1f}" width="{max(wide, 0.5):.1f}" height="{high:.1f}"'
    return f'<rect {place} fill="{fill}">{said}</rect>'


def _line(x1: float, y1: float, x2: float, y2: float, stroke: str = "") -> str:
    style = f'stroke="{stroke}" stroke-width="1.5"' if stroke else 'class="rule"'
    return f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" {style}/>'


def _fit(text: str, wide: float) -> str:
    """As much of ``text`` as ``wide`` pixels hold at 12 px: a letter takes 6.6 of them, on average less."""
    most = int(wide / 6.6)
    return text if len(text) <= most else text[: most - 1] + "…"


def _svg(width: int, height: float, name: str, parts: Sequence[str]) -> str:
    head = (
        f'<svg class="chart" viewBox="0 0 {width} {height:.0f}" width="{width}" '
        f'height="{height:.0f}" role="img" aria-label="{name}">'
    )
    return f"{head}<style>{STYLE}</style>{''.join(parts)}</svg>"
