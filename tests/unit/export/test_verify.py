"""The parity gate on made-up outputs: what passes, what is warned of and what is refused."""

from __future__ import annotations

import math

import numpy as np
import pytest
from edgeturbo.engines.errors import ParityError
from edgeturbo.engines.manifest import Parity
from edgeturbo.export.verify import Outputs, ReferenceOutputs, compare, refuse_departure


def outputs(*unquantised: np.ndarray) -> Outputs:
    """Pictures as the generator quantises them."""
    levels = [np.nan_to_num(image).clip(-1, 1) * 127.5 + 127.5 for image in unquantised]
    return Outputs(tuple(np.uint8(image).transpose(1, 2, 0) for image in levels), unquantised)


@pytest.fixture
def smooth():
    """[3, 32, 40] in [-0.5, 0.5]."""
    ramp = np.linspace(-0.5, 0.5, 32 * 40, dtype=np.float32).reshape(32, 40)
    return np.stack([ramp, ramp[::-1], ramp * 0.5])


def made_up(max_abs: float = 0.01, psnr_db: float | None = 50.0) -> Parity:
    return Parity("reference", 1, max_abs, psnr_db, 1.0, None, None)


def test_an_equal_bundle_is_equal(smooth):
    reference = outputs(smooth)
    parity = compare(outputs(smooth.copy()), ReferenceOutputs(reference, reference))
    assert (parity.frames, parity.max_abs, parity.psnr_db, parity.ssim) == (1, 0.0, None, 1.0)
    assert parity.bf16_psnr_db is None
    assert refuse_departure(parity, "fp32") is None
    assert refuse_departure(parity, "fp16") is None


@pytest.mark.parametrize(("difference", "said"), [(0.9e-4, None), (1.1e-4, "0.00011"), (0.9e-3, "0.0009")])
def test_fp32_is_silent_up_to_a_tenth_of_its_bound_and_warned_above(difference, said):
    warning = refuse_departure(made_up(difference, 70.0), "fp32")
    assert warning is None if said is None else f"is {said} in [-1, 1]" in warning


@pytest.mark.parametrize(("difference", "passes"), [(0.9e-3, True), (1.1e-3, False)])
def test_fp32_is_held_to_an_eighth_of_a_grey_level(smooth, difference, passes):
    other = smooth.copy()
    other[1, 7, 9] -= difference
    reference = outputs(smooth)
    parity = compare(outputs(other), ReferenceOutputs(reference, reference))
    assert parity.max_abs == pytest.approx(difference, rel=1e-2)
    if passes:
        assert "within 0.001" in refuse_departure(parity, "fp32")
        return
    with pytest.raises(ParityError, match="nothing was written") as caught:
        refuse_departure(parity, "fp32")
    assert caught.value.exit_code == 5
    assert "0.001" in caught.value.expected
    assert caught.value.got == "0.0011"


def test_fp16_is_held_to_its_floor_warned_below_its_target_and_silent_above():
    with pytest.raises(ParityError) as caught:
        refuse_departure(made_up(psnr_db=34.9), "fp16")
    assert (caught.value.expected, caught.value.got) == ("PSNR of at least 35 dB", "34.9 dB")
    assert "36.0 dB" in refuse_departure(made_up(psnr_db=36.0), "fp16")
    assert refuse_departure(made_up(psnr_db=41.0), "fp16") is None


def test_the_psnr_is_measured_on_the_pictures_and_of_the_worst_frame(smooth):
    reference = outputs(smooth, smooth)
    worse = outputs(smooth, smooth)
    images = (worse.images[0], worse.images[1] + np.uint8(2))
    parity = compare(Outputs(images, worse.unquantised), ReferenceOutputs(reference, reference))
    assert parity.frames == 2
    assert parity.psnr_db == round(20 * math.log10(255 / 2), 2)
    assert parity.ssim < 1.0
    assert parity.max_abs == 0.0


def test_bf16_is_measured_beside_it(smooth):
    reference = outputs(smooth)
    bf16 = Outputs((reference.images[0] + np.uint8(1),), reference.unquantised)
    parity = compare(reference, ReferenceOutputs(reference, bf16))
    assert parity.psnr_db is None
    assert parity.bf16_psnr_db == round(20 * math.log10(255), 2)
    assert parity.bf16_ssim < 1.0


def test_frames_beyond_the_references_do_not_count(smooth):
    reference = outputs(smooth)
    assert compare(outputs(smooth, -smooth), ReferenceOutputs(reference, reference)).max_abs == 0.0


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
@pytest.mark.parametrize("value", [math.nan, math.inf])
@pytest.mark.parametrize("frame", [0, 1])
def test_one_number_that_is_none_fails_in_every_precision(smooth, precision, value, frame):
    broken = [smooth.copy(), smooth.copy()]
    broken[frame][0, 0, 0] = value
    reference, fine = outputs(smooth, smooth), outputs(smooth, smooth)
    # The pictures are equal: quantisation has hidden it.
    got = Outputs(fine.images, tuple(broken))
    parity = compare(got, ReferenceOutputs(reference, reference))
    assert parity.psnr_db is None
    with pytest.raises(ParityError):
        refuse_departure(parity, precision)


def test_a_psnr_that_is_no_number_fails():
    with pytest.raises(ParityError):
        refuse_departure(made_up(psnr_db=math.nan), "fp16")


def test_pictures_too_small_for_ssim_are_equal_or_not(smooth):
    small = smooth[:, :8, :8]
    reference = outputs(small)
    assert compare(outputs(small), ReferenceOutputs(reference, reference)).ssim == 1.0
    assert compare(outputs(-small), ReferenceOutputs(reference, reference)).ssim == 0.0


def test_in_fp32_the_pictures_are_held_too_as_the_tensor_before_says_nothing_of_what_is_behind_it(smooth):
    reference = outputs(smooth)
    wrong = Outputs((reference.images[0][:, ::-1],), reference.unquantised)
    parity = compare(wrong, ReferenceOutputs(reference, reference))
    assert parity.max_abs == 0.0
    with pytest.raises(ParityError) as caught:
        refuse_departure(parity, "fp32")
    assert caught.value.expected == "PSNR of at least 50 dB"


@pytest.mark.parametrize("shape", [(48, 40), (32, 40, 2), (32, 40, 4)])
def test_pictures_of_every_format_are_compared(smooth, shape):
    random = np.random.default_rng(0)
    image = random.integers(0, 200, shape, dtype=np.uint8)
    reference = Outputs((image,), (smooth,))
    assert compare(reference, ReferenceOutputs(reference, reference)).ssim == 1.0
    other = image.copy()
    other[10:14, 10:14] += 50
    parity = compare(Outputs((other,), (smooth,)), ReferenceOutputs(reference, reference))
    assert parity.ssim < 1.0
    assert parity.psnr_db == round(20 * math.log10(255 / 50) + 10 * math.log10(shape[0] * shape[1] / 16), 2)


def test_alpha_is_no_part_of_the_figures(smooth):
    image = np.full((32, 40, 4), 255, np.uint8)
    other = image.copy()
    other[..., :3] -= 10
    reference = Outputs((image,), (smooth,))
    parity = compare(Outputs((other,), (smooth,)), ReferenceOutputs(reference, reference))
    assert parity.psnr_db == round(20 * math.log10(255 / 10), 2)
