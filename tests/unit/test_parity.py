from __future__ import annotations

import math

import numpy as np
import pytest
from edgeturbo.engines.errors import UsageError
from edgeturbo.engines.parity import psnr, ssim


def naive_ssim(a: np.ndarray, b: np.ndarray) -> float:
    """Wang et al. 2004, one window after another, straight from the equations."""
    offsets = np.arange(-5, 6)
    window = np.exp(-(offsets[:, None] ** 2 + offsets[None, :] ** 2) / (2 * 1.5**2))
    window /= window.sum()
    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    values = []
    for channel in range(a.shape[2]):
        for y in range(a.shape[0] - 10):
            for x in range(a.shape[1] - 10):
                p = a[y : y + 11, x : x + 11, channel].astype(float)
                q = b[y : y + 11, x : x + 11, channel].astype(float)
                mp, mq = (window * p).sum(), (window * q).sum()
                vp, vq = (window * (p - mp) ** 2).sum(), (window * (q - mq) ** 2).sum()
                cov = (window * (p - mp) * (q - mq)).sum()
                values.append((2 * mp * mq + c1) * (2 * cov + c2) / ((mp**2 + mq**2 + c1) * (vp + vq + c2)))
    return float(np.mean(values))


def noisy(frame: np.ndarray, amount: int) -> np.ndarray:
    offsets = np.random.default_rng(9).integers(-amount, amount + 1, frame.shape)
    return np.clip(frame.astype(int) + offsets, 0, 255).astype(np.uint8)


def test_psnr_is_what_the_formula_says():
    a, b = np.zeros((4, 4, 3), np.uint8), np.full((4, 4, 3), 5, np.uint8)
    assert psnr(a, b) == pytest.approx(20 * math.log10(255 / 5))
    assert psnr(b, a) == psnr(a, b)
    assert psnr(a.astype(np.float32), b.astype(np.float32), peak=1.0) == pytest.approx(-20 * math.log10(5))


def test_psnr_of_one_differing_element_is_exact_in_uint8_range():
    a = np.full((10, 10, 3), 255, np.uint8)
    b = a.copy()
    b[0, 0, 0] = 0  # a uint8 subtraction would wrap
    assert psnr(a, b) == pytest.approx(10 * math.log10(300))


def test_psnr_of_equal_arrays_is_infinite(make_frame):
    assert psnr(make_frame(), make_frame()) == math.inf


@pytest.mark.parametrize("amount", [1, 20, 120])
def test_ssim_agrees_with_the_naive_definition(make_frame, amount):
    smooth = np.linspace(0, 255, 17 * 20 * 3).reshape(17, 20, 3).astype(np.uint8)
    for a in (make_frame(17, 20), smooth):
        b = noisy(a, amount)
        assert ssim(a, b) == pytest.approx(naive_ssim(a, b), abs=1e-9)


def test_ssim_bounds(make_frame):
    a = make_frame()
    assert ssim(a, a) == pytest.approx(1.0, abs=1e-12)
    assert ssim(a, 255 - a) < 0
    assert ssim(a[:11, :11], a[:11, :11]) == pytest.approx(1.0)


def test_ssim_of_a_batch_is_the_mean_of_its_pairs(make_frame):
    a, b = make_frame(), make_frame(seed=1)
    c = noisy(b, 9)
    assert ssim(np.stack([a, b]), np.stack([a, c])) == pytest.approx((1.0 + ssim(b, c)) / 2)


@pytest.mark.parametrize(
    ("a", "b"),
    [
        (np.zeros((12, 12, 3), np.uint8), np.zeros((12, 13, 3), np.uint8)),
        (np.zeros((12, 12, 3), np.float32), np.zeros((12, 12, 3), np.float32)),
        (np.zeros((10, 12, 3), np.uint8), np.zeros((10, 12, 3), np.uint8)),
        (np.zeros((12, 12), np.uint8), np.zeros((12, 12), np.uint8)),
        (np.zeros((0, 12, 12, 3), np.uint8), np.zeros((0, 12, 12, 3), np.uint8)),
    ],
    ids=["shapes differ", "float", "too small", "no channels", "empty"],
)
def test_ssim_refuses(a, b):
    with pytest.raises(UsageError):
        ssim(a, b)


def test_psnr_refuses_other_shapes_and_nothing():
    with pytest.raises(UsageError, match="one shape"):
        psnr(np.zeros(3), np.zeros(4))
    with pytest.raises(UsageError):
        psnr(np.zeros(0), np.zeros(0))
