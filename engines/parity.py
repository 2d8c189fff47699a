"""How alike two pictures are: PSNR and SSIM, in numpy alone so that every floor measures with the same ruler."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from .errors import UsageError

if TYPE_CHECKING:
    from numpy.typing import NDArray

# Wang et al. 2004, section III-B and III-C: an 11x11 Gaussian window of sigma 1.5, K1 = 0.01, K2 = 0.03, L = 255.
SSIM_WINDOW = 11
_SIGMA = 1.5
_C1 = (0.01 * 255.0) ** 2
_C2 = (0.03 * 255.0) ** 2

EIGHT_BITS = ("int8", "fp8", "mixed:int8", "mixed:fp8")  # of manifest.Precision: those that multiply eight bits

# What a gate wants of a generator of each precision, and what it insists on, as PSNR in dB against the reference's
# pictures. FP32 engines differ where truncation tips: one value in a hundred by one grey level is 68 dB. What 8 bits
# cost depends on the network: 35 dB is what Apple's converter of Stable Diffusion asks (torch2coreml.py of
# ml-stable-diffusion); below 25 dB an error is as large as a twentieth of the range, which nobody would call the same.
PSNR_TARGET_DB = {"fp16": 40.0, "fp32": 60.0, "int8-weights": 35.0, **dict.fromkeys(EIGHT_BITS, 35.0)}
PSNR_FLOOR_DB = {"fp16": 35.0, "fp32": 50.0, "int8-weights": 30.0, **dict.fromkeys(EIGHT_BITS, 25.0)}


def decibels(error: float, peak: float = 1.0) -> float:
    """The PSNR of a mean squared ``error`` where ``peak`` is the distance from black to white; ``inf`` for none."""
    return math.inf if error <= 0.0 else 10.0 * math.log10(peak * peak / error)


def rounded_db(value: float | None) -> float | None:
    """``value`` to 0.01 dB. JSON has no infinity: None says that nothing departs, or that nothing was measured."""
    return round(value, 2) if value is not None and math.isfinite(value) else None


def psnr(a: NDArray[Any], b: NDArray[Any], peak: float = 255.0) -> float:
    """Peak signal-to-noise ratio in dB: ``10 log10(peak^2 / mean((a - b)^2))``; ``inf`` when the two are equal.

    ``a`` and ``b`` have any one shape and any real dtype; ``peak`` is the distance from black to white. The mean is
    over every element, in float64. Raises UsageError when the shapes differ or there is nothing to compare.

    Source: ITU-T J.340 (2010), which defines it for pictures.
    """
    _same_shape(a, b)
    return decibels(float(np.mean(np.square(a.astype(np.float64) - b.astype(np.float64)))), peak)


def ssim(a: NDArray[np.uint8], b: NDArray[np.uint8]) -> float:
    """Structural similarity of two pictures, or the mean over a batch of pairs; 1.0 when they are equal.

    ``a`` and ``b`` are uint8 ``[H, W, 3]`` or ``[B, H, W, 3]``, at least 11 pixels high and wide. Each channel is
    compared by itself; the mean is over the channels and the positions where the window lies fully in the picture.
    Raises UsageError for anything else.

    Source: Z. Wang, A. C. Bovik, H. R. Sheikh, E. P. Simoncelli, "Image quality assessment: from error visibility to
    structural similarity", IEEE Transactions on Image Processing 13(4), 2004, equations 13 to 17.
    """
    _same_shape(a, b)
    if a.dtype != np.uint8 or b.dtype != np.uint8 or a.ndim not in (3, 4) or min(a.shape[-3:-1]) < SSIM_WINDOW:
        raise UsageError(
            "these are not pictures that SSIM can compare",
            expected="uint8 [H,W,C] or [B,H,W,C], at least 11 by 11 pixels",
            got=f"{a.dtype.name} {list(a.shape)} and {b.dtype.name} {list(b.shape)}",
        )
    if a.ndim == 3:
        return _ssim_of_one(a.astype(np.float64), b.astype(np.float64))
    return float(np.mean([ssim(one, other) for one, other in zip(a, b, strict=True)]))


def ssim_terms(a: NDArray[np.float64], b: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """SSIM's two factors at every position of the window: luminance, and contrast with structure (equations 6 and 13).

    ``a`` and ``b`` are float64 ``[H, W, C]`` of one shape, 0 to 255, at least 11 pixels high and wide.
    """
    mean_a, mean_b = _blur(a), _blur(b)
    variances = _blur(a * a) + _blur(b * b) - mean_a * mean_a - mean_b * mean_b
    covariance = _blur(a * b) - mean_a * mean_b
    luminance = (2.0 * mean_a * mean_b + _C1) / (mean_a * mean_a + mean_b * mean_b + _C1)
    return luminance, (2.0 * covariance + _C2) / (variances + _C2)


def _ssim_of_one(a: NDArray[np.float64], b: NDArray[np.float64]) -> float:
    luminance, contrast = ssim_terms(a, b)
    return float(np.mean(luminance * contrast))


def _blur(image: NDArray[np.float64]) -> NDArray[np.float64]:
    """The window's weighted mean at its valid positions: down the columns, then along the rows."""
    height, width = image.shape[0] - SSIM_WINDOW + 1, image.shape[1] - SSIM_WINDOW + 1
    weights = _weights()
    down = np.zeros((height, *image.shape[1:]))
    for i, weight in enumerate(weights):
        down += weight * image[i : i + height]
    along = np.zeros((height, width, *image.shape[2:]))
    for i, weight in enumerate(weights):
        along += weight * down[:, i : i + width]
    return along


def _weights() -> NDArray[np.float64]:
    offsets = np.arange(SSIM_WINDOW) - SSIM_WINDOW // 2
    weights = np.exp(-0.5 * np.square(offsets / _SIGMA))
    return np.asarray(weights / weights.sum(), dtype=np.float64)


@dataclass(frozen=True)
class Likeness:
    """Of the worst of several pairs of pictures: PSNR in dB, None when all are equal; SSIM; the most grey levels."""

    psnr_db: float | None
    ssim: float
    max_levels: int


def likeness(pairs: Sequence[tuple[NDArray[np.uint8], NDArray[np.uint8]]]) -> Likeness:
    """Compare at least one pair of uint8 pictures, each ``[H, W, C]`` or rows of a camera's frame, ``[rows, W]``.

    Of RGBA only the colours count: alpha is always 255. Pictures too small for SSIM's window are equal (1) or not (0).
    """
    shown = [(_colours(a), _colours(b)) for a, b in pairs]
    worst = min(psnr(a, b) for a, b in shown)
    return Likeness(
        psnr_db=rounded_db(worst),
        ssim=round(min(_ssim_of_any(a, b) for a, b in shown), 5),
        max_levels=max(int(np.abs(a.astype(np.int16) - b).max()) for a, b in shown),
    )


def _colours(picture: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return picture[..., None] if picture.ndim == 2 else picture[..., :3]


def _ssim_of_any(a: NDArray[np.uint8], b: NDArray[np.uint8]) -> float:
    return ssim(a, b) if min(a.shape[:2]) >= SSIM_WINDOW else float(np.array_equal(a, b))


def _same_shape(a: NDArray[Any], b: NDArray[Any]) -> None:
    if a.shape != b.shape or a.size == 0:
        raise UsageError(
            "two arrays to compare must have one shape, and something in it",
            expected=str(list(a.shape)),
            got=str(list(b.shape)),
        )
