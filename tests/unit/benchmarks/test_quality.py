"""The measures against known answers."""

from __future__ import annotations

import dataclasses
import importlib.util
import json
import math
import sys

import numpy as np
import pytest
from edgeturbo.benchmarks import quality_faults, quality_measures
from edgeturbo.benchmarks.quality import MEASURES, FrameQuality, compare, compare_frame, summarise
from edgeturbo.benchmarks.quality_verdict import verdict
from edgeturbo.engines import parity
from edgeturbo.engines.errors import MissingComponentError, UsageError
from PIL import Image
from quality_scenes import REFERENCE, SIDE, grey, noise, scene, truncated

needs_flip = pytest.mark.skipif(
    importlib.util.find_spec("flip_evaluator") is None, reason='not run: pip install "edgeturbo[bench]" (FLIP)'
)
needs_opencv = pytest.mark.skipif(
    importlib.util.find_spec("cv2") is None, reason='not run: pip install "edgeturbo[bench]" (canny edges)'
)


# Known answers.


def test_equal_pictures_are_perfect_and_json_has_no_infinity():
    quality = compare([(REFERENCE, REFERENCE.copy())])
    frame = quality.frames[0]
    assert frame.equal
    assert (frame.psnr_db, frame.ssim, frame.ms_ssim) == (None, 1.0, pytest.approx(1.0))
    assert (frame.max_levels, frame.p999_levels, frame.tone_levels) == (0, 0.0, 0.0)
    assert (frame.bias_levels, frame.channel_order, frame.shift_px) == ((0.0, 0.0, 0.0), "rgb", (0.0, 0.0))
    assert quality.mean["psnr_db"] is None
    text = json.dumps(quality.as_json(), allow_nan=False)
    assert json.loads(text)["measures"]["hausdorff_px"] == {"unit": "pixels", "higher": False}
    assert verdict(quality, "fp32") == []


@needs_flip
@needs_opencv
def test_equal_pictures_are_perfect_in_the_packages_measures_too():
    frame = compare_frame(REFERENCE, REFERENCE)
    assert (frame.flip, frame.edge_f1, frame.hausdorff_px, frame.unmeasured) == (0.0, 1.0, 0.0, {})


def test_a_constant_offset_of_one_level_is_exactly_that():
    frame = compare_frame(REFERENCE, REFERENCE + 1)
    assert frame.psnr_db == pytest.approx(20 * math.log10(255))
    assert (frame.max_levels, frame.p999_levels) == (1, 1.0)
    assert frame.bias_levels == (1.0, 1.0, 1.0)
    assert frame.tone_levels == 1.0
    assert compare_frame(REFERENCE + 1, REFERENCE).bias_levels == (-1.0, -1.0, -1.0)


def test_one_pixel_shows_in_the_maximum_and_hardly_elsewhere():
    got = REFERENCE.copy()
    got[5, 7, 1] ^= 128
    frame = compare_frame(REFERENCE, got)
    assert frame.max_levels == 128
    assert frame.p999_levels == 0.0
    assert frame.psnr_db == pytest.approx(10 * math.log10(255**2 / (128**2 / REFERENCE.size)))


def test_the_percentile_is_of_all_values():
    got = REFERENCE.copy().reshape(-1)
    got[: got.size // 500] += 7  # two in a thousand
    assert compare_frame(REFERENCE, got.reshape(REFERENCE.shape)).p999_levels == 7.0


@pytest.mark.parametrize("sigma", [2.0, 5.0, 10.0])
def test_noise_of_known_sigma_has_the_psnr_of_the_formula(sigma):
    got = np.clip(np.rint(128 + noise(sigma)), 0, 255).astype(np.uint8)
    expected = 10 * math.log10(255**2 / (sigma**2 + 1 / 12))  # rounding adds a twelfth
    assert compare_frame(grey(128), got).psnr_db == pytest.approx(expected, abs=0.1)


@needs_opencv
def test_edges_shifted_by_one_pixel_lie_one_pixel_apart():
    square = grey(20)
    square[60:120, 60:120] = 220
    moved = np.roll(square, 1, axis=1)
    agreement = quality_measures.edge_agreement(square, moved)
    assert agreement.hausdorff_px == pytest.approx(1.0, abs=1e-3)
    assert 0.3 < agreement.f1 < 0.7  # the two upright sides miss each other, the others overlap
    assert quality_measures.edge_agreement(moved, square) == agreement


@needs_opencv
def test_hausdorff_is_the_farther_way_round():
    one, both = grey(20), grey(20)
    one[20:40, 20:40] = both[20:40, 20:40] = 220
    both[20:40, 120:140] = 220
    there = quality_measures.edge_agreement(one, both)
    assert there.hausdorff_px == quality_measures.edge_agreement(both, one).hausdorff_px
    assert there.hausdorff_px == pytest.approx(100, abs=2)  # from the second square to the first's near side


@needs_opencv
@pytest.mark.parametrize("seed", [0, 1])
def test_hausdorff_agrees_with_all_pairs_of_edge_pixels(seed):
    a, b = REFERENCE, truncated(scene() + noise(20, seed=seed))
    a, b = a[-64:, :64], b[-64:, :64]  # with the bars
    points = [np.argwhere(quality_measures._edges(picture)) for picture in (a, b)]
    assert all(map(len, points))
    distances = np.sqrt(((points[0][:, None] - points[1][None]) ** 2).sum(axis=2))
    expected = max(distances.min(axis=0).max(), distances.min(axis=1).max())
    assert quality_measures.edge_agreement(a, b).hausdorff_px == pytest.approx(expected, abs=1e-3)


@needs_opencv
def test_edges_of_one_picture_alone_have_no_distance_and_say_so():
    square = grey(20)
    square[60:120, 60:120] = 220
    frame = compare_frame(square, grey(20))
    assert (frame.edge_f1, frame.hausdorff_px) == (0.0, None)
    assert "only one" in frame.unmeasured["hausdorff_px"]
    assert compare_frame(grey(20), grey(30)).hausdorff_px == 0.0


def naive_ms_ssim(a: np.ndarray, b: np.ndarray) -> float:
    """Wang et al. 2003, equation 7, from the whole-window SSIM of engines/parity and plain loops over the scales."""
    total = []
    for channel in range(3):
        x, y = a[..., channel : channel + 1].astype(float), b[..., channel : channel + 1].astype(float)
        product = 1.0
        for scale, weight in enumerate((0.0448, 0.2856, 0.3001, 0.2363, 0.1333)):
            mx, my = parity._blur(x), parity._blur(y)
            vx, vy = parity._blur((x) ** 2) - mx**2, parity._blur((y) ** 2) - my**2
            cs = (2 * (parity._blur(x * y) - mx * my) + 58.5225) / (vx + vy + 58.5225)
            luminance = (2 * mx * my + 6.5025) / (mx**2 + my**2 + 6.5025)
            product *= max(float(np.mean(cs * luminance if scale == 4 else cs)), 0) ** weight
            x, y = ((p[::2, ::2] + p[1::2, ::2] + p[::2, 1::2] + p[1::2, 1::2]) / 4 for p in (x, y))
        total.append(product)
    return float(np.mean(total))


@pytest.mark.parametrize("sigma", [1, 10, 60])
def test_ms_ssim_agrees_with_the_naive_definition_and_falls_with_noise(sigma):
    got = truncated(scene() + noise(sigma))
    assert quality_measures.ms_ssim(REFERENCE, got) == pytest.approx(naive_ms_ssim(REFERENCE, got), abs=1e-9)
    assert quality_measures.ms_ssim(got, REFERENCE) == pytest.approx(quality_measures.ms_ssim(REFERENCE, got))
    assert quality_measures.ms_ssim(REFERENCE, got) > quality_measures.ms_ssim(
        REFERENCE, truncated(scene() + noise(2 * sigma))
    )


def test_ms_ssim_of_flat_pictures_of_an_odd_size_is_luminance_at_the_coarsest_scale():
    luminance = (2 * 100 * 140 + 6.5025) / (100**2 + 140**2 + 6.5025)
    assert quality_measures.ms_ssim(grey(100, 161), grey(140, 161)) == pytest.approx(luminance**0.1333)


def test_ms_ssim_wants_161_pixels_and_compare_gives_the_reason():
    assert quality_measures.MS_SSIM_SIDE == 161
    good = compare_frame(REFERENCE[:161, :161], REFERENCE[:161, :161])
    assert good.ms_ssim == pytest.approx(1.0)
    small = compare_frame(REFERENCE[:160], REFERENCE[:160])
    assert small.ms_ssim is None
    assert "161 pixels" in small.unmeasured["ms_ssim"]
    assert "192x160" in small.unmeasured["ms_ssim"]
    with pytest.raises(UsageError, match="MS-SSIM"):
        quality_measures.ms_ssim(REFERENCE[:160], REFERENCE[:160])
    tiny = compare_frame(REFERENCE[:10, :10], REFERENCE[:10, :10])
    assert tiny.ssim is None
    assert "11 pixels" in tiny.unmeasured["ssim"]


def test_pictures_that_contradict_each_other_count_zero_not_nan():
    board = (np.indices((SIDE, SIDE)).sum(axis=0) % 2 * 255).astype(np.uint8)[..., None].repeat(3, axis=2)
    assert quality_measures.ms_ssim(board, 255 - board) == 0.0


@pytest.mark.parametrize("sigma", [2, 20])
def test_against_scikit_image(sigma):
    metrics = pytest.importorskip("skimage.metrics", reason="not run: pip install scikit-image")
    got = truncated(scene() + noise(sigma))
    _, full = metrics.structural_similarity(
        REFERENCE, got, channel_axis=2, gaussian_weights=True, sigma=1.5, use_sample_covariance=False,
        data_range=255, full=True,
    )  # fmt: skip
    frame = compare_frame(REFERENCE, got)
    assert frame.ssim == pytest.approx(full[5:-5, 5:-5].mean(), abs=1e-12)
    assert frame.psnr_db == pytest.approx(metrics.peak_signal_noise_ratio(REFERENCE, got))
    edges = [quality_measures._edges(picture) for picture in (REFERENCE, got)]
    assert frame.hausdorff_px == pytest.approx(metrics.hausdorff_distance(*edges), abs=1e-3)


@needs_flip
def test_flip_is_known_at_its_ends_and_ordered_between():
    assert quality_measures.flip(grey(0), grey(0)) == 0.0
    # Black against white: colour difference 1, no edges, so 1 at every pixel (Andersson et al. 2020, section 4.3).
    assert quality_measures.flip(grey(0), grey(255)) > 0.95
    errors = [quality_measures.flip(REFERENCE, truncated(scene() + noise(sigma))) for sigma in (1, 4, 16)]
    assert errors == sorted(errors)
    swapped = quality_measures.flip(truncated(scene() + noise(16)), REFERENCE)
    assert swapped == pytest.approx(errors[-1], rel=1e-3)


@needs_flip
def test_flip_is_what_its_own_package_says_of_the_files(tmp_path):
    from flip_evaluator import evaluate

    got = truncated(scene() + noise(5))
    for name, picture in (("a.png", REFERENCE), ("b.png", got)):
        Image.fromarray(picture).save(tmp_path / name)
    _, expected, _ = evaluate(str(tmp_path / "a.png"), str(tmp_path / "b.png"), "LDR")
    assert quality_measures.flip(REFERENCE, got) == pytest.approx(expected, rel=1e-3)


def test_blur_lowers_what_looks_at_structure():
    soft = sum(np.roll(scene(), (dy, dx), (0, 1)) for dy in (-1, 0, 1) for dx in (-1, 0, 1)) / 9
    frame = compare_frame(REFERENCE, truncated(soft))
    assert frame.ssim < 0.99
    assert abs(frame.bias_levels[0]) < 0.25
    assert max(map(abs, frame.shift_px)) < 0.05


def test_every_figure_but_the_signed_ones_is_symmetric():
    got = truncated(scene() * 0.97 + noise(6))
    there, back = compare_frame(REFERENCE, got), compare_frame(got, REFERENCE)
    for name in set(MEASURES) - {"flip", "tone_levels"}:
        assert getattr(there, name) == pytest.approx(getattr(back, name)), name
    assert there.bias_levels == pytest.approx([-value for value in back.bias_levels], abs=0.2)
    assert there.shift_px == pytest.approx([-value for value in back.shift_px])


# What cannot be measured says so.


@pytest.mark.parametrize(("call", "names"), [("flip", ["flip"]), ("edge_agreement", ["edge_f1", "hausdorff_px"])])
def test_a_missing_package_is_named_not_skipped(monkeypatch, call, names):
    package = {"flip": "flip_evaluator", "edge_agreement": "cv2"}[call]
    monkeypatch.setitem(sys.modules, package, None)  # what Python itself does with a package not there
    with pytest.raises(MissingComponentError, match=r"FLIP|OpenCV") as caught:
        getattr(quality_measures, call)(REFERENCE, REFERENCE)
    assert "edgeturbo[bench]" in caught.value.hint
    quality = compare([(REFERENCE, REFERENCE)])
    for name in names:
        assert quality.unmeasured[name].startswith("not run: pip install")
        assert name not in quality.mean
        assert name not in quality.worst


def test_pictures_without_middle_tones_or_gradients_say_so():
    frame = compare_frame(grey(3), grey(4))
    assert (frame.bias_levels, frame.tone_levels, frame.shift_px) == ((None, None, None), None, None)
    assert {"bias_levels", "tone_levels", "shift_px"} <= set(frame.unmeasured)
    stripes = grey(50)
    stripes[:, ::8] = 200
    assert quality_faults.shift(stripes, stripes) is None


@pytest.mark.parametrize(
    ("reference", "got"),
    [
        (grey(1), grey(1, 100)),
        (grey(1).astype(np.float32), grey(1)),
        (grey(1)[..., :1], grey(1)[..., :1]),
        (grey(1)[:0], grey(1)[:0]),
    ],
)
def test_other_arrays_are_refused(reference, got):
    with pytest.raises(UsageError):
        compare_frame(reference, got)


# Many frames.


def test_means_and_worst_frames():
    clean, poor, bad = REFERENCE, truncated(scene() + noise(3)), truncated(scene() + noise(9))
    quality = compare([(REFERENCE, clean), (REFERENCE, bad), (REFERENCE, poor)])
    assert quality.worst_frame == 1
    assert quality.worst["psnr_db"].value == quality.frames[1].psnr_db
    assert quality.worst["ssim"].index == quality.worst["max_levels"].index == 1
    assert quality.mean["ssim"] == pytest.approx(np.mean([frame.ssim for frame in quality.frames]))
    stacked = parity.psnr(np.stack([REFERENCE] * 3), np.stack([clean, bad, poor]))
    assert quality.mean["psnr_db"] == pytest.approx(stacked)
    with pytest.raises(UsageError, match="no frame"):
        summarise([])


def test_frame_quality_is_frozen():
    assert dataclasses.is_dataclass(FrameQuality)
    with pytest.raises(dataclasses.FrozenInstanceError):
        compare_frame(REFERENCE, REFERENCE).psnr_db = 1.0  # type: ignore[misc]
