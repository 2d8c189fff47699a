"""MS-SSIM, FLIP, and how well the edges of two pictures agree. Weight-free; PSNR and SSIM are in ``engines/parity``.

A picture is a uint8 array ``[H, W, 3]``, RGB, 0 to 255; both of a pair have one shape.
"""

from __future__ import annotations

import importlib
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ..engines import parity
from ..engines.errors import MissingComponentError, UsageError
from ..runtime.image import prepare

if TYPE_CHECKING:
    from collections.abc import Iterator

Picture = NDArray[np.uint8]
_Floats = NDArray[np.float64]

# Wang, Simoncelli and Bovik 2003, section 3.2: the exponents of the five scales, finest first.
_MS_WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)
# Each scale has half the pixels, rounded up; the coarsest still holds one window of 11: (11 - 1) 2^4 + 1.
MS_SSIM_SIDE = (parity.SSIM_WINDOW - 1) * 2 ** (len(_MS_WEIGHTS) - 1) + 1

# Pixels per degree of sight, FLIP's own default: a screen 0.7 m wide with 3840 pixels, seen from 0.7 m (Andersson et
# al. 2020, section 5).
FLIP_PPD = 3840 * math.pi / 180

BENCH_HINT = 'pip install "edgeturbo[bench]"'


def ms_ssim(a: Picture, b: Picture) -> float:
    """Multi-scale structural similarity over five scales, the mean over the channels; 1.0 for equal pictures.

    Contrast and structure count at every scale, luminance at the coarsest. A scale halves the one before by the mean of
    2x2 pixels, an odd last row or column doubled, as in the authors' code. A scale whose contrast term is negative (the
    pictures contradict each other) counts as 0. Symmetric. Raises UsageError below 161 pixels on a side.

    Source: Z. Wang, E. P. Simoncelli, A. C. Bovik, "Multi-scale structural similarity for image quality assessment",
    37th Asilomar Conference on Signals, Systems and Computers, 2003, equation 7.
    """
    if a.shape != b.shape or min(a.shape[:2]) < MS_SSIM_SIDE:
        raise UsageError(
            "these are not pictures that MS-SSIM can compare",
            expected=f"one shape, at least {MS_SSIM_SIDE} pixels on a side for {len(_MS_WEIGHTS)} scales",
            got=f"{list(a.shape)} and {list(b.shape)}",
        )
    product = np.ones(a.shape[2])
    for scale, (one, other) in enumerate(_scales(a.astype(np.float64), b.astype(np.float64))):
        whole, contrast = _terms(one, other)
        term = whole if scale == len(_MS_WEIGHTS) - 1 else contrast
        product *= np.maximum(term, 0.0) ** _MS_WEIGHTS[scale]
    return float(np.mean(product))


def _terms(a: _Floats, b: _Floats) -> tuple[_Floats, _Floats]:
    """SSIM, and its contrast and structure alone, as the mean over the window's positions: ``[C]`` each."""
    luminance, contrast = parity.ssim_terms(a, b)
    return (luminance * contrast).mean(axis=(0, 1)), contrast.mean(axis=(0, 1))


def _scales(a: _Floats, b: _Floats) -> Iterator[tuple[_Floats, _Floats]]:
    for scale in range(len(_MS_WEIGHTS)):
        if scale:
            a, b = _halved(a), _halved(b)
        yield a, b


def _halved(image: _Floats) -> _Floats:
    height, width, channels = image.shape
    even = np.pad(image, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")
    return np.asarray(even.reshape(even.shape[0] // 2, 2, -1, 2, channels).mean(axis=(1, 3)))


def flip(reference: Picture, got: Picture) -> float:
    """The mean LDR-FLIP error, 0 (no difference to be seen) to 1, at 67 pixels per degree; very nearly symmetric.

    Raises MissingComponentError without the ``flip-evaluator`` package (BSD-3-Clause, NVIDIA).

    Source: P. Andersson et al., "FLIP: A Difference Evaluator for Alternating Images", Proceedings of the ACM on
    Computer Graphics and Interactive Techniques 3(2), 2020.
    """
    try:
        evaluate = importlib.import_module("flip_evaluator").evaluate
    except ImportError as error:
        raise MissingComponentError("FLIP needs the flip-evaluator package", hint=BENCH_HINT) from error
    pictures = (np.ascontiguousarray(picture, np.float32) / np.float32(255) for picture in (reference, got))
    _, mean, _ = evaluate(*pictures, "LDR", applyMagma=False, parameters={"ppd": FLIP_PPD})
    return float(mean)


@dataclass(frozen=True)
class EdgeAgreement:
    """``f1``: 0 to 1. ``hausdorff_px``: in pixels; None where one of the two pictures alone has no edge."""

    f1: float
    hausdorff_px: float | None


def edge_agreement(reference: Picture, got: Picture) -> EdgeAgreement:
    """How well the canny edges of two pictures agree; symmetric in both figures.

    Edges are those of the published scripts (thresholds 100 and 200, ``runtime/image``). ``f1`` is the harmonic mean of
    precision and recall, pixel on pixel: no neighbour counts. The Hausdorff distance is the farthest that an edge pixel
    of one picture lies from the nearest of the other, whichever way is farther; one stray edge sets it. Without an edge
    in both they agree: 1 and 0. Raises MissingComponentError without OpenCV.
    """
    try:
        one, other = _edges(reference), _edges(got)
    except MissingComponentError as error:
        raise MissingComponentError("canny edges need OpenCV", hint=BENCH_HINT) from error
    count = int(one.sum()) + int(other.sum())
    if count == 0:
        return EdgeAgreement(1.0, 0.0)
    f1 = 2.0 * int((one & other).sum()) / count
    if not one.any() or not other.any():
        return EdgeAgreement(f1, None)
    return EdgeAgreement(f1, max(_farthest(one, other), _farthest(other, one)))


def _edges(picture: Picture) -> NDArray[np.bool_]:
    height, width = picture.shape[:2]
    return np.asarray(prepare(picture, width, height, "canny")[:, :, 0] > 0)


def _farthest(from_edges: NDArray[np.bool_], to_edges: NDArray[np.bool_]) -> float:
    import cv2

    # DIST_MASK_PRECISE is the exact Euclidean distance to the nearest zero.
    distances = cv2.distanceTransform((~to_edges).astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    return round(float(distances[from_edges].max()), 4)
