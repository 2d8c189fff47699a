"""Input and output pairs that travel with a bundle, so that every device can be held to them."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from .samples import Sample


def write_goldens(folder: Path, taken: tuple[Sample, ...], images: list[Any], limit: int) -> None:
    """Write ``<n>_frame.png`` and ``<n>_image.png``, uint8 RGB at the model's size, while ``limit`` bytes hold them.

    The frame is what the engine takes, already prepared; noise inputs are what seed 42 draws. The image is what ONNX
    Runtime computes on the CPU from the bundle's graph, after the parity gate has held it to PyTorch.
    """
    folder.mkdir()
    room = limit
    for index, (sample, image) in enumerate(zip(taken, images, strict=True)):
        pair = {f"{index}_frame.png": _png(sample.frame), f"{index}_image.png": _png(image)}
        room -= sum(len(data) for data in pair.values())
        if room < 0:
            return
        for name, data in pair.items():
            (folder / name).write_bytes(data)


def _png(picture: Any) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(np.asarray(picture, dtype=np.uint8)).save(stream, "PNG", optimize=True)
    return stream.getvalue()
