"""Charts of the studies in ``benchmarks/results``: bars with their spread, and time over the number of pixels."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from .svg import Log, decades, fitted, line, rect, svg, text_at, ticks

# Colours that the style has, one for each family; within it lines differ in their dashes.
_COLOURS = ("bundle", "published", "fair", "s3", "peer")
_DASHES = ("", "7 3", "2 3", "9 3 2 3")
_PROPORTION = 'stroke="var(--faint)" stroke-width="1.5" stroke-dasharray="1 4"'
_ROW, _LABEL, _RIGHT = 26, 210, 120
_NAME, _LINE = 80, 14  # a short name's width and height


@dataclass(frozen=True)
class Bar:
    """``value`` with the ``low`` and ``high`` that were measured beside it; ``family``: bars of one share a colour."""

    name: str
    value: float
    low: float
    high: float
    family: int = 0


@dataclass(frozen=True)
class Curve:
    """Points (x, y), both above 0, in any order; ``family``: curves of one share a colour."""

    name: str
    points: tuple[tuple[float, float], ...]
    family: int = 0


@dataclass(frozen=True)
class Point:
    """``x`` (above 0) and ``y`` of what is called ``name``, one of a ``series`` of points with one colour."""

    name: str
    x: float
    y: float
    series: str


def bars(rows: Sequence[Bar], unit: str, width: int, name: str) -> str:
    """A bar for each row from 0 to its value, a thin line from its ``low`` to its ``high``, and its value."""
    scale = (width - _LABEL - _RIGHT) / (max(max(row.high, row.value) for row in rows) or 1.0)
    parts = []
    for number, row in enumerate(rows):
        middle = number * _ROW + 14
        parts.append(text_at(_LABEL - 8, middle + 4, fitted(row.name, _LABEL - 8), anchor="end"))
        parts.append(rect(_LABEL, middle - 8, row.value * scale, 16, colour(row.family), f"{row.value:.4g} {unit}"))
        if row.high > row.low:
            parts.append(line(_LABEL + row.low * scale, middle, _LABEL + row.high * scale, middle, "var(--ink)"))
        end = _LABEL + max(row.high, row.value) * scale + 6
        parts.append(text_at(end, middle + 4, f"{row.value:.4g} {unit}", "faint"))
    return svg(width, len(rows) * _ROW + 4, name, parts)


def growth(curves: Sequence[Curve], across: str, upwards: str, width: int) -> str:
    """Each curve over logarithmic axes; a dashed line has the slope of what grows as its x does."""
    xs = [x for curve in curves for x, _ in curve.points]
    ys = [y for curve in curves for _, y in curve.points]
    high = 300.0
    axis = Log(min(xs) / 1.25, max(xs) * 1.25, 56, width - 72)
    rise = Log(min(ys) / 1.4, max(ys) * 1.4, high, -(high - 24))
    parts = [text_at(56, 12, upwards, "faint")]
    for tick in decades(rise.low, rise.high):
        parts += [
            line(56, rise(tick), width - 16, rise(tick)),
            text_at(50, rise(tick) + 4, f"{tick:g}", "faint", "end"),
        ]
    parts.append(_proportional(axis, rise))
    styles = _styles(curves)
    for curve, style in zip(curves, styles, strict=True):
        parts += _curve(curve, axis, rise, style)
    parts += ticks(axis, high, width, across)
    keys = [*zip((curve.name for curve in curves), styles, strict=True), ("in proportion", _PROPORTION)]
    for number, (name, style) in enumerate(keys):
        left, top = 16 + (number % 2) * (width // 2), high + 52 + 20 * (number // 2)
        parts.append(f'<path d="M{left} {top - 4:.0f}h26" {style}/>')
        parts.append(text_at(left + 34, top, fitted(name, width // 2 - 48)))
    return svg(width, high + 52 + 20 * ((len(keys) + 1) // 2), "time over the number of pixels", parts)


def scatter(points: Sequence[Point], across: str, upwards: str, width: int, name: str) -> str:
    """Points with their names, x logarithmic; of each series those that no other beats in both are joined.

    Further left and further up is better.
    """
    high, bottom, top = 280.0, min(point.y for point in points), max(point.y for point in points)
    axis = Log(min(point.x for point in points) / 1.2, max(point.x for point in points) * 1.35, 56, width - 72)
    step = _step((top - bottom) or 1.0)
    first, last = math.floor(bottom / step), math.ceil(top / step)

    def up(y: float) -> float:
        return high - (y / step - first) * (high - 30) / max(1, last - first)

    parts = [text_at(56, 12, upwards, "faint")]
    for mark in (step * number for number in range(first, last + 1)):
        parts += [line(56, up(mark), width - 16, up(mark)), text_at(50, up(mark) + 4, f"{mark:g}", "faint", "end")]
    series = list(dict.fromkeys(point.series for point in points))
    places = {point: (axis(point.x), up(point.y)) for point in points}
    for number, one in enumerate(series):
        parts += _series([point for point in points if point.series == one], places, colour(number))
    parts += ticks(axis, high, width, across)
    for number, one in enumerate(series):
        left = 16 + number * (width // max(2, len(series)))
        parts += [rect(left, high + 43, 11, 11, colour(number)), text_at(left + 18, high + 53, one)]
    return svg(width, high + 64, name, parts)


def _series(points: Sequence[Point], places: Mapping[Point, tuple[float, float]], ink: str) -> list[str]:
    best = sorted(unbeaten(points), key=lambda point: point.x)
    path = " ".join("{:.1f},{:.1f}".format(*places[point]) for point in best)
    parts = [f'<polyline points="{path}" fill="none" stroke="{ink}" stroke-width="1.5"/>']
    for number, point in enumerate(points):
        x, y = places[point]
        said = f"<title>{point.x:.4g}, {point.y:.4g}</title>"
        parts.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4" fill="{ink}">{said}</circle>')
        # The lines rise to the right: a name lies under them, or to the left where another's has that place.
        crowded = any(_near(places[point], places[other]) for other in points[:number])
        parts.append(text_at(x - 8, y + 4, point.name, anchor="end") if crowded else text_at(x + 6, y + 14, point.name))
    return parts


def _near(one: tuple[float, float], other: tuple[float, float]) -> bool:
    """Whether two names, each to the right of its point, would cover each other."""
    return abs(one[0] - other[0]) < _NAME and abs(one[1] - other[1]) < _LINE


def unbeaten(points: Sequence[Point]) -> list[Point]:
    """The points that no other is at least as far left and as far up as, and further in one."""
    return [
        one for one in points
        if not any(o.x <= one.x and o.y >= one.y and (o.x < one.x or o.y > one.y) for o in points)
    ]  # fmt: skip


def _step(span: float) -> float:
    """1, 2 or 5 times a power of ten: four to ten of them are in ``span``."""
    power = 10.0 ** math.floor(math.log10(span))
    return next(m * power for m in (0.1, 0.2, 0.5, 1.0, 2.0) if span / (m * power) <= 10)


def _styles(curves: Sequence[Curve]) -> list[str]:
    """A colour for each family, and within it other dashes for each curve."""
    seen: dict[int, int] = {}
    styles = []
    for curve in curves:
        number = seen[curve.family] = seen.get(curve.family, -1) + 1
        dashes = f' stroke-dasharray="{_DASHES[number % len(_DASHES)]}"' if number else ""
        styles.append(f'fill="none" stroke="{colour(curve.family)}" stroke-width="2"{dashes}')
    return styles


def colour(number: int) -> str:
    return f"var(--{_COLOURS[number % len(_COLOURS)]})"


def _curve(curve: Curve, axis: Log, rise: Log, style: str) -> list[str]:
    places = [(axis(x), rise(y)) for x, y in sorted(curve.points)]
    points = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
    dots = [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3.5" fill="{colour(curve.family)}"/>' for x, y in places]
    return [f'<polyline points="{points}" {style}/>', *dots]


def _proportional(axis: Log, rise: Log) -> str:
    """From the lower left corner as far as both axes reach."""
    reach = min(axis.high / axis.low, rise.high / rise.low)
    ends = f'x1="{axis(axis.low):.1f}" y1="{rise(rise.low):.1f}" x2="{axis(axis.low * reach):.1f}"'
    return f'<line {ends} y2="{rise(rise.low * reach):.1f}" {_PROPORTION}/>'
