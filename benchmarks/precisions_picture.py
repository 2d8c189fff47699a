"""The same crop in every precision, and below each ten times its difference: one small JPEG."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image, ImageDraw, ImageFont

if TYPE_CHECKING:
    from numpy.typing import NDArray

_TEXT, _GAP = 26, 6
_LARGER = 10  # times, in the row of differences
_GREY = 128


def strip(
    exact: NDArray[np.uint8], shown: Mapping[str, NDArray[np.uint8]], box: tuple[int, int, int, int]
) -> Image.Image:
    """Crops side by side, each under its name, and below each ten times its difference from ``exact`` about grey.

    Pictures are uint8 [H, W, 3]; ``box``: left, upper, right, lower. Crops are shown at 200 %.
    """
    left, upper, right, lower = box
    crops = {name: picture[upper:lower, left:right] for name, picture in shown.items()}
    base = exact[upper:lower, left:right].astype(np.int16)
    columns = [_column(name, crop, base) for name, crop in crops.items()]
    return _beside(columns)


def _column(name: str, crop: NDArray[np.uint8], base: NDArray[np.int16]) -> Image.Image:
    difference = np.clip(_GREY + _LARGER * (crop.astype(np.int16) - base), 0, 255).astype(np.uint8)
    return _labelled(name, [crop, difference])


def _labelled(name: str, panels: Sequence[NDArray[np.uint8]]) -> Image.Image:
    images = [Image.fromarray(panel) for panel in panels]
    images = [image.resize((2 * image.width, 2 * image.height), Image.Resampling.NEAREST) for image in images]
    sheet = Image.new("RGB", (images[0].width, _TEXT + sum(image.height + _GAP for image in images)), "white")
    ImageDraw.Draw(sheet).text((4, 3), name, fill="black", font=ImageFont.load_default(17))
    top = _TEXT
    for image in images:
        sheet.paste(image, (0, top))
        top += image.height + _GAP
    return sheet


def _beside(columns: Sequence[Image.Image]) -> Image.Image:
    width = sum(column.width + _GAP for column in columns) - _GAP
    sheet = Image.new("RGB", (width, columns[0].height), "white")
    left = 0
    for column in columns:
        sheet.paste(column, (left, 0))
        left += column.width + _GAP
    return sheet
