"""A picture of where an engine departs from its reference: the absolute difference in colours, with its scale."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..engines.errors import UsageError

Picture = NDArray[np.uint8]

# Full scales in grey levels; the next one above the largest difference is used, so that maps can be compared by eye.
FULL_SCALES = (1, 2, 4, 8, 16, 32, 64, 128, 255)


def colour_table() -> Picture:
    """256 colours from black to white, uint8 ``[256, 3]`` RGB, whose perceived brightness grows all the way.

    Source: D. A. Green, "A colour scheme for the display of astronomical intensity images", Bulletin of the
    Astronomical Society of India 39, 2011, equation 2 (cubehelix), with his start 0.5, rotations -1.5, hue 1, gamma 1.
    """
    brightness = np.linspace(0.0, 1.0, 256)
    angle = 2.0 * np.pi * (0.5 / 3.0 + 1.0 - 1.5 * brightness)
    amplitude = brightness * (1.0 - brightness) / 2.0
    towards = np.array([[-0.14861, 1.78277], [-0.29227, -0.90649], [1.97294, 0.0]])
    turned = towards @ np.stack([np.cos(angle), np.sin(angle)])
    colours = (brightness + amplitude * turned).T
    return np.asarray(np.rint(np.clip(colours, 0.0, 1.0) * 255.0), dtype=np.uint8)


@dataclass(frozen=True)
class ErrorMap:
    """``picture``: uint8 ``[H, W, 3]`` RGB, its own memory. Black is no difference, white ``full_scale`` grey levels.

    ``amplification``: how many steps of the 255 in the colour table one grey level of difference makes.
    """

    picture: Picture
    full_scale: int

    @property
    def amplification(self) -> float:
        return 255.0 / self.full_scale


def error_map(reference: Picture, got: Picture, full_scale: int | None = None) -> ErrorMap:
    """The largest absolute difference of the three channels at each pixel, in the colours of ``colour_table``.

    Both are uint8 ``[H, W, 3]`` RGB. ``full_scale``: the difference that is white, in grey levels, of ``FULL_SCALES``
    or any other from 1 to 255; by itself the least of ``FULL_SCALES`` that holds all. Differences beyond it are white
    too. Raises UsageError for other arrays or scales.
    """
    _refuse(reference, got, full_scale)
    difference = np.abs(reference.astype(np.int16) - got).max(axis=2)
    largest = int(difference.max())
    scale = next(known for known in FULL_SCALES if known >= largest) if full_scale is None else full_scale
    index = np.minimum(np.rint(difference * (255.0 / scale)), 255).astype(np.uint8)
    return ErrorMap(colour_table()[index], scale)


def _refuse(reference: Picture, got: Picture, full_scale: int | None) -> None:
    shapes: Sequence[tuple[int, ...]] = (reference.shape, got.shape)
    good = all(picture.dtype == np.uint8 for picture in (reference, got)) and shapes[0] == shapes[1]
    if not good or reference.ndim != 3 or reference.shape[2] != 3 or reference.size == 0:
        raise UsageError(
            "these are not two pictures of one size",
            expected="uint8 [H,W,3], twice",
            got=f"{reference.dtype.name} {list(shapes[0])} and {got.dtype.name} {list(shapes[1])}",
        )
    if full_scale is not None and not 1 <= full_scale <= 255:
        raise UsageError("this scale does not fit an error map", expected="1 to 255 grey levels", got=str(full_scale))
