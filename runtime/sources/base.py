"""What all sources here share: frames are numbered, flipped and described, faults are counted."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

import numpy as np

from ...engines.errors import SourceError
from ..frame import Frame, FrameSource, StreamInfo

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ..options import StreamOptions

    Image = NDArray[np.uint8]

FLIPPED: Mapping[str, Callable[[Image], Image]] = {
    "none": lambda image: image,
    "counterclockwise": lambda image: np.rot90(image, 1),
    "rotate-180": lambda image: image[::-1, ::-1],
    "clockwise": lambda image: np.rot90(image, -1),
    "horizontal": lambda image: image[:, ::-1],
    "vertical": lambda image: image[::-1],
    "upper-left-diagonal": lambda image: image.swapaxes(0, 1),
    "upper-right-diagonal": lambda image: image[::-1, ::-1].swapaxes(0, 1),
}


class Source(FrameSource):
    """``faults`` counts by reason what was lost or repaired on the way, since the source was made.

    An interruption holds until ``close``: ``read`` then gives TIMEOUT, and ``open`` raises SourceError.
    """

    live = False

    def __init__(self, description: str, options: StreamOptions) -> None:
        self.description = description
        self.options = options
        self._faults: Counter[str] = Counter()
        self._interrupted = threading.Event()
        self._info: StreamInfo | None = None
        self._rate: float | None = None
        self._delivered = 0

    @property
    def info(self) -> StreamInfo:
        if self._info is None:
            raise SourceError(f"{self.description} is not open", reason="closed")
        return self._info

    @property
    def faults(self) -> Mapping[str, int]:
        return {reason: count for reason, count in self._faults.items() if count}

    def interrupt(self) -> None:
        self._interrupted.set()

    def _refuse_interrupted(self) -> None:
        if self._interrupted.is_set():
            raise SourceError(f"opening {self.description} was interrupted", reason="interrupted")

    def _describe(self, image: Image) -> None:
        height, width = image.shape[:2]
        if self._info is None or (self._info.width, self._info.height) != (width, height):
            self._info = StreamInfo(width, height, self._rate, self.description)

    def _flipped(self, image: Image) -> Image:
        return np.ascontiguousarray(FLIPPED[self.options.flip](image))

    def _deliver(self, image: Image, pts_ns: int | None, captured_ns: int) -> Frame:
        flipped = self._flipped(image)
        self._describe(flipped)
        self._delivered += 1
        return Frame(flipped, self._delivered - 1, pts_ns, captured_ns)
