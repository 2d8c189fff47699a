"""The frames that an export is checked on: bundled photographs, then synthetic ones. Tracing uses none of them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ..engines.base import TensorSpec
from ..engines.manifest import FRAME
from ..runtime.colour import from_rgb, to_rgb, yuv_coding
from ..runtime.feeds import DEFAULT_SEED, drawn_noises
from ..runtime.image import load_frame, prepare
from .demo import demo_frames
from .trace import GraphShape

if TYPE_CHECKING:
    from ..engines.manifest import FrameLayout, InputPrep


@dataclass(frozen=True)
class Sample:
    """One frame as the engine takes it, uint8 without the batch axis; the noise inputs, float32 [1, 4, H/8, W/8].

    ``prepared``: what the network is shown, uint8 [H, W, 3] RGB at the model's size, when that is not the frame.
    """

    frame: NDArray[np.uint8]
    noises: dict[str, NDArray[np.float32]]
    prepared: NDArray[np.uint8] | None = None

    @property
    def shown(self) -> NDArray[np.uint8]:
        return self.frame if self.prepared is None else self.prepared


def samples(shape: GraphShape, input_prep: InputPrep, count: int) -> tuple[Sample, ...]:
    """``count`` samples for a graph of ``shape``, always the same ones.

    A camera's frames are made on the host from pictures, and what the network is shown is made of them on the host,
    too. The second of them is smooth, so that a pair of goldens fits its limit whatever the frame's size.
    """
    if shape.layout is not None:
        pictures = (_smooth() if i == 1 else _picture(i - (i > 1)) for i in range(count))
    else:
        pictures = (_picture(i) for i in range(count))
    return tuple(sampled(pictures, shape, input_prep))


def sampled(pictures: Iterable[NDArray[np.uint8]], shape: GraphShape, input_prep: InputPrep) -> Iterator[Sample]:
    """Pictures, uint8 [H, W, 3] RGB of any size, as a graph of ``shape`` takes them, one by one; the same noises."""
    noises = drawn_noises(shape.inputs, DEFAULT_SEED)
    for picture in pictures:
        if shape.layout is None:
            yield Sample(prepare(picture, shape.width, shape.height, input_prep), noises)
        else:
            yield _native(picture, shape, shape.layout, input_prep, noises)


def _native(
    picture: NDArray[np.uint8],
    shape: GraphShape,
    layout: FrameLayout,
    input_prep: InputPrep,
    noises: dict[str, NDArray[np.float32]],
) -> Sample:
    """The host's way: the picture as the camera would give it, and that frame as the network is shown it."""
    coding = yuv_coding(layout.matrix, layout.range)
    frame = from_rgb(prepare(picture, layout.width, layout.height, "raw"), layout.format, coding)
    shown = prepare(to_rgb(frame, layout.format, coding), shape.width, shape.height, input_prep)
    return Sample(frame, noises, shown)


def batches(taken: Iterable[Sample], inputs: tuple[TensorSpec, ...]) -> Iterator[dict[str, NDArray[np.generic]]]:
    """Feeds of the graph's batch size, one at a time, the last one filled up with its last sample."""
    size, samples_left = inputs[0].shape[0], iter(taken)
    while chunk := list(islice(samples_left, size)):
        chunk += [chunk[-1]] * (size - len(chunk))
        feed: dict[str, NDArray[np.generic]] = {FRAME: np.stack([sample.frame for sample in chunk])}
        for name in chunk[0].noises:
            feed[name] = np.concatenate([sample.noises[name] for sample in chunk])
        yield feed


def _picture(index: int) -> NDArray[np.uint8]:
    photographs = demo_frames()
    return load_frame(photographs[index]) if index < len(photographs) else _synthetic(index)


def _smooth(size: int = 64) -> NDArray[np.uint8]:
    """Broad bands of colour that fade into each other, uint8 [64, 64, 3]."""
    y, x = np.mgrid[0:size, 0:size] / size
    waves = [np.sin(np.pi * (a * x + b * y)) for a, b in ((1.0, 0.5), (0.5, -1.0), (-1.0, 1.5))]
    return np.asarray(np.stack(waves, axis=-1) * 100 + 127, dtype=np.uint8)


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
