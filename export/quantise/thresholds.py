"""From a histogram to a threshold: the magnitude that becomes a format's largest. What lies above saturates.

Entropy and percentile are ONNX Runtime's own, fed with our histograms; the mean squared error it does not have.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Mapping
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from .formats import Format, dequantised, quantised
from .statistics import Histogram

Method = Literal["max", "entropy", "percentile", "mse"]
METHODS: tuple[Method, ...] = get_args(Method)

# The best of all on the demo's photograph at 512x512, every product quantised, in dB against the FP16 picture:
# INT8 mse 50.7, percentile 99.99 49.1, 99.999 48.9, max 48.4, percentile 99.9 47.2, entropy 33.4; FP8 percentile
# 99.999 51.2, 99.99 50.7, mse 50.1, max 50.1, percentile 99.9 46.6, entropy 33.6.
DEFAULT_METHODS: dict[str, Method] = {"int8": "mse", "fp8": "percentile"}
DEFAULT_PERCENTILE = 99.999

# KL divergence compares a histogram with one of as many bins as the format has levels: 255 for symmetric INT8
# (S. Migacz, "8-bit inference with TensorRT", GTC 2017). E4M3's levels are no bins of one width; its thresholds are
# those of INT8, as in ModelOpt's int8_to_fp8.
_LEVELS = 255
_ENTROPY_BINS = 512  # of magnitudes: ONNX Runtime's search takes time by their square, about 0.5 s for these
_MSE_STEPS = 96  # candidates from 1/16 of the largest magnitude to all of it, evenly spaced in logarithm: 3 % apart
_MSE_LEAST = 1 / 16


def thresholds(
    histograms: Mapping[str, Histogram], method: Method, form: Format, percentile: float = DEFAULT_PERCENTILE
) -> dict[str, float]:
    """A threshold for each histogram, above 0 wherever anything but zeros was seen; 0 for all zeros.

    ``percentile``, in percent, is for that method alone: so many of the magnitudes lie below the threshold.
    """
    if method == "max":
        return {name: histogram.largest for name, histogram in histograms.items()}
    if method == "mse":
        return {name: _least_error(histogram, form) for name, histogram in histograms.items()}
    collector = _collector(histograms, method, percentile)
    with contextlib.redirect_stdout(io.StringIO()):  # it prints its progress
        found = collector.compute_collection_result()
    return {name: min(float(found[name][1]), histogram.largest) for name, histogram in histograms.items()}


def _collector(histograms: Mapping[str, Histogram], method: Method, percentile: float) -> Any:
    """ONNX Runtime's collector, holding our histograms. Entropy takes both signs, percentile magnitudes."""
    from onnxruntime.quantization.calibrate import HistogramCollector

    collector = HistogramCollector(
        method=method, symmetric=True, num_bins=_ENTROPY_BINS, num_quantized_bins=_LEVELS, percentile=percentile,
        scenario="same",
    )  # fmt: skip
    make = _both_signs if method == "entropy" else _magnitudes
    collector.histogram_dict = {name: make(histogram) for name, histogram in histograms.items()}
    return collector


def _magnitudes(histogram: Histogram) -> tuple[NDArray[np.int64], NDArray[np.float32], np.float32, np.float32]:
    counts = histogram.seen()
    edges = np.arange(1, counts.size + 2, dtype=np.float32) * np.float32(histogram.width)  # upper ones, and a spare
    return counts, edges, np.float32(-histogram.largest), np.float32(histogram.largest)


def _both_signs(histogram: Histogram) -> tuple[NDArray[np.int64], NDArray[np.float32], np.float32, np.float32]:
    """The histogram and its mirror image, of 2 * _ENTROPY_BINS bins up to the largest magnitude that occurred."""
    counts = histogram.seen()
    step = -(-counts.size // _ENTROPY_BINS)
    padded = np.concatenate([counts, np.zeros(step * _ENTROPY_BINS - counts.size, np.int64)])
    half = padded.reshape(_ENTROPY_BINS, step).sum(1)
    edges = np.arange(-_ENTROPY_BINS, _ENTROPY_BINS + 1, dtype=np.float32) * np.float32(step * histogram.width)
    largest = np.float32(histogram.largest)
    return np.concatenate([half[::-1], half]), edges, -largest, largest


def _least_error(histogram: Histogram, form: Format) -> float:
    """The threshold at which rounding and saturation together have the least mean squared error."""
    if histogram.largest == 0.0:
        return 0.0
    counts = histogram.seen().astype(np.float64)
    centres = (np.arange(counts.size) + 0.5) * histogram.width
    candidates = histogram.largest * np.geomspace(_MSE_LEAST, 1.0, _MSE_STEPS)
    errors = [float((counts * (_rounded(centres, t, form) - centres) ** 2).sum()) for t in candidates]
    return float(candidates[int(np.argmin(errors))])


def _rounded(values: NDArray[Any], threshold: float, form: Format) -> NDArray[np.float32]:
    scale = np.asarray(threshold / form.largest, np.float32)
    return dequantised(quantised(values, scale, form), scale)
