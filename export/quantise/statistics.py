"""What is remembered of an activation: a histogram of fixed size, and the largest magnitude of each channel.

Nothing here grows with the number of frames, and what has been seen in pieces is exactly what it would be at once.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...engines.errors import RangeError

# A range is a power of two, so that between half of the bins and all of them lie below the largest magnitude: at least
# the 2048 that TensorRT's own calibrator and pytorch-quantization use.
BINS = 4096
_CHUNK = 1 << 20  # elements; a whole activation in float32 would be a quarter of a gigabyte


@dataclass
class Histogram:
    """How often each magnitude occurred: ``counts[i]`` of those from ``i`` to ``i + 1`` times ``2**exponent / BINS``.

    The range doubles when it must, and pairs of bins become one. Because its ends are powers of two, a value's bin is
    computed without rounding, and does not depend on what was seen before it.
    """

    name: str
    counts: NDArray[np.int64] = field(default_factory=lambda: np.zeros(BINS, np.int64))
    exponent: int = 0
    largest: float = 0.0

    def add(self, values: NDArray[Any]) -> None:
        """Count ``values``, float16 or float32 of any shape. Raises RangeError for one that is not finite."""
        flat = values.reshape(-1)
        for start in range(0, flat.size, _CHUNK):
            self._count(np.abs(flat[start : start + _CHUNK].astype(np.float32)))

    @property
    def width(self) -> float:
        """Of a bin."""
        return 2.0**self.exponent / BINS

    def seen(self) -> NDArray[np.int64]:
        """The counts up to the largest magnitude: more than BINS / 2 of them, or one when all was zero."""
        return self.counts[: int(self.largest / self.width) + 1]

    def _count(self, magnitudes: NDArray[np.float32]) -> None:
        largest = float(magnitudes.max())
        if not math.isfinite(largest):
            raise RangeError(
                f"{self.name} is not finite on a calibration frame",
                expected="finite activations", got=str(largest), hint="--precision fp32",
            )  # fmt: skip
        if largest > 0:
            self._reach(math.frexp(largest)[1])  # largest < 2**that
            self.largest = max(self.largest, largest)
        index = (magnitudes * np.float32(1 / self.width)).astype(np.int32)
        self.counts += np.bincount(index, minlength=BINS)

    def _reach(self, exponent: int) -> None:
        if self.largest == 0:
            self.exponent = exponent  # zeros alone so far, which are in the first bin whatever its width
        while self.exponent < exponent:
            self.counts = np.concatenate([self.counts.reshape(-1, 2).sum(1), np.zeros(BINS // 2, np.int64)])
            self.exponent += 1


@dataclass
class ChannelMaxima:
    """The largest magnitude of each position along the last axis, float32."""

    name: str
    largest: NDArray[np.float32] | None = None

    def add(self, values: NDArray[Any]) -> None:
        """Note ``values``, float16 or float32 [..., channels]."""
        rows = values.reshape(-1, values.shape[-1])
        found = np.maximum(rows.max(axis=0), -rows.min(axis=0)).astype(np.float32)
        self.largest = found if self.largest is None else np.maximum(self.largest, found)
