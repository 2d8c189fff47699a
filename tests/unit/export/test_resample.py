"""PIL's LANCZOS as matrices: equal to PIL itself, bit for bit, up and down, with and without TF32."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from edgeturbo.engines.errors import MissingComponentError
from edgeturbo.export import resample
from edgeturbo.export.resample import PRECISION_BITS, coefficients, parts, passes
from PIL import Image

SIZES = [
    ((1280, 720), (512, 512)), ((512, 512), (1280, 720)), ((640, 480), (512, 512)), ((512, 512), (640, 480)),
    ((1920, 1080), (768, 432)), ((101, 67), (64, 88)), ((33, 47), (129, 50)), ((64, 64), (64, 31)), ((9, 64), (48, 64)),
    ((1, 1), (8, 8)), ((7, 5), (16, 8)), ((200, 3), (8, 3)),
]  # fmt: skip


def pictures(width: int, height: int) -> dict[str, np.ndarray]:
    """Noise; black and white columns, whose edges overshoot; and a ramp."""
    random = np.random.default_rng(0)
    columns = np.broadcast_to(np.uint8(np.arange(width) // 3 % 2 * 255)[None, :, None], (height, width, 3))
    ramp = np.add.outer(np.arange(height), np.arange(width))[..., None] * np.array([1, 2, 3]) % 256
    return {
        "noise": random.integers(0, 256, (height, width, 3), dtype=np.uint8),
        "columns": columns.copy(),
        "ramp": ramp.astype(np.uint8),
    }


def lanczos(picture: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    return np.asarray(Image.fromarray(picture).resize(size, Image.Resampling.LANCZOS))


def planes(picture: np.ndarray) -> torch.Tensor:
    return torch.tensor(picture).permute(2, 0, 1)[None].float()


def by_matrices(picture: np.ndarray, new_size: tuple[int, int], *, down_first: bool | None = None) -> np.ndarray:
    steps = passes((picture.shape[1], picture.shape[0]), new_size)
    got = resample.resized(
        planes(picture),
        None if steps.across is None else torch.from_numpy(steps.across.T),
        None if steps.down is None else torch.from_numpy(steps.down),
        down_first=steps.down_first if down_first is None else down_first,
    )
    return got[0].permute(1, 2, 0).numpy()


@pytest.mark.parametrize(("size", "new_size"), SIZES, ids=str)
def test_pictures_are_resized_exactly_as_pil_does(size, new_size):
    for name, picture in pictures(*size).items():
        np.testing.assert_array_equal(by_matrices(picture, new_size), lanczos(picture, new_size), err_msg=name)


def test_the_order_of_the_passes_shows_and_is_the_installed_pils():
    picture, new_size = pictures(64, 64)["noise"], (80, 48)
    orders = [by_matrices(picture, new_size, down_first=down_first) for down_first in (False, True)]
    assert (orders[0] != orders[1]).mean() > 0.1
    own = passes((64, 64), new_size).down_first
    np.testing.assert_array_equal(orders[own], lanczos(picture, new_size))


def test_rounding_between_the_passes_shows():
    """Were it left out, the test above would see it."""
    picture, new_size = pictures(640, 480)["noise"], (512, 512)
    matrices = [coefficients(*sides) / 2**PRECISION_BITS for sides in ((640, 512), (480, 512))]
    at_once = np.einsum("yh,hwc,xw->yxc", matrices[1], picture, matrices[0], optimize=True)
    assert (np.floor(at_once + 0.5).clip(0, 255) != lanczos(picture, new_size)).mean() > 0.01


def as_tf32(values: np.ndarray) -> np.ndarray:
    """The 10 bits of mantissa that TF32 keeps (CUDA C++ Programming Guide, alternate floating point)."""
    bits = values.astype(np.float32).view(np.uint32)
    return ((bits + 0x1000) & np.uint32(0xFFFFE000)).view(np.float32)


@pytest.mark.parametrize("sides", [(1280, 512), (720, 512), (512, 1280), (640, 512), (3840, 512), (512, 3840), (3, 7)])
def test_the_parts_fit_tf32_and_are_the_coefficients(sides):
    whole, split = coefficients(*sides), parts(coefficients(*sides))
    np.testing.assert_array_equal(as_tf32(split), split)
    assert (as_tf32(whole / 2**PRECISION_BITS) != whole / 2**PRECISION_BITS).mean(where=whole != 0) > 0.5
    high, low = np.split(split.astype(np.float64), 2)
    np.testing.assert_array_equal((high + low) * 2**PRECISION_BITS, whole)
    # Sums of both parts stay below 24 bits of their last one's place, so that float32 holds them exactly.
    assert 255 * np.abs(high).sum(axis=1).max() < 2**14
    assert 255 * np.abs(low).sum(axis=1).max() < 4


def test_a_side_that_stays_has_no_pass():
    steps = passes((64, 48), (64, 20))
    assert steps.across is None
    assert steps.down.shape == (40, 48)
    same = passes((64, 48), (64, 48))
    assert (same.across, same.down, same.down_first) == (None, None, False)


def test_a_pillow_that_resizes_otherwise_is_refused(monkeypatch):
    monkeypatch.setattr(resample, "_SUPPORT", 2.0)
    with pytest.raises(MissingComponentError, match="cannot put into a graph") as caught:
        passes((64, 64), (80, 48))
    assert "pip install" in caught.value.hint
