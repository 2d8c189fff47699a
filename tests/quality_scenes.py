"""Pictures with known content for the tests of the quality measures."""

from __future__ import annotations

import numpy as np

SIDE = 192


def scene(side: int = SIDE) -> np.ndarray:
    """Real-valued: smooth slopes of every tone in each channel, and bars and a disc with hard edges."""
    y, x = np.mgrid[0:side, 0:side] / side
    slopes = np.stack([60 + 120 * x, 40 + 150 * y, 200 - 70 * x - 60 * y], axis=-1)
    ripples = 15 * np.sin(40 * x + 7 * y)[..., None] + 10 * np.cos(33 * y)[..., None] * np.array([1.0, 0.5, -1.0])
    disc = ((x - 0.6) ** 2 + (y - 0.4) ** 2 < 0.04)[..., None] * np.array([40.0, -30.0, 20.0])
    bars = ((x * 8).astype(int) % 4 == 0)[..., None] * (y > 0.7)[..., None] * 30.0
    return np.asarray(slopes + ripples + disc + bars)


def truncated(values: np.ndarray) -> np.ndarray:
    return np.clip(np.floor(values), 0, 255).astype(np.uint8)


def noise(sigma: float, side: int = SIDE, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(0.0, sigma, (side, side, 3))


def grey(level: int, side: int = SIDE) -> np.ndarray:
    return np.full((side, side, 3), level, np.uint8)


REFERENCE = truncated(scene())
