"""The frames that FP16's ranges are measured on: photographs, and pictures more extreme than any camera's."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ..runtime.image import load_frame
from ..runtime.jobs import pictures_of
from .demo import demo_frames
from .samples import Sample, sampled

if TYPE_CHECKING:
    from ..engines.manifest import InputPrep
    from .trace import GraphShape

MOST_PICTURES = 64  # of a folder; a full-size model takes 15 to 40 s for each on a CPU
_FULL_SIZE = ("noise", "saturated")  # beside one photograph

_Picture = NDArray[np.uint8]


@dataclass(frozen=True)
class Calibration:
    """Frames to measure ranges on. ``source`` says in words what they are; ``names`` has one for each.

    ``frames()`` makes them anew, one at a time: only one is ever in memory.
    """

    source: str
    names: tuple[str, ...]
    frames: Callable[[], Iterator[Sample]]


def calibration(shape: GraphShape, input_prep: InputPrep, folder: Path | None, *, full_size: bool) -> Calibration:
    """The pictures in ``folder``, up to 64 of them evenly spread over their names; without one, the bundled frames.

    Those are two photographs and six extremes (``EXTREMES``); at full size, where each takes ORT 15 to 40 s, a
    photograph, noise and saturated colours. Raises UsageError for a folder without pictures, and while the frames are
    made ImageError for one that cannot be decoded.
    """
    if folder is not None:
        return _of_folder(folder, shape, input_prep)
    photographs = demo_frames()[: 1 if full_size else None]
    extremes = {name: make for name, make in EXTREMES.items() if not full_size or name in _FULL_SIZE}
    names = (*(path.name for path in photographs), *extremes)
    size = (shape.width, shape.height) if shape.layout is None else (shape.layout.width, shape.layout.height)

    def pictures() -> Iterator[_Picture]:
        yield from map(load_frame, photographs)
        yield from (make(*size) for make in extremes.values())

    return Calibration(f"bundled: {', '.join(names)}", names, lambda: sampled(pictures(), shape, input_prep))


def photographs(shape: GraphShape, input_prep: InputPrep, folder: Path | None) -> Calibration:
    """As ``calibration``, without the extremes: what eight bits' scales are for is what a camera sees."""
    if folder is not None:
        return _of_folder(folder, shape, input_prep)
    found = list(demo_frames())
    return _of_pictures(found, f"{len(found)} bundled photographs", shape, input_prep)


def _of_folder(folder: Path, shape: GraphShape, input_prep: InputPrep) -> Calibration:
    found = pictures_of(folder)
    count = min(len(found), MOST_PICTURES)
    taken = [found[index * len(found) // count] for index in range(count)]
    return _of_pictures(taken, f"{count} of {len(found)} pictures in {folder.name}", shape, input_prep)


def _of_pictures(paths: list[Path], source: str, shape: GraphShape, input_prep: InputPrep) -> Calibration:
    names = tuple(path.name for path in paths)
    return Calibration(source, names, lambda: sampled(map(load_frame, paths), shape, input_prep))


def _black(width: int, height: int) -> _Picture:
    return np.zeros((height, width, 3), np.uint8)


def _white(width: int, height: int) -> _Picture:
    return np.full((height, width, 3), 255, np.uint8)


def _noise(width: int, height: int) -> _Picture:
    return np.random.default_rng(42).integers(0, 256, (height, width, 3), np.uint8)


def _saturated(width: int, height: int) -> _Picture:
    """Squares of the eight corners of the RGB cube, eight to a side."""
    y, x = np.mgrid[0:height, 0:width]
    corner = (x * 8 // width + 3 * (y * 8 // height)) % 8
    return np.stack([(corner >> bit & 1) * 255 for bit in (2, 1, 0)], axis=-1).astype(np.uint8)


def _checkerboard(width: int, height: int) -> _Picture:
    """Black and white by the pixel: the highest frequency there is."""
    y, x = np.mgrid[0:height, 0:width]
    return np.repeat(((x + y) % 2 * 255).astype(np.uint8)[..., None], 3, axis=-1)


def _bright_pixel(width: int, height: int) -> _Picture:
    picture = _black(width, height)
    picture[height // 2, width // 2] = 255
    return picture


EXTREMES: dict[str, Callable[[int, int], _Picture]] = {
    "black": _black,
    "white": _white,
    "noise": _noise,
    "saturated": _saturated,
    "checkerboard": _checkerboard,
    "one bright pixel": _bright_pixel,
}
