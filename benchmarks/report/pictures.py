"""Pictures as bytes for a report: small enough to mail, large enough to judge."""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from ..error_map import error_map

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ..row_suite import Shown

_LARGEST = 768
_COLOURS = 256


@dataclass(frozen=True)
class Shot:
    """A picture, uint8 ``[H, W, 3]`` RGB, and its file's bytes, of ``kind`` ``jpeg`` or ``png``."""

    picture: NDArray[np.uint8]
    kind: str
    content: bytes


def triptych(shown: Shown) -> dict[str, Shot]:
    """What is expected, what the row made of it, and the difference, by their captions; all at one size.

    Only the difference is without loss: what one grey level of it looks like must survive, and nobody sees it in the
    two pictures.
    """
    mapped = error_map(shown.expected, shown.got)
    caption = f"difference; white is {mapped.full_scale} grey level{'s' if mapped.full_scale > 1 else ''}"
    return {
        "reference": Shot(shown.expected, "jpeg", jpeg(shown.expected)),
        "this row": Shot(shown.got, "jpeg", jpeg(shown.got)),
        caption: Shot(mapped.picture, "png", png(mapped.picture)),
    }


def before_and_after(shown: Shown) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """The frame and the image at the image's size."""
    height, width = shown.got.shape[:2]
    frame = Image.fromarray(shown.frame).resize((width, height), Image.Resampling.LANCZOS)
    return np.asarray(frame), shown.got


def jpeg(picture: NDArray[np.uint8]) -> bytes:
    return _encoded(_fitted(picture), "JPEG", quality=88)


def png(picture: NDArray[np.uint8]) -> bytes:
    """Without loss, and a byte for each pixel where the picture has no more than 256 colours, as an error map has."""
    image = _fitted(picture)
    pixels = np.asarray(image)
    colours, index = np.unique(pixels.reshape(-1, 3), axis=0, return_inverse=True)
    if len(colours) <= _COLOURS:
        image = Image.fromarray(index.reshape(pixels.shape[:2]).astype(np.uint8), "L")
        image.putpalette(colours.astype(np.uint8).tobytes())
    return _encoded(image, "PNG", optimize=True)


def _fitted(picture: NDArray[np.uint8]) -> Image.Image:
    image = Image.fromarray(picture)
    image.thumbnail((_LARGEST, _LARGEST), Image.Resampling.LANCZOS)
    return image


def _encoded(image: Image.Image, kind: str, **options: int) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()
