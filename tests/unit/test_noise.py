from __future__ import annotations

import numpy as np
import pytest
import torch
from edgeturbo.engines.errors import UsageError
from edgeturbo.runtime.noise import TorchNormal, randn

SHAPES = [(), (1,), (4, 1, 1), (15,), (4, 2, 2), (17,), (31,), (4, 3, 5), (4, 64, 64), (1, 4, 135, 240), (2, 4, 64, 64)]
SEEDS = [0, 42, 2**32 + 5, 2**63, 2**64 - 1, -1, -(2**63)]


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_draws_what_torch_draws(shape, seed):
    torch.manual_seed(seed)
    expected = torch.randn(shape).numpy()
    drawn = randn(shape, seed)
    assert drawn.dtype == np.float32
    assert drawn.shape == expected.shape
    np.testing.assert_allclose(drawn, expected, rtol=0, atol=1e-6)


def test_a_sequence_goes_on_as_torchs_generator_does():
    torch.manual_seed(3)
    sequence = TorchNormal(3)
    for shape in [(3,), (16,), (5,), (17,), (4,), (4, 8, 8), (1,)]:  # odd counts leave a spare value behind
        np.testing.assert_allclose(sequence.randn(shape), torch.randn(shape).numpy(), rtol=0, atol=1e-6)


def test_nothing_is_drawn_for_an_empty_shape():
    assert randn((0, 4), 0).shape == (0, 4)


@pytest.mark.parametrize("seed", [2**64, -(2**63) - 1])
def test_a_seed_that_torch_refuses_is_refused(seed):
    with pytest.raises(UsageError, match="out of range"):
        randn((4,), seed)
