"""PIL's LANCZOS as constant matrices, so that a graph resizes as the host does.

Pillow resizes 8-bit pictures in two passes, across and down, each rounded to 8 bits, with coefficients rounded to 22
fractional bits. Source: Pillow's ``src/libImaging/Resample.c`` (``precompute_coeffs``, ``normalize_coeffs_8bpc``,
``ImagingResampleHorizontal_8bpc``, ``ImagingResampleVertical_8bpc``). Pillow 13.0 goes down first where that is cheaper
(python-pillow/Pillow#9549), earlier ones never, and the pictures show it: so the installed one is asked.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import PIL
from PIL import Image

from ..engines.errors import MissingComponentError

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

# Resample.c: PRECISION_BITS is 32 - 8 - 2; the support of Lanczos with a = 3.
PRECISION_BITS = 22
_SUPPORT = 3.0
# Products of a pixel (8 bits) and a part of a coefficient (11 significant bits) are exact even where a matrix product
# rounds its inputs to TF32, and so are their sums in float32: whatever the pixels for reductions up to sixfold, and for
# any that a camera gives beyond. A coefficient has at most 23 bits: two parts.
_LOW_BITS = 12


def coefficients(size: int, new_size: int) -> NDArray[np.int64]:
    """[new_size, size]: what each of ``size`` pixels contributes to each new one, times ``2 ** PRECISION_BITS``."""
    scale = size / new_size
    stretch = max(scale, 1.0)
    matrix = np.zeros((new_size, size), np.int64)
    for new in range(new_size):
        centre = (new + 0.5) * scale
        first = max(int(centre - _SUPPORT * stretch + 0.5), 0)
        end = min(int(centre + _SUPPORT * stretch + 0.5), size)
        weights = [_lanczos((old - centre + 0.5) / stretch) for old in range(first, end)]
        total = sum(weights)
        # Half away from zero, as the C code rounds.
        matrix[new, first:end] = [
            int(math.copysign(0.5, weight) + weight / total * (1 << PRECISION_BITS)) for weight in weights
        ]
    return matrix


def parts(matrix: NDArray[np.int64]) -> NDArray[np.float32]:
    """``coefficients`` as sums of two, the high parts above the low ones: float32 [2 * new_size, size]."""
    high = (matrix + (1 << _LOW_BITS - 1)) >> _LOW_BITS
    both = np.concatenate([high << _LOW_BITS, matrix - (high << _LOW_BITS)])
    return (both / float(1 << PRECISION_BITS)).astype(np.float32)


@dataclass(frozen=True)
class Passes:
    """How pictures of one size become those of another: ``parts`` for each side, None for a side that stays."""

    across: NDArray[np.float32] | None
    down: NDArray[np.float32] | None
    down_first: bool


def passes(size: tuple[int, int], new_size: tuple[int, int]) -> Passes:
    """The passes of the installed Pillow; sizes are (width, height) in pixels.

    Raises MissingComponentError when that Pillow computes anything else than these passes do.
    """
    across, down = (None if old == new else coefficients(old, new) for old, new in zip(size, new_size, strict=True))
    return Passes(
        None if across is None else parts(across),
        None if down is None else parts(down),
        down_first=_goes_down_first(size, across, down),
    )


def resized(planes: Tensor, across: Tensor | None, down: Tensor | None, *, down_first: bool) -> Tensor:
    """float32 planes [B, C, H, W] of whole numbers, 0 to 255, resized as PIL does; the result is such planes, too.

    ``across`` is ``parts`` for the width, transposed, ``down`` for the height; None leaves that side as it is.
    """
    if down is not None and down_first:
        planes = _rounded(*(down @ planes).chunk(2, dim=2))
    if across is not None:
        planes = _rounded(*(planes @ across).chunk(2, dim=3))
    if down is not None and not down_first:
        planes = _rounded(*(down @ planes).chunk(2, dim=2))
    return planes


def _rounded(high: Tensor, low: Tensor) -> Tensor:
    """The sum to 8 bits, half up. The whole numbers go first: 8 and 22 bits would not fit a float32."""
    whole = high.floor()
    return (whole + (high - whole + low + 0.5).floor()).clamp(0.0, 255.0)


def _lanczos(x: float) -> float:
    return _sinc(x) * _sinc(x / _SUPPORT) if -_SUPPORT <= x < _SUPPORT else 0.0


def _sinc(x: float) -> float:
    return 1.0 if x == 0.0 else math.sin(math.pi * x) / (math.pi * x)


def _goes_down_first(size: tuple[int, int], across: NDArray[np.int64] | None, down: NDArray[np.int64] | None) -> bool:
    """Ask the installed Pillow, on noise: the orders differ in up to 40 % of its values."""
    if across is None and down is None:
        return False
    noise = np.random.default_rng(0).integers(0, 256, size[::-1], dtype=np.uint8)
    new_size = (size[0] if across is None else len(across), size[1] if down is None else len(down))
    expected = np.asarray(Image.fromarray(noise).resize(new_size, Image.Resampling.LANCZOS))
    for down_first in (False, True):
        picture = noise.astype(np.float64)
        for matrix, turned in ((down, False), (across, True))[:: 1 if down_first else -1]:
            picture = _one_pass(picture.T, matrix).T if turned else _one_pass(picture, matrix)
        if np.array_equal(picture, expected):
            return down_first
    raise MissingComponentError(
        f"Pillow {PIL.__version__} resizes in a way that this version cannot put into a graph",
        hint='pip install "pillow==13.0.0"',
    )


def _one_pass(columns: NDArray[np.float64], matrix: NDArray[np.int64] | None) -> NDArray[np.float64]:
    """Resize the first axis. Exact: 8 and 23 bits, and the sums of some hundred of their products, fit a float64."""
    if matrix is None:
        return columns
    return np.asarray(np.clip(np.floor((matrix @ columns) / (1 << PRECISION_BITS) + 0.5), 0, 255), dtype=np.float64)
