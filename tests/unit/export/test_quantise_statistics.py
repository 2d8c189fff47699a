"""What calibration remembers, what it makes of it, and that a generator in pieces is the generator."""

from __future__ import annotations

import math

import numpy as np
import onnx_ir as ir
import pytest
import small_generator as small
from edgeturbo.engines.errors import RangeError, UsageError
from edgeturbo.export.quantise.calibrate import calibrate, channel_maxima
from edgeturbo.export.quantise.formats import FORMATS, FP8, INT8, dequantised, quantised, scales_of
from edgeturbo.export.quantise.sections import visit
from edgeturbo.export.quantise.statistics import BINS, ChannelMaxima, Histogram
from edgeturbo.export.quantise.thresholds import METHODS, thresholds


def seen(*parts: np.ndarray) -> Histogram:
    histogram = Histogram("x")
    for part in parts:
        histogram.add(part)
    return histogram


@pytest.fixture
def parts() -> list[np.ndarray]:
    """Of very different ranges: the first nearly nothing, one of zeros, one with a value far out."""
    draw = np.random.default_rng(3)
    far = draw.standard_normal(1000)
    far[7] = -900
    return [
        part.astype(np.float32)
        for part in (draw.standard_normal(500) * 1e-4, np.zeros(50), draw.standard_normal((20, 30)), far)
    ]


# A histogram in pieces


def test_seen_in_pieces_is_exactly_what_it_is_at_once_in_any_order(parts):
    whole = seen(np.concatenate([part.reshape(-1) for part in parts]))
    for order in ([0, 1, 2, 3], [3, 2, 1, 0], [2, 0, 3, 1]):
        pieces = seen(*(parts[i] for i in order))
        assert np.array_equal(pieces.counts, whole.counts)
        assert (pieces.exponent, pieces.largest) == (whole.exponent, whole.largest)


def test_a_histogram_counts_every_value_where_numpy_does_and_never_grows(parts):
    values = np.abs(np.concatenate([part.reshape(-1) for part in parts]))
    histogram = seen(*parts)
    assert histogram.counts.size == BINS
    assert histogram.counts.sum() == values.size
    expected, _ = np.histogram(values, BINS, (0, BINS * histogram.width))
    assert np.array_equal(histogram.counts, expected)
    assert histogram.seen().size > BINS // 2
    assert histogram.seen()[-1] == 1


def test_a_range_that_ends_on_a_power_of_two_or_is_zero_has_a_bin_for_it():
    assert seen(np.float16([4.0, -4.0, 0.0])).counts.sum() == 3
    zeros = seen(np.zeros(5, np.float16))
    assert (zeros.counts[0], zeros.largest) == (5, 0.0)
    zeros.add(np.float16([1e-3]))
    assert np.array_equal(zeros.counts, seen(np.float16([0, 0, 0, 0, 0, 1e-3])).counts)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_is_refused_by_name(bad):
    with pytest.raises(RangeError, match="x is not finite"):
        seen(np.float32([1, bad, 2]))


def test_channel_maxima_are_of_each_channel_over_all_frames():
    values = np.random.default_rng(0).standard_normal((4, 5, 6)).astype(np.float32)
    maxima = ChannelMaxima("x")
    for part in values:
        maxima.add(part)
    assert np.array_equal(maxima.largest, np.abs(values).max(axis=(0, 1)))


# Thresholds


def one(method: str, values: np.ndarray, form=INT8, percentile: float = 99.9) -> float:
    return thresholds({"x": seen(values.astype(np.float32))}, method, form, percentile)["x"]


@pytest.fixture
def values() -> np.ndarray:
    """A bell with one value far outside."""
    bell = np.random.default_rng(1).standard_normal(200_000)
    return np.append(bell, 60.0)


def squared_error(values: np.ndarray, threshold: float, form) -> float:
    scale = scales_of(np.asarray(threshold), form, np.float32)
    return float(np.mean((dequantised(quantised(values, scale, form), scale) - values) ** 2))


@pytest.mark.parametrize("form", FORMATS.values(), ids=FORMATS)
def test_the_mean_squared_error_is_that_of_the_best_of_all_thresholds(values, form):
    found = one("mse", values, form)
    best = min(squared_error(values, t, form) for t in np.geomspace(1, 60, 300))
    assert squared_error(values, found, form) <= 1.02 * best + 1e-9


def test_the_percentile_is_numpys_to_the_width_of_a_bin(values):
    for percent in (99.0, 99.9, 99.99):
        assert one("percentile", values, percentile=percent) == pytest.approx(
            np.percentile(np.abs(values), percent), abs=2 * 64 / BINS
        )


def test_entropy_cuts_a_value_far_outside_off_and_an_even_spread_not(values):
    assert 2 < one("entropy", values) < 30  # of 60
    even = np.random.default_rng(2).uniform(-1, 1, 50_000)
    assert one("entropy", even) > 0.9


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("form", FORMATS.values(), ids=FORMATS)
def test_no_threshold_is_above_what_was_seen_and_none_is_zero(values, method, form):
    assert 0 < one(method, values, form) <= 60
    assert one("max", values, form) == 60


def test_fp8_cares_less_for_a_value_far_outside_than_int8(values):
    assert one("mse", values, FP8) > 2 * one("mse", values, INT8)


def test_thresholds_print_nothing(values, capsys):
    for method in METHODS:
        one(method, values)
    assert capsys.readouterr().out == ""


# A generator in pieces


@pytest.mark.parametrize("budget", [1, 20_000, 1 << 30])
def test_every_value_of_a_generator_in_pieces_is_the_whole_ones(tmp_path, budget):
    path = small.saved(tmp_path)
    wanted = {small.DOWN, small.NORM, f"{small.ENCODER}.mid_block/Add_0", small.UPPER}
    shown: dict[int, list[dict[str, np.ndarray]]] = {}
    for size in (budget, 1 << 40):
        frames: list[dict[str, np.ndarray]] = [{}]

        def note(name: str, values: np.ndarray, frames=frames) -> None:
            if name in frames[-1]:
                frames.append({})
            frames[-1][name] = values.copy()

        assert visit(ir.load(path), path, small.frames(), wanted, note, size) == 3
        shown[size] = frames
    for ours, theirs in zip(shown[budget], shown[1 << 40], strict=True):
        assert ours.keys() == wanted
        assert all(np.array_equal(ours[name], theirs[name]) for name in wanted)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["generator.onnx", "generator.onnx.data"]


def test_calibration_sees_what_the_products_take(tmp_path):
    path = small.saved(tmp_path)
    largest: dict[str, float] = {}

    def note(name: str, values: np.ndarray) -> None:
        largest[name] = max(largest.get(name, 0.0), float(np.abs(values).max()))

    got = calibrate(ir.load(path), path, small.frames, small.PRODUCTS)
    visit(ir.load(path), path, small.frames(), list(got.histograms), note)
    assert got.frames == 3
    assert got.thresholds("max", INT8) == largest
    assert len(largest) == len(small.PRODUCTS) - 2  # two pairs of products share an input
    channels = channel_maxima(ir.load(path), path, small.frames, [small.NORM])[small.NORM].largest
    assert channels is not None
    assert math.isclose(float(channels.max()), largest[small.NORM])
    assert int(channels.argmax()) == small.OUTLIER


def test_without_frames_there_is_nothing_to_calibrate_on(tmp_path):
    path = small.saved(tmp_path)
    with pytest.raises(UsageError, match="no frame to calibrate on"):
        calibrate(ir.load(path), path, list, small.PRODUCTS)


def test_a_name_that_no_node_makes_is_refused(tmp_path):
    path = small.saved(tmp_path)
    with pytest.raises(ValueError, match="no node makes"):
        visit(ir.load(path), path, small.frames(), ["frame"], lambda *_: None)
