"""The normal numbers that PyTorch would draw on a CPU, without PyTorch.

The published sketch model starts from ``torch.manual_seed(seed); torch.randn(...)``: to show the same picture, the
same numbers are needed. Source: PyTorch's ``aten/src/ATen/native/cpu/DistributionTemplates.h`` (``normal_fill``) and
``aten/src/ATen/core/DistributionsHelper.h`` (``normal_distribution``), followed here in numpy.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ..engines.errors import InputError, UsageError

if TYPE_CHECKING:
    from numpy.typing import NDArray

# PyTorch fills 16 values at a time (8 pairs of the Box-Muller transform), and goes one by one below that.
_BLOCK = 16
_PAIRS = 8


class TorchNormal:
    """A sequence of draws: each ``randn`` goes on where the last stopped, as PyTorch's default generator does.

    ``seed`` is any integer that ``torch.manual_seed`` takes, -2^63 to 2^64 - 1; only its low 32 bits matter on a CPU.
    Raises UsageError for another one.
    """

    def __init__(self, seed: int) -> None:
        if not -(2**63) <= seed < 2**64:
            raise UsageError("the seed is out of range", expected="-2^63 to 2^64 - 1", got=str(seed))
        self._words = np.random.RandomState(seed & 0xFFFF_FFFF)
        self._spare: float | None = None

    def randn(self, shape: tuple[int, ...]) -> NDArray[np.float32]:
        """A new float32 array of ``shape``: mean 0, variance 1, equal to ``torch.randn(shape)`` within 1e-6.

        The last bits can differ: PyTorch itself uses other logarithms and sines on other processors.
        """
        count = math.prod(shape)
        values = self._filled(count) if count >= _BLOCK else self._one_by_one(count)
        return values.reshape(shape)

    def _filled(self, count: int) -> NDArray[np.float32]:
        values = self._uniform(count)
        whole = count - count % _BLOCK
        values[:whole] = _box_muller(values[:whole])
        if whole < count:
            # PyTorch draws 16 new numbers for the end, over some that were already made normal.
            values[-_BLOCK:] = _box_muller(self._uniform(_BLOCK))
        return values

    def _uniform(self, count: int) -> NDArray[np.float32]:
        words = self._words.randint(0, 2**32, count, dtype=np.uint32)
        return (words & 0xFF_FFFF).astype(np.float32) * np.float32(2.0**-24)

    def _one_by_one(self, count: int) -> NDArray[np.float32]:
        return np.array([self._one() for _ in range(count)], dtype=np.float32)

    def _one(self) -> float:
        """One number in double precision. Each second one was made with the first; it also outlives a larger draw."""
        if self._spare is not None:
            value, self._spare = self._spare, None
            return value
        turn, depth = self._uniform_double(), self._uniform_double()
        radius = math.sqrt(-2.0 * math.log1p(-depth))
        self._spare = radius * math.sin(2.0 * math.pi * turn)
        return radius * math.cos(2.0 * math.pi * turn)

    def _uniform_double(self) -> float:
        high, low = self._words.randint(0, 2**32, 2, dtype=np.uint32).tolist()
        return float((high << 32 | low) & (2**53 - 1)) * 2.0**-53


def randn(shape: tuple[int, ...], seed: int) -> NDArray[np.float32]:
    """What ``torch.manual_seed(seed); torch.randn(shape)`` draws on a CPU, as a new float32 array of ``shape``."""
    return TorchNormal(seed).randn(shape)


def load_noise(path: Path) -> NDArray[np.float32]:
    """The array in a ``.npy`` file, never anything that would need unpickling. Raises InputError."""
    try:
        array = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise InputError(
            f"{path} is not a .npy file of numbers: {error}", hint="numpy.save('noise.npy', noise.astype('float32'))"
        ) from error
    if not isinstance(array, np.ndarray):
        raise InputError(f"{path} holds several arrays", expected="one array, saved by numpy.save")
    return array


def _box_muller(uniform: NDArray[np.float32]) -> NDArray[np.float32]:
    blocks = uniform.reshape(-1, 2, _PAIRS)
    radius = np.sqrt(np.float32(-2.0) * np.log(np.float32(1.0) - blocks[:, 0]))
    angle = np.float32(2.0 * math.pi) * blocks[:, 1]
    return np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=1).reshape(-1)
