"""Engines that must not pass, and one that must: what their pictures show, and what the verdict says."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest
from edgeturbo.benchmarks import quality_faults
from edgeturbo.benchmarks.quality import compare, compare_frame
from edgeturbo.benchmarks.quality_verdict import (
    BIAS_LIMIT_LEVELS,
    OWN_MARGIN_DB,
    SHIFT_LIMIT_PX,
    SSIM_FLOOR,
    TONE_LIMIT_LEVELS,
    lost_db,
    mean_bias,
    mean_shift,
    verdict,
)
from edgeturbo.engines.errors import UsageError
from edgeturbo.engines.parity import PSNR_FLOOR_DB
from quality_scenes import REFERENCE, SIDE, noise, scene, truncated


def tells(name: str, quality, precision: str = "fp16", own=None) -> bool:
    return any(sentence.startswith(name) for sentence in verdict(quality, precision, own))


def made(values: np.ndarray):
    return compare([(REFERENCE, truncated(values))])


def test_a_good_engine_of_each_precision_passes():
    assert verdict(made(scene() + noise(0.32)), "fp16") == []
    assert verdict(made(scene() + noise(0.005)), "fp32") == []
    assert made(scene() + noise(0.005)).worst["psnr_db"].value > 60
    with pytest.raises(UsageError, match="precision"):
        verdict(made(scene()), "int8")


def test_rounding_instead_of_truncation_is_an_offset_of_half_a_level():
    rounded = made(scene() + 0.5)
    assert rounded.worst["psnr_db"].value > 51  # which PSNR lets pass, in FP16 and at FP32's floor
    assert not tells("PSNR", rounded)
    assert rounded.frames[0].max_levels == 1
    assert mean_bias(rounded) == pytest.approx((0.5, 0.5, 0.5), abs=0.05)
    for precision in ("fp16", "fp32"):
        assert tells("bias", rounded, precision)
    assert tells("bias", made(scene() + 0.5 + noise(2.5)))  # also under all the noise that FP16 may have


@pytest.mark.parametrize("gamma", [1.02, 0.98, 1.05])
def test_a_gamma_that_is_off_is_a_wrong_tone(gamma):
    off = made(255 * (np.clip(scene(), 0, 255) / 255) ** gamma)
    assert off.worst["psnr_db"].value > PSNR_FLOOR_DB["fp16"]  # PSNR's floor lets these pass
    assert tells("tone", off)
    assert tells("bias", off)


def test_a_contrast_without_any_offset_is_a_wrong_tone():
    reference = truncated(127.5 + (scene() - scene().mean(axis=(0, 1))))
    flat = compare([(reference, truncated(127.5 + 0.97 * (scene() - scene().mean(axis=(0, 1)))))])
    assert not tells("bias", flat)
    assert tells("tone", flat)


@pytest.mark.parametrize(("gain", "offset"), [(0.3, -10), (0.2, 215)])
def test_noise_alone_has_no_tone(gain, offset):
    """Sorted by anything but the reference, noise looks like a tone curve; clipping makes it one-sided."""
    reference, noisy = truncated(scene() * gain + offset), truncated(scene() * gain + offset + noise(4))
    assert quality_faults.tone(reference, noisy) < 0.6
    assert all(abs(value) < 0.1 for value in quality_faults.bias(reference, noisy) if value is not None)


@pytest.mark.parametrize("order", [order for order in permutations(range(3)) if order != (0, 1, 2)])
def test_swapped_channels_are_named(order):
    swapped = compare([(REFERENCE, np.ascontiguousarray(REFERENCE[..., list(order)]))])
    found = swapped.frames[0].channel_order
    assert np.array_equal(
        swapped.frames[0].max_levels, np.abs(REFERENCE - REFERENCE[..., list(order)].astype(int)).max()
    )
    assert found != "rgb"
    assert [order["rgb".index(letter)] for letter in found] == [0, 1, 2]  # put back, they are in order
    assert tells("channels", swapped)


def test_grey_pictures_are_in_order_whatever_the_noise():
    """Some other order always fits a little better by chance."""
    for seed in range(4):
        one, other = (np.clip(128 + noise(5, seed=seed + 10 * i), 0, 255).astype(np.uint8) for i in (0, 1))
        assert compare_frame(one, other).channel_order == "rgb"


@pytest.mark.parametrize(("dx", "dy"), [(1, 0), (0, -1), (0.25, 0), (0.5, 0.5)])
def test_a_small_shift_is_measured_with_its_sign(dx, dy):
    y, x = np.mgrid[0:SIDE, 0:SIDE]

    def wavy(x: np.ndarray, y: np.ndarray) -> np.ndarray:
        return np.stack([128 + 40 * np.sin(x / 9 + y / 31) + 30 * np.cos(y / 7 - x / 40)] * 3, axis=-1)

    quality = compare([(truncated(wavy(x, y)), truncated(wavy(x - dx, y - dy)))])
    assert mean_shift(quality) == pytest.approx((dx, dy), abs=0.05)
    assert tells("shift", quality)
    assert verdict(compare([(truncated(wavy(x, y)), truncated(wavy(x, y) + noise(0.3)))]), "fp16") == []


def test_the_limits_of_fp32_are_the_stricter():
    for limits in (BIAS_LIMIT_LEVELS, TONE_LIMIT_LEVELS, SHIFT_LIMIT_PX):
        assert limits["fp32"] < limits["fp16"]
    assert SSIM_FLOOR["fp32"] > SSIM_FLOOR["fp16"]
    assert BIAS_LIMIT_LEVELS["fp16"] == 0.5 / 2


def test_the_floor_is_for_the_worst_frame_and_the_target_for_all():
    good, poor = (REFERENCE, truncated(scene() + noise(0.3))), (REFERENCE, truncated(scene() + noise(6)))
    quality = compare([good, poor, good, good, good, good])
    assert quality.mean["psnr_db"] > 39  # the good frames do not make up for it
    assert tells("PSNR of frame 1", quality)
    middling = compare([(REFERENCE, truncated(scene() + noise(3.2)))])
    assert any("target" in sentence for sentence in verdict(middling, "fp16"))


def test_what_is_lost_over_pytorchs_own_is_told():
    own, ours = made(scene() + noise(0.3)), made(scene() + noise(3))
    assert lost_db(ours, own) == pytest.approx(own.mean["psnr_db"] - ours.mean["psnr_db"])
    assert lost_db(ours, own) > OWN_MARGIN_DB
    assert any("PyTorch's own" in sentence for sentence in verdict(ours, "fp16", own))


def test_lost_db_of_equal_pictures_is_unknown():
    assert lost_db(made(scene()), made(scene() + noise(1))) is None
