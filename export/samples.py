"""The frames that an export is checked on: bundled photographs, then synthetic ones. Tracing uses none of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ..engines.base import TensorSpec
from ..engines.manifest import FRAME
from ..runtime.image import load_frame, prepare
from ..runtime.noise import TorchNormal
from .demo import demo_frames
from .trace import GraphShape

if TYPE_CHECKING:
    from ..engines.manifest import InputPrep

# The runtime's default seed, so that the bundle's goldens are what `turbo-run` computes.
SEED = 42


@dataclass(frozen=True)
class Sample:
    """One frame at the model's size, uint8 [H, W, 3] RGB, prepared; and the noise inputs, float32 [1, 4, H/8, W/8]."""

    frame: NDArray[np.uint8]
    noises: dict[str, NDArray[np.float32]]


def samples(shape: GraphShape, input_prep: InputPrep, count: int) -> tuple[Sample, ...]:
    """``count`` samples for a graph of ``shape``, always the same ones."""
    normal = TorchNormal(SEED)
    noises = {spec.name: normal.randn((1, *spec.shape[1:])) for spec in shape.inputs if spec.name != FRAME}
    photographs = demo_frames()
    frames = (
        prepare(
            load_frame(photographs[i]) if i < len(photographs) else _synthetic(i), shape.width, shape.height, input_prep
        )
        for i in range(count)
    )
    return tuple(Sample(frame, noises) for frame in frames)


def batches(taken: tuple[Sample, ...], inputs: tuple[TensorSpec, ...]) -> list[dict[str, NDArray[np.generic]]]:
    """Feeds of the graph's batch size, the last one filled up with its last sample."""
    size = inputs[0].shape[0]
    feeds = []
    for start in range(0, len(taken), size):
        chunk = [taken[min(i, len(taken) - 1)] for i in range(start, start + size)]
        feed: dict[str, NDArray[np.generic]] = {FRAME: np.stack([sample.frame for sample in chunk])}
        for name in chunk[0].noises:
            feed[name] = np.concatenate([sample.noises[name] for sample in chunk])
        feeds.append(feed)
    return feeds


def _synthetic(seed: int, size: int = 512) -> NDArray[np.uint8]:
    """Soft coloured shapes with some grain: smooth areas, edges and texture, uint8 [512, 512, 3]."""
    random = np.random.default_rng(seed)
    y, x = np.mgrid[0:size, 0:size] / size
    waves = sum(
        np.sin(2 * np.pi * (a * x + b * y + c))[..., None] * random.random(3) for a, b, c in random.random((6, 3)) * 6
    )
    disc = (np.hypot(x - 0.5, y - 0.4) < 0.2)[..., None] * random.random(3) * 3
    picture = waves + disc + random.normal(0, 0.1, (size, size, 3))
    low, high = picture.min(), picture.max()
    return np.asarray((picture - low) / (high - low) * 255, dtype=np.uint8)
