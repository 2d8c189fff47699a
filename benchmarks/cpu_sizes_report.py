"""What the turns of the full-size study say: medians, ratios with their doubt, likeness, memory, and growth."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from ..engines.costs import Costs, read_costs
from ..engines.parity import likeness
from .cpu_sizes_rows import EAGER, PRODUCTS, ROWS, Case, Turn
from .latency import Latency, Ratio, ratio

# Two unknowns are fitted for each row; what is left over says something only from here on.
_FEWEST_SIZES = 3


def summarise(work: Path, turns: Iterable[Turn]) -> dict[str, Any]:
    """``sizes``: a row for each engine, by size; ``growth``: of each row that was measured at three sizes or more."""
    listed = list(turns)
    shapes = sorted({(turn.width, turn.height) for turn in listed}, key=lambda shape: (shape[0] * shape[1], shape))
    sizes = [_size(Case(work, *shape), [t for t in listed if (t.width, t.height) == shape]) for shape in shapes]
    growth = {row: _growth(row, sizes) for row in ROWS}
    return {"sizes": sizes, "growth": {row: fit for row, fit in growth.items() if fit is not None}}


def _size(case: Case, turns: list[Turn]) -> dict[str, Any]:
    costs = read_costs(case.costs)
    flops, attention = costs.flops, _quadratic(costs)
    rows = {row: [turn for turn in turns if turn.row == row] for row in ROWS}
    return {
        "width": case.width, "height": case.height, "tflop": round(flops / 1e12, 3),
        "tflop_self_attention": round(attention / 1e12, 3),
        "rows": [_row(case, row, taken, rows[EAGER]) for row, taken in rows.items() if taken],
    }  # fmt: skip


def _quadratic(costs: Costs) -> int:
    """Operations that grow as the square of the pixels."""
    return sum(item.nodes * item.flops.quadratic for item in costs.work)


def _row(case: Case, row: str, turns: list[Turn], eager: list[Turn]) -> dict[str, Any]:
    measured = [turn for turn in turns if turn.seconds]
    if not measured:
        return {"key": row, "note": turns[0].note}
    latency = Latency.of(_seconds(measured))
    against = _against_eager(measured, eager)
    return {
        "key": row,
        "seconds": [list(turn.seconds) for turn in measured],
        "cpu_seconds": [list(turn.cpu_seconds) for turn in measured],
        "median_s": round(latency.p50_ms / 1e3, 3),
        "ratio_to_eager": None if against is None else asdict(against),
        "psnr_to_eager_db": None if row in {EAGER, PRODUCTS} else _psnr(case, row),
        "peak_rss_bytes": max(turn.peak_rss_bytes for turn in measured),
        "open_s": round(float(np.median([turn.open_s for turn in measured])), 1),
        "first_frame_s": round(float(np.median([turn.warmup_s for turn in measured])), 1),
        "note": "; ".join(dict.fromkeys(turn.note for turn in turns if turn.note)),
    }  # fmt: skip


def _seconds(turns: list[Turn]) -> list[float]:
    return [second for turn in turns for second in turn.seconds]


def _against_eager(turns: list[Turn], eager: list[Turn]) -> Ratio | None:
    """How many times as long as PyTorch eager in FP32 it takes, over the rounds that both were measured in."""
    rounds = {turn.round: turn for turn in eager if turn.seconds}
    pairs = [(turn, rounds[turn.round]) for turn in turns if turn.round in rounds]
    same = [(mine, its) for mine, its in pairs if len(mine.seconds) == len(its.seconds)]
    if not same:
        return None
    return ratio(Latency.of(_seconds([mine for mine, _ in same])), Latency.of(_seconds([its for _, its in same])))


def _psnr(case: Case, row: str) -> float | None:
    """Of the row's image against eager's, dB; None where they are the same or one of them was not kept."""
    if not (case.picture(EAGER).exists() and case.picture(row).exists()):
        return None
    return likeness([(np.load(case.picture(EAGER)), np.load(case.picture(row)))]).psnr_db


def _growth(row: str, sizes: list[dict[str, Any]]) -> dict[str, Any] | None:
    """Seconds fitted as ``a * pixels + b * pixels**2``: the second is what self-attention may do, nothing else may.

    Weighted so that each size's error counts in proportion to its own time. ``residuals`` are fitted / measured - 1;
    ``attention_share``: of the largest size's time, by the fit, beside ``attention_share_of_flop``.
    """
    found = [(size, line) for size in sizes for line in size["rows"] if line["key"] == row and "median_s" in line]
    if len(found) < _FEWEST_SIZES:
        return None
    pixels = np.array([size["width"] * size["height"] for size, _ in found]) / 512**2
    seconds = np.array([line["median_s"] for _, line in found])
    basis = np.stack([pixels, pixels**2], axis=1)
    linear, quadratic = _non_negative(basis / seconds[:, None])
    fitted = basis @ np.array([linear, quadratic])
    largest = found[-1][0]
    return {
        "sizes": [f"{size['width']}x{size['height']}" for size, _ in found],
        "seconds_per_512x512_of_pixels": round(linear, 3),
        "seconds_per_its_square": round(quadratic, 3),
        "residuals": [round(float(r), 3) for r in fitted / seconds - 1],
        "seconds_per_tflop": [round(line["median_s"] / size["tflop"], 3) for size, line in found],
        "attention_share": round(float(quadratic * pixels[-1] ** 2 / fitted[-1]), 3),
        "attention_share_of_flop": round(largest["tflop_self_attention"] / largest["tflop"], 3),
    }


def _non_negative(weighted: Any) -> tuple[float, float]:
    """Least squares of ``weighted @ (a, b) = 1`` with neither below zero."""
    ones = np.ones(len(weighted))
    a, b = np.linalg.lstsq(weighted, ones, rcond=None)[0]
    if b < 0:
        return float(weighted[:, 0] @ ones / (weighted[:, 0] @ weighted[:, 0])), 0.0
    if a < 0:
        return 0.0, float(weighted[:, 1] @ ones / (weighted[:, 1] @ weighted[:, 1]))
    return float(a), float(b)
