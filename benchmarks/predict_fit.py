"""Efficiencies for the roofline from measured runs, and how wrong they are on a run that the fit did not see."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from ..engines.costs import Costs
from ..engines.errors import UsageError
from .devices import Device
from .predict import Band, Efficiencies, Floats, Times, node_times

# What a fit may find: compute, memory, start_us. A processor's peak is measured with one library and beaten by another,
# caches beat a bandwidth measured on large copies; neither without end.
_BOUNDS = ((0.01, 1.5), (0.01, 4.0), (0.01, 300.0))
_GRID, _ROUNDS, _FINER = 21, 14, 0.6
_FEWEST = 3


@dataclass(frozen=True)
class Measurement:
    """Seconds that one run of the generator with these ``costs`` took on ``device``."""

    costs: Costs
    device: Device
    seconds: float


@dataclass(frozen=True)
class Residual:
    """A measurement, and what the others alone predict for it; ``error`` is predicted / measured - 1."""

    width: int
    height: int
    measured_ms: float
    predicted_ms: float
    error: float


def fit(measurements: Sequence[Measurement]) -> Efficiencies:
    """The ``compute``, ``memory`` and ``start_us`` that predict ``measurements`` best.

    Least squares of log(predicted / measured), by a grid around the best so far that gets finer from round to round,
    within _BOUNDS. ``traffic`` is 1: what fusion saves is in ``memory``, and the two cannot be told apart from whole
    runs. Raises UsageError for fewer measurements than the three figures.
    """
    if len(measurements) < _FEWEST:
        raise UsageError("too few measurements to fit", expected=f"{_FEWEST} or more", got=str(len(measurements)))
    ideal = [node_times(m.costs.work, m.device, Efficiencies(1.0, 1.0, start_us=1.0), 1.0) for m in measurements]
    measured = np.array([m.seconds for m in measurements])
    low, high = np.log(np.array(_BOUNDS)).T
    centre, reach = (low + high) / 2, (high - low) / 2
    for _ in range(_ROUNDS):
        axes = [
            np.clip(np.linspace(c - r, c + r, _GRID), *ends)
            for c, r, *ends in zip(centre, reach, low, high, strict=True)
        ]
        pairs = [(c, m) for c in axes[0] for m in axes[1]]
        found = [_best_start(ideal, measured, pair, axes[2]) for pair in pairs]
        best = min(range(len(pairs)), key=lambda index: found[index][0])
        centre, reach = np.array([*pairs[best], found[best][1]]), reach * _FINER
    compute, memory, start = (float(np.exp(at)) for at in centre)
    return Efficiencies(compute, memory, start_us=start)


def leave_one_out(measurements: Sequence[Measurement]) -> tuple[Residual, ...]:
    """Each measurement as the fit on all others predicts it. Raises UsageError for fewer than four."""
    if len(measurements) <= _FEWEST:
        raise UsageError(
            "too few measurements to leave one out", expected=f"{_FEWEST + 1} or more", got=str(len(measurements))
        )
    residuals = []
    for index, left in enumerate(measurements):
        found = fit([*measurements[:index], *measurements[index + 1 :]])
        seconds = float(node_times(left.costs.work, left.device, found, 1.0).seconds.sum())
        residuals.append(
            Residual(left.costs.width, left.costs.height, 1e3 * left.seconds, 1e3 * seconds, seconds / left.seconds - 1)
        )
    return tuple(residuals)


def fitted_band(measurements: Sequence[Measurement]) -> Band:
    """A Band around ``fit`` that is as wide, either way, as the largest error of ``leave_one_out``."""
    middle = fit(measurements)
    worst = max(abs(residual.error) for residual in leave_one_out(measurements))
    slower, quicker = (
        replace(middle, compute=middle.compute * by, memory=middle.memory * by, start_us=middle.start_us / by)
        for by in (1 / (1 + worst), 1 + worst)
    )
    count = len(measurements)
    source = f"fitted on {count} sizes measured on this device; each from the others within {worst:.0%}"
    return Band(slower, middle, quicker, source, measured=True)


def _best_start(
    ideal: Sequence[Times], measured: Floats, pair: tuple[float, float], starts: Floats
) -> tuple[float, float]:
    """The least misfit of these logarithms of ``compute`` and ``memory``, and the logarithm of ``start_us`` for it."""
    compute, memory = np.exp(-np.array(pair))
    busy = np.array([np.maximum(t.compute * compute, t.memory * memory).sum() for t in ideal])
    begun = np.outer(np.exp(starts), [t.start.sum() for t in ideal])
    misfits = (np.log((busy + begun) / measured) ** 2).sum(axis=1)
    best = int(misfits.argmin())
    return float(misfits[best]), float(starts[best])
