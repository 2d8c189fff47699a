"""Input and output pairs that travel with a bundle, so that every device can be held to them."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from ..runtime.goldens import golden_names
from .samples import Sample


def write_goldens(folder: Path, taken: tuple[Sample, ...], images: list[Any], limit: int) -> None:
    """Write ``<n>_frame.png`` and ``<n>_image.png``: as many pairs as ``limit`` bytes hold, and one at the least.

    The frame is what the engine takes, already prepared; noise inputs are what seed 42 draws. The image is what ONNX
    Runtime computes on the CPU from the bundle's graph, after the parity gate has held it to PyTorch. Each PNG holds
    the tensor as it is, without its batch axis: a tensor [H, W, 1 to 4] as one of so many channels, whatever they
    mean, and one [H, W] as grey.
    """
    folder.mkdir()
    pairs = [(_png(sample.frame), _png(image)) for sample, image in zip(taken, images, strict=True)]
    sizes = [len(frame) + len(image) for frame, image in pairs]
    kept: list[int] = []
    for index, size in enumerate(sizes):
        if size + sum(sizes[i] for i in kept) <= limit:
            kept.append(index)
    # Without a pair no device could be held to anything: better a bundle above its limit.
    for number, index in enumerate(kept or [sizes.index(min(sizes))]):
        for name, data in zip(golden_names(number), pairs[index], strict=True):
            (folder / name).write_bytes(data)


def _png(picture: Any) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(np.asarray(picture, dtype=np.uint8)).save(stream, "PNG", optimize=True)
    return stream.getvalue()
