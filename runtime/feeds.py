"""What an engine is fed beside the frame: every noise input, always the same numbers for the same seed."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ..engines.manifest import NOISE, POSTERIOR_NOISE
from .noise import TorchNormal

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ..engines.base import TensorSpec

# Drawn in this order from one seeded sequence, as the published scripts draw them.
NOISES = (NOISE, POSTERIOR_NOISE)
DEFAULT_SEED = 42  # the published scripts' and the goldens'


def drawn_noises(inputs: tuple[TensorSpec, ...], seed: int) -> dict[str, NDArray[np.float32]]:
    """For each noise input a new float32 array [1, 4, h, w]: what ``torch.manual_seed(seed)`` and ``randn`` draw.

    Raises UsageError for a seed out of range.
    """
    sequence = TorchNormal(seed)
    shapes = {spec.name: spec.shape for spec in inputs}
    return {name: sequence.randn((1, *shapes[name][1:])) for name in NOISES if name in shapes}


def batched(noises: dict[str, NDArray[np.float32]], batch: int) -> dict[str, NDArray[np.float32]]:
    """The same draw for every frame of a batch: no picture depends on which others it was translated with."""
    return {name: np.repeat(values, batch, axis=0) for name, values in noises.items()}
