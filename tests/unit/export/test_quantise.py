"""Quantised graphs: what they compute, by hand, in numpy and in PyTorch; where they quantise, and what they refuse."""

from __future__ import annotations

from collections import Counter

import ml_dtypes
import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest
import small_generator as small
import torch_graph
from edgeturbo.export.passes.quantise import Quantise
from edgeturbo.export.passes.smooth import Smooth
from edgeturbo.export.quantise.calibrate import calibrate, channel_maxima
from edgeturbo.export.quantise.formats import FORMATS, FP8, INT8, Format, dequantised, quantised, scales_of
from edgeturbo.export.quantise.sites import block_of, share_of_convolutions, sites
from onnx_ir.passes import PreconditionError

BOTH = pytest.mark.parametrize("form", FORMATS.values(), ids=FORMATS)


def run(model: ir.Model, feed: dict[str, np.ndarray], *wanted: str, rewritten: bool = False) -> list[np.ndarray]:
    """As it is written, or as ONNX Runtime rewrites it; checked first."""
    options = onnxruntime.SessionOptions()
    levels = onnxruntime.GraphOptimizationLevel
    options.graph_optimization_level = levels.ORT_ENABLE_ALL if rewritten else levels.ORT_DISABLE_ALL
    proto = ir.to_proto(model)
    for name in wanted:
        proto.graph.output.append(onnx.helper.make_empty_tensor_value_info(name))
    onnx.checker.check_model(ir.to_proto(model), full_check=True)
    session = onnxruntime.InferenceSession(proto.SerializeToString(), options)
    return session.run(list(wanted) or None, feed)


def psnr(a: np.ndarray, b: np.ndarray) -> float:
    return float(10 * np.log10(np.ptp(a.astype(np.float64)) ** 2 / np.mean((a.astype(np.float64) - b) ** 2)))


def thresholds(tmp_path, names=small.PRODUCTS, *, half: bool = False, form: Format = INT8) -> dict[str, float]:
    path = small.saved(tmp_path, half=half)
    return calibrate(ir.load(path), path, small.frames, names).thresholds("max", form)


# What a scale is


@BOTH
def test_the_largest_magnitude_becomes_the_formats_largest_and_nothing_saturates(form):
    amax = np.geomspace(1e-6, 3e3, 200)
    scales = scales_of(amax, form, np.float16)
    assert (scales.astype(np.float64) * form.largest >= amax).all()
    assert np.abs(quantised(-amax, scales, form).astype(np.float32)).max() <= form.largest
    normal = amax / form.largest > 1e-4
    error = dequantised(quantised(amax, scales, form), scales) / amax - 1
    assert np.abs(error[normal]).max() < 0.5 / form.largest + 2e-3 if form is INT8 else 1 / 16


@BOTH
def test_zeros_stay_zeros(form):
    scales = scales_of(np.zeros(3), form, np.float16)
    assert (scales == 1).all()
    assert not quantised(np.zeros(3), scales, form).astype(np.float32).any()


def test_rounding_is_to_even_and_saturates_as_onnx_says():
    scale = np.float32(1)
    assert quantised(np.float32([0.5, 1.5, 2.5, -0.5, 300, -300]), scale, INT8).tolist() == [0, 2, 2, 0, 127, -128]
    # Between 16 and 32 E4M3 has steps of 2; above 448 there is nothing.
    got = quantised(np.float32([17, 19, 21, 447, 1e6, -1e6]), scale, FP8).astype(np.float32).tolist()
    assert got == [16, 20, 20, 448, 448, -448]


# A convolution by hand


def convolution(x: np.ndarray, w: np.ndarray) -> np.ndarray:
    """[C, H, W] with [O, C, 3, 3], padding 1, in float64."""
    padded = np.pad(x.astype(np.float64), ((0, 0), (1, 1), (1, 1)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), axis=(1, 2))
    return np.einsum("chwij,ocij->ohw", windows, w.astype(np.float64))


@BOTH
def test_a_quantised_convolution_is_the_one_computed_by_hand_on_eight_bit_numbers(form, tmp_path):
    model = small.generator()
    found = thresholds(tmp_path, form=form)
    weight = dict(model.graph.initializers)["left.w"].const_value.numpy()
    Quantise(form, [small.LEFT], found)(model)
    x, got = run(model, small.frames()[0], small.DOWN, small.LEFT)
    largest = {INT8: 127, FP8: 448}[form]
    dtype = {INT8: np.int8, FP8: ml_dtypes.float8_e4m3fn}[form]
    by_channel = np.abs(weight).max(axis=(1, 2, 3)) / largest
    scale = found[small.DOWN] / largest
    whole = (np.rint if form is INT8 else np.asarray)(x[0] / scale).clip(-largest, largest).astype(dtype)
    kernel = (weight / by_channel[:, None, None, None]).clip(-largest, largest)
    kernel = (np.rint(kernel) if form is INT8 else kernel).astype(dtype)
    expected = convolution(whole, kernel) * scale * by_channel[:, None, None]
    # Not one element of 2048 may be off by as much as a step of its own scale; a value on a tie may round either way.
    assert np.abs(got[0] - expected).max() <= 1e-3 * np.ptp(expected)
    per_channel = np.abs(got[0] - expected).max(axis=(1, 2)) / np.ptp(expected, axis=(1, 2))
    assert per_channel.max() < 0.01


@BOTH
@pytest.mark.parametrize("half", [False, True])
def test_a_quantised_generator_stays_near_the_one_it_was_made_of(form, half, tmp_path):
    found = thresholds(tmp_path, half=half)
    model = small.generator(half=half)
    Quantise(form, small.PRODUCTS, found)(model)
    floor = 30 if form is INT8 else 20
    for feed in small.frames():
        (exact,) = run(small.generator(half=half), feed, "image_unquantised")
        (got,) = run(model, feed, "image_unquantised")
        assert psnr(exact, got) > floor
        for name in (
            small.DOWN,
            small.LEFT,
            small.RIGHT,
        ):  # channel by channel: one scale for all would drown the least
            (a,), (b,) = run(small.generator(half=half), feed, name), run(model, feed, name)
            assert min(psnr(a[0, c], b[0, c]) for c in range(small.WIDE)) > floor - 5


def test_int8_on_onnx_runtime_agrees_with_its_own_fake_quantised_pytorch(tmp_path):
    found = thresholds(tmp_path)
    model = small.generator()
    Quantise(INT8, small.PRODUCTS, found)(model)
    for feed in small.frames():
        (ours,) = run(model, feed, "image_unquantised")
        theirs, _ = torch_graph.run(model, feed, "image_unquantised")
        assert psnr(theirs.numpy(), ours) > 50


@pytest.mark.parametrize(("form", "half"), [(INT8, False), (INT8, True), (FP8, True)])
def test_what_onnx_runtime_rewrites_is_the_same_picture(form, half, tmp_path):
    """It would round an FP16 convolution's bias to an FP16 product of scales, which has no digits left: 13 dB."""
    found = thresholds(tmp_path, half=half)
    model = small.generator(half=half)
    Quantise(form, small.PRODUCTS, found)(model)
    for feed in small.frames():
        written, rewritten = (run(model, feed, "image_unquantised", rewritten=more)[0] for more in (False, True))
        assert psnr(written, rewritten) > 40


# What stands where


def test_a_value_that_two_products_take_is_quantised_once(tmp_path):
    found = thresholds(tmp_path)
    model = small.generator()
    Quantise(INT8, small.PRODUCTS, found)(model)
    taken = Counter(str(node.inputs[0].name) for node in model.graph if node.op_type == "QuantizeLinear")
    assert set(taken.values()) == {1}
    assert taken.keys() == found.keys()
    left, right = (next(node for node in model.graph if node.name == name) for name in (small.LEFT, small.RIGHT))
    assert left.inputs[0] is right.inputs[0]
    assert not any(node.op_type in ("Add", "Concat") and "rounded" in str(value.name)
                   for node in model.graph for value in node.inputs if value)  # fmt: skip


@BOTH
def test_weights_are_stored_in_eight_bits_with_a_scale_for_each_output_channel(form, tmp_path):
    found = thresholds(tmp_path)
    model = small.generator(half=True)
    before = sum(value.const_value.nbytes for value in model.graph.initializers.values())
    Quantise(form, small.PRODUCTS, found)(model)
    weights = [
        value for value in model.graph.initializers.values() if len(value.shape) > 1 and value.dtype == form.onnx_type
    ]
    assert len(weights) == len(small.PRODUCTS)
    for node in model.graph:
        if node.op_type == "DequantizeLinear" and node.inputs[0].is_initializer():
            weight, scale = node.inputs[0], node.inputs[1]
            ((user, _),) = node.outputs[0].uses()
            axis = node.attributes["axis"].as_int()
            assert axis == (0 if user.op_type == "Conv" else 1)
            assert list(scale.shape) == [weight.shape[axis]]
            assert scale.dtype == ir.DataType.FLOAT16
    after = sum(value.const_value.nbytes for value in model.graph.initializers.values())
    assert after < 0.6 * before


def test_weights_quantised_when_the_graph_runs_are_the_same_numbers(tmp_path):
    found = thresholds(tmp_path)
    stored, running = small.generator(), small.generator()
    Quantise(INT8, small.PRODUCTS, found)(stored)
    Quantise(INT8, small.PRODUCTS, found, stored=False)(running)
    for feed in small.frames():
        a, b = (run(model, feed, "image_unquantised")[0] for model in (stored, running))
        assert np.array_equal(a, b)


def test_weights_alone_need_no_calibration_and_no_activation_is_touched():
    model = small.generator(half=True)
    Quantise(INT8, small.PRODUCTS, None)(model)
    assert not any(node.op_type == "QuantizeLinear" for node in model.graph)
    assert sum(node.op_type == "DequantizeLinear" for node in model.graph) == len(small.PRODUCTS)
    feed = small.frames()[0]
    (exact,) = run(small.generator(half=True), feed, "image_unquantised")
    (got,) = run(model, feed, "image_unquantised")
    assert psnr(exact, got) > 35


def test_the_products_at_the_picture_are_left_alone():
    model = small.generator()
    found = {site.name: site for site in sites(model.graph)}
    assert [name for name, site in found.items() if site.fits(INT8)] == list(small.PRODUCTS)
    assert set(found) - set(small.PRODUCTS) == {small.FIRST, f"{small.DECODER}.conv_out/Conv_0"}
    assert share_of_convolutions(model.graph, small.PRODUCTS) == pytest.approx(
        sum(site.operations for site in found.values() if site.is_convolution and site.fits(INT8))
        / sum(site.operations for site in found.values() if site.is_convolution)
    )


def test_blocks_are_what_stands_between_two_changes_of_resolution():
    assert block_of("vae_decoder/decoder.up_blocks.3.resnets.0.conv1/Conv_0") == "vae_decoder/up_blocks.3"
    assert block_of("vae_encoder/encoder.mid_block.attentions.0.to_q/MatMul_0") == "vae_encoder/mid_block"
    assert block_of("unet/network.down_blocks.1.attentions.0.proj_in/MatMul_0") == "unet/down_blocks.1"
    assert block_of("vae_decoder/decoder.skip_conv_1/Conv_0") == "vae_decoder/skip_conv_1"


# Refusals


def test_an_activation_that_was_not_calibrated_is_refused_by_name(tmp_path):
    found = thresholds(tmp_path, [name for name in small.PRODUCTS if name != small.UPPER])
    with pytest.raises(PreconditionError, match=r"1 activations have no threshold.*up_blocks\.0/Resize_0"):
        Quantise(INT8, small.PRODUCTS, found)(small.generator())


def test_an_activation_that_was_always_zero_is_refused_by_name(tmp_path):
    found = {**thresholds(tmp_path), small.DOWN: 0.0}
    with pytest.raises(PreconditionError, match="1 activations have no threshold"):
        Quantise(INT8, small.PRODUCTS, found)(small.generator())


def test_a_graph_is_not_quantised_twice_and_names_must_be_products(tmp_path):
    found = thresholds(tmp_path)
    model = small.generator()
    with pytest.raises(PreconditionError, match="no products with weights"):
        Quantise(INT8, [small.NORM], found)(model)
    Quantise(INT8, small.PRODUCTS, found)(model)
    with pytest.raises(PreconditionError, match="quantised already"):
        Quantise(INT8, small.PRODUCTS, found)(model)


# SmoothQuant


@pytest.fixture
def maxima(tmp_path):
    path = small.saved(tmp_path)
    seen = channel_maxima(ir.load(path), path, small.frames, [small.NORM, f"{small.UNET}.gate/Mul_0"])
    return {name: each.largest for name, each in seen.items()}


def test_smoothing_changes_nothing_but_the_range_of_a_linear_layers_input(maxima):
    model = small.generator()
    step = Smooth(small.PRODUCTS, maxima)
    step(model)
    assert step.folded == [small.NORM]
    assert step.explicit == [f"{small.UNET}.gate/Mul_0"]
    for feed in small.frames():
        exact, before = run(small.generator(), feed, "image_unquantised", small.NORM)
        got, after = run(model, feed, "image_unquantised", small.NORM)
        assert np.abs(exact - got).max() < 1e-4
        assert np.abs(before).max() / np.median(np.abs(before)) > 20
        assert np.abs(after).max() < np.abs(before).max() / 3


def test_a_divisor_is_equation_4(maxima):
    model = small.generator()
    Smooth([small.OUT], maxima, strength=0.8)(model)
    weight = dict(small.generator().graph.initializers)["out.w"].const_value.numpy()
    expected = maxima[f"{small.UNET}.gate/Mul_0"] ** 0.8 / np.abs(weight).max(axis=1) ** 0.2
    factors = dict(model.graph.initializers)[f"{small.UNET}.gate/Mul_0/smooth:1"].const_value.numpy()
    assert np.allclose(factors * expected, 1, rtol=1e-5)


def test_smoothing_makes_int8_more_faithful_where_one_channel_is_too_large(tmp_path, maxima):
    linear = (small.QUERY, small.KEY, small.OUT)
    path = small.saved(tmp_path)
    smooth = ir.load(path)
    Smooth(linear, maxima)(smooth)
    found = {
        "plain": calibrate(ir.load(path), path, small.frames, linear).thresholds("max", INT8),
        "smooth": calibrate(smooth, path, small.frames, linear).thresholds("max", INT8),
    }
    reached = {}
    for kind, ranges in found.items():
        model = small.generator()
        if kind == "smooth":
            Smooth(linear, maxima)(model)
        Quantise(INT8, linear, ranges)(model)
        pairs = [
            (run(small.generator(), feed, small.OUT)[0], run(model, feed, small.OUT)[0]) for feed in small.frames()
        ]
        reached[kind] = min(psnr(a, b) for a, b in pairs)
    assert reached["smooth"] > reached["plain"] + 3


def test_an_input_without_maxima_is_refused(maxima):
    del maxima[small.NORM]
    with pytest.raises(PreconditionError, match="1 inputs have no maxima"):
        Smooth(small.PRODUCTS, maxima)(small.generator())
