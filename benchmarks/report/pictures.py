"""Pictures as bytes for a report: small enough to mail, large enough to judge."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from ..error_map import error_map

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ..suite import Shown

_LARGEST = 768


def triptych(shown: Shown) -> dict[str, NDArray[np.uint8]]:
    """What is expected, what the row made of it, and the difference, by their captions; all at one size."""
    mapped = error_map(shown.expected, shown.got)
    caption = f"difference; white is {mapped.full_scale} grey level{'s' if mapped.full_scale > 1 else ''}"
    return {"reference": shown.expected, "this row": shown.got, caption: mapped.picture}


def before_and_after(shown: Shown) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """The frame and the image at the image's size."""
    height, width = shown.got.shape[:2]
    frame = Image.fromarray(shown.frame).resize((width, height), Image.Resampling.LANCZOS)
    return np.asarray(frame), shown.got


def jpeg(picture: NDArray[np.uint8]) -> bytes:
    return _encoded(picture, "JPEG", quality=90)


def png(picture: NDArray[np.uint8]) -> bytes:
    """Without loss: what a difference of one grey level looks like must survive."""
    return _encoded(picture, "PNG", optimize=True)


def _encoded(picture: NDArray[np.uint8], kind: str, **options: int) -> bytes:
    image = Image.fromarray(picture)
    image.thumbnail((_LARGEST, _LARGEST), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()
