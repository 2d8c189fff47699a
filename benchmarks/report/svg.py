"""What charts are drawn with: axes, bars, lines and letters as SVG, in the reader's light or dark."""

from __future__ import annotations

import html
import math
import re
from collections.abc import Sequence

STYLE = """
svg.chart{font:12px system-ui,sans-serif;--paper:#fff;--ink:#1f2328;--faint:#59636e;--line:#d8dee4;--bundle:#1f6feb;
--published:#b4500e;--fair:#8250df;--peer:#6e7781;--s0:#54aeff;--s1:#7ee2b8;--s2:#1f6feb;--s3:#2da44e;--s4:#e2a03f}
@media (prefers-color-scheme:dark){svg.chart{--paper:#0d1117;--ink:#e6edf3;--faint:#9198a1;--line:#30363d;
--bundle:#58a6ff;--published:#f0883e;--fair:#bc8cff;--peer:#9198a1;--s0:#79c0ff;--s1:#56d4a0;--s2:#388bfd;--s3:#3fb950;--s4:#e3b341}}
svg.chart text{fill:var(--ink)} svg.chart .faint{fill:var(--faint)} svg.chart .rule{stroke:var(--line)}
svg.chart .paper{fill:var(--paper)}
svg.chart .roof{stroke:var(--ink);fill:none;stroke-width:1.5}
"""
STAGE_COLOURS = 5
_MARGIN = 12
_SIZE = re.compile(r'viewBox="0 0 [\d.]+ [\d.]+" width="([\d.]+)" height="([\d.]+)"')


def standalone(chart: str) -> str:
    """The same chart as a file of its own, on paper of its own.

    A page may be dark where the reader's system is light (GitHub's own themes): only the chart's paper is sure to
    suit its ink.
    """
    head, _, rest = chart.partition("</style>")
    width, height = (float(size) for size in _SIZE.findall(head)[0])
    box = f'viewBox="{-_MARGIN} {-_MARGIN} {width + 2 * _MARGIN:g} {height + 2 * _MARGIN:g}"'
    head = _SIZE.sub(f'{box} width="{width + 2 * _MARGIN:g}" height="{height + 2 * _MARGIN:g}"', head, count=1)
    head = head.replace("<svg ", '<svg xmlns="http://www.w3.org/2000/svg" ', 1)
    paper = f'<rect class="paper" x="{-_MARGIN}" y="{-_MARGIN}" width="100%" height="100%" rx="6"/>'
    return f"{head}</style>{paper}{rest}"


class Log:
    """Values from ``low`` to ``high`` on ``length`` pixels from ``start``, logarithmically."""

    def __init__(self, low: float, high: float, start: float, length: float) -> None:
        self.low, self.high, self._start = low, high, start
        self._scale = length / math.log(high / low)

    def __call__(self, value: float) -> float:
        return self._start + math.log(value / self.low) * self._scale


def decades(low: float, high: float) -> list[float]:
    """Round values between the two: tens, or 1-2-5 where there would be fewer than three."""
    exponents = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    tens = [10.0**e for e in exponents if low <= 10.0**e <= high]
    if len(tens) >= 3:
        return tens
    return [m * 10.0**e for e in exponents for m in (1, 2, 5) if low <= m * 10.0**e <= high]


def ticks(axis: Log, top: float, width: int, label: str) -> list[str]:
    parts, free = [line(8, top, width - 8, top)], 0.0
    for value in decades(axis.low, axis.high):
        x = axis(value)
        parts.append(line(x, top, x, top + 4))
        if x - 16 > free and x < width - 16:
            parts.append(text_at(x, top + 17, f"{value:g}", "faint", "middle"))
            free = x + 16
    return [*parts, text_at(8, top + 31, label, "faint")]


def legend(names: Sequence[str], width: int) -> tuple[list[str], float]:
    parts, left, top = [], 8.0, 6.0
    for number, name in enumerate(names):
        wide = 26 + 6.6 * len(name)
        if left + wide > width:
            left, top = 8.0, top + 18
        parts += [rect(left, top, 11, 11, f"var(--s{number % STAGE_COLOURS})"), text_at(left + 16, top + 10, name)]
        left += wide
    return parts, top + 22


def text_at(x: float, y: float, text: str, kind: str = "", anchor: str = "start") -> str:
    style = f' class="{kind}"' if kind else ""
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}"{style}>{html.escape(text)}</text>'


def rotated(x: float, y: float, text: str) -> str:
    return f'<text class="faint" transform="translate({x + 3:.1f} {y:.1f}) rotate(60)">{html.escape(text)}</text>'


def rect(x: float, y: float, wide: float, high: float, fill: str, title: str = "") -> str:
    said = f"<title>{html.escape(title)}</title>" if title else ""
    place = f'x="{x:.1f}" y="{y:.1f}" width="{max(wide, 0.5):.1f}" height="{high:.1f}"'
    return f'<rect {place} fill="{fill}">{said}</rect>'


def line(x1: float, y1: float, x2: float, y2: float, stroke: str = "") -> str:
    style = f'stroke="{stroke}" stroke-width="1.5"' if stroke else 'class="rule"'
    return f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" {style}/>'


def fitted(text: str, wide: float) -> str:
    """As much of ``text`` as ``wide`` pixels hold at 12 px: a letter takes 6.6 of them, on average less."""
    most = int(wide / 6.6)
    return text if len(text) <= most else text[: most - 1] + "…"


def svg(width: int, height: float, name: str, parts: Sequence[str]) -> str:
    head = (
        f'<svg class="chart" viewBox="0 0 {width} {height:.0f}" width="{width}" '
        f'height="{height:.0f}" role="img" aria-label="{name}">'
    )
    return f"{head}<style>{STYLE}</style>{''.join(parts)}</svg>"
