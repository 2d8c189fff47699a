"""A picture of where an engine departs from its reference: the absolute difference in colours, with its scale."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from ..engines.errors import UsageError

Picture = NDArray[np.uint8]

# Full scales in grey levels; the next one above the largest difference is used, so that maps can be compared by eye.
FULL_SCALES = (1, 2, 4, 8, 16, 32, 64, 128, 255)

_TEXT, _PAPER, _GAP = (20, 20, 20), (255, 255, 255), 4
_BAR, _LINE = 10, 14  # pixels: the height of the scale, and of a line of text


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


def side_by_side(reference: Picture, got: Picture, full_scale: int | None = None, name: str = "engine") -> Picture:
    """Reference, engine and error map in one row, each with its title, and the map's scale under it.

    Returns uint8 RGB, ``3 W + 8`` pixels wide and 42 higher than the pictures, which stand in it unchanged; ``name``
    is the engine's title, cut where it leaves its picture. Raises what ``error_map`` raises.
    """
    made = error_map(reference, got, full_scale)
    height, width = reference.shape[:2]
    sheet = Image.new("RGB", (3 * width + 2 * _GAP, height + 3 * _LINE), _PAPER)
    titles = ("reference", name, _title(made))
    for column, (picture, title) in enumerate(zip((reference, got, made.picture), titles, strict=True)):
        left = column * (width + _GAP)
        sheet.paste(_text(title, width), (left, 0))
        sheet.paste(Image.fromarray(picture), (left, _LINE))
    sheet.paste(_scale_bar(made, width), (2 * (width + _GAP), height + _LINE))
    return np.array(sheet)


def _title(made: ErrorMap) -> str:
    return f"|difference| x{made.amplification:.4g}"


def _scale_bar(made: ErrorMap, width: int) -> Image.Image:
    """The colours from none to the full scale, and their grey levels below: ``width`` by two lines."""
    bar = Image.new("RGB", (width, 2 * _LINE), _PAPER)
    ramp = np.rint(np.linspace(0, 255, width)).astype(np.uint8)
    bar.paste(Image.fromarray(np.repeat(colour_table()[ramp][None], _BAR, axis=0)), (0, 2))
    full = str(made.full_scale)
    draw, font = ImageDraw.Draw(bar), _font()
    draw.text((0, _LINE), "0", _TEXT, font)
    end = width - draw.textlength(full, font)
    draw.text((end, _LINE), full, _TEXT, font)
    middle = "grey levels"
    start = (width - draw.textlength(middle, font)) / 2
    if start > draw.textlength("0 ", font) and start + draw.textlength(middle + " ", font) < end:
        draw.text((start, _LINE), middle, _TEXT, font)
    return bar


def _text(text: str, width: int) -> Image.Image:
    line = Image.new("RGB", (width, _LINE), _PAPER)
    ImageDraw.Draw(line).text((0, 1), text, _TEXT, _font())
    return line


def _font() -> ImageFont.ImageFont | ImageFont.FreeTypeFont:
    # Pillow brings it: no font of the system is needed, and every machine draws the same.
    return ImageFont.load_default()


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
