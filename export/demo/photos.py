"""Training data of the demo checkpoint: photographs, their varied copies, relit twins, and random crops of both.

Pure NumPy and Pillow. Everything random follows from the seed, so a set of photographs gives the same batches anywhere.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from .relight import U8, Float, luma_of, relight, sky_mask

# Each photograph is squashed whole to these sizes (the frame pipeline squashes to 512x512 too), in so many variations.
SQUASHES = {512: 2, 384: 3, 256: 4}
_ODDS = {512: 0.5, 384: 0.3, 256: 0.2}  # how often a crop comes from each size


@dataclass(frozen=True)
class Pair:
    """A day picture and its relit version, uint8 [S, S, 3]."""

    day: U8
    night: U8

    def lit(self) -> float:
        """How much lamp light the night picture holds."""
        warmth = self.night[..., 0].astype(np.int16) - self.night[..., 2]
        return float(np.maximum(warmth, 0).mean())


@dataclass(frozen=True)
class Crops:
    """How to cut batches: `count` crops of `side` pixels; each the most lit of `tries`."""

    side: int
    count: int
    tries: int = 1


def load_pairs(folder: Path, seed: int) -> dict[int, list[Pair]]:
    """Squash, vary and relight every photograph of `folder`; the pairs by their size."""
    files = sorted(p for p in folder.iterdir() if p.suffix.lower() in {".jpg", ".jpeg", ".png"})
    if not files:
        raise FileNotFoundError(f"no photographs in {folder}")
    rng = np.random.default_rng(seed)
    pairs: dict[int, list[Pair]] = {size: [] for size in SQUASHES}
    for file in files:
        photo = Image.open(file).convert("RGB")
        for size, variations in SQUASHES.items():
            plain = np.asarray(photo.resize((size, size), Image.Resampling.LANCZOS))
            for number in range(variations):
                day = vary(plain, rng) if number else plain
                pairs[size].append(Pair(day, relight(day)))
    return pairs


def vary(image: U8, rng: np.random.Generator) -> U8:
    """Another light, other colours and perhaps another sky. uint8 [H, W, 3] to the same."""
    srgb = image.astype(np.float32) / 255.0
    if rng.random() < 0.6:
        srgb = _other_sky(srgb, rng)
    srgb = srgb ** rng.uniform(0.8, 1.25) * rng.uniform(0.75, 1.12)
    mean = srgb.mean()
    srgb = mean + (srgb - mean) * rng.uniform(0.85, 1.15)
    grey = srgb.mean(axis=2, keepdims=True)
    srgb = grey + (srgb - grey) @ _hue_turn(rng.uniform(-0.15, 0.15)) * rng.uniform(0.6, 1.3)
    srgb = srgb * rng.uniform(0.95, 1.05, size=3)  # white balance
    varied: U8 = (np.clip(srgb, 0.0, 1.0) * 255.0 + 0.5).astype(np.uint8)
    return varied


def _other_sky(srgb: Float, rng: np.random.Generator) -> Float:
    """Paint the sky pale and grey, or blue, with a gradient; clouds keep a part of their contrast."""
    mask = sky_mask(srgb, luma_of(srgb))[..., None]
    if rng.random() < 0.7:
        top, low = rng.uniform(0.70, 0.97, size=2)[:, None] + rng.uniform(-0.02, 0.02, size=3)
    else:
        top, low = np.array([[0.30, 0.50, 0.82], [0.62, 0.76, 0.92]]) * rng.uniform(0.85, 1.05)
    height = np.linspace(0.0, 1.0, len(srgb), dtype=np.float32)[:, None, None]
    grey = srgb.mean(axis=2, keepdims=True)
    clouds = rng.uniform(0.0, 0.7) * (grey - (grey * mask).sum() / (mask.sum() + 1.0))
    painted = top * (1.0 - height) + low * height + clouds
    other: Float = (srgb + mask * (painted - srgb)).astype(np.float32).clip(0.0, 1.0)
    return other


def _hue_turn(angle: float) -> Float:
    """A rotation of colour differences about the grey axis, [3, 3]."""
    cosine, sine = np.cos(angle), np.sin(angle) / np.sqrt(3.0)
    axis = np.full((3, 3), 1.0 / 3.0)
    cross = np.array([[0.0, -1.0, 1.0], [1.0, 0.0, -1.0], [-1.0, 1.0, 0.0]])
    turn: Float = (cosine * np.eye(3) + (1.0 - cosine) * axis + sine * cross).astype(np.float32)
    return turn


def batches(pairs: dict[int, list[Pair]], plan: Sequence[Crops], seed: int) -> Iterator[tuple[U8, U8]]:
    """Endless batches (day, night), uint8 [N, S, S, 3], going round in `plan`."""
    rng = np.random.default_rng(seed)
    while True:
        for crops in plan:
            tries = [[_crop(pairs, crops.side, rng) for _ in range(crops.tries)] for _ in range(crops.count)]
            chosen = [max(group, key=Pair.lit) for group in tries]
            yield np.stack([p.day for p in chosen]), np.stack([p.night for p in chosen])


def _crop(pairs: dict[int, list[Pair]], side: int, rng: np.random.Generator) -> Pair:
    sizes = [size for size in pairs if size >= side]
    odds = np.array([_ODDS[size] for size in sizes])
    group = pairs[int(rng.choice(sizes, p=odds / odds.sum()))]
    pair = group[rng.integers(len(group))]
    top, left = rng.integers(len(pair.day) - side + 1, size=2)
    step = int(rng.choice((-1, 1)))  # mirrored or not
    day, night = (p[top : top + side, left : left + side][:, ::step] for p in (pair.day, pair.night))
    return Pair(day, night)
