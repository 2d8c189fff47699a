"""The picture shown while a camera is away."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from PIL import Image, ImageDraw, ImageFont

if TYPE_CHECKING:
    from numpy.typing import NDArray

_TEXT = "NO SIGNAL"
_LIGHT, _DARK = (235, 235, 235), (24, 24, 24)
# The text's height and the band behind it, as parts of the picture's height.
_TEXT_PART, _BAND_PART = 0.08, 0.16


def no_signal_card(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """A new uint8 ``[H, W, 3]`` picture: ``image`` in grey and darkened, with NO SIGNAL across it.

    What was last seen stays recognisable and cannot be taken for what is there now.
    """
    card = Image.fromarray(image).convert("L").point(lambda level: level // 3).convert("RGB")
    width, height = card.size
    draw = ImageDraw.Draw(card)
    font = ImageFont.load_default(size=max(height * _TEXT_PART, 6))
    band = height * _BAND_PART / 2
    draw.rectangle((0, height / 2 - band, width, height / 2 + band), fill=_DARK)
    draw.text((width / 2, height / 2), _TEXT, fill=_LIGHT, font=font, anchor="mm")
    return np.asarray(card)
