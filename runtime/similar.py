"""Whether a frame shows what the last translated one showed."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

if TYPE_CHECKING:
    from numpy.typing import NDArray

# Small enough to cost a millisecond at 1280x720 and to ignore the sensor's grain; large enough to see a walker.
_SIZE = (64, 36)


class SimilarFrames:
    """Compares frames with the last one that it called different, not with the last one it saw: drift adds up."""

    def __init__(self, threshold: float) -> None:
        """``threshold``: mean absolute difference in grey levels, 0 to 255, up to which two frames are alike."""
        self._threshold = threshold
        self._last: NDArray[np.int16] | None = None

    def like_last(self, image: NDArray[np.uint8]) -> bool:
        """``image`` is uint8 ``[H, W, 3]`` of any size; False for the first."""
        # reducing_gap shrinks by whole blocks first: every pixel counts, at a tenth of the time.
        small = Image.fromarray(image).resize(_SIZE, Image.Resampling.BOX, reducing_gap=2.0)
        seen = np.asarray(small, dtype=np.int16)
        if self._last is not None and float(np.abs(seen - self._last).mean()) <= self._threshold:
            return True
        self._last = seen
        return False
