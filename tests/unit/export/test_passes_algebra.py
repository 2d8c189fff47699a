"""The passes of ``--passes``: each computes in FP32 what was computed before, on layers of every shape."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest
from edgeturbo.export.passes.choice import chosen_passes
from edgeturbo.export.passes.split_upsample import SplitUpsample
from edgeturbo.export.passes.stage_names import StageNames
from edgeturbo.export.passes.winograd import Winograd, matrices
from onnx_ir.passes import PostconditionError

BOUND = 1e-5  # of the output's range, in FP32
UPSAMPLE = {"mode": "nearest", "coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}
SCOPES = "pkg.torch.onnx.name_scopes"

Node = tuple[str, list[str], str, dict[str, Any]]


def layers(shape: tuple[int, ...], nodes: list[Node], weights: dict[str, np.ndarray]) -> ir.Model:
    """A float32 graph made by hand from ``x``: nodes are (operator, inputs, name of node and output, attributes)."""
    made = [onnx.helper.make_node(kind, inputs, [name], name=name, **more) for kind, inputs, name, more in nodes]
    model = onnx.helper.make_model(
        onnx.helper.make_graph(
            made,
            "layers",
            [onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, shape)],
            [onnx.helper.make_tensor_value_info(nodes[-1][2], onnx.TensorProto.FLOAT, None)],
            [onnx.numpy_helper.from_array(np.asarray(value), name) for name, value in weights.items()],
        ),
        opset_imports=[onnx.helper.make_opsetid("", 20)],
        ir_version=10,
    )
    return ir.from_proto(onnx.shape_inference.infer_shapes(model, check_type=True, strict_mode=True))


def run(model: ir.Model, feed: np.ndarray) -> list[np.ndarray]:
    """As it is written, so that nothing ONNX Runtime rewrites hides what a pass did."""
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    proto = ir.to_proto(model)
    onnx.checker.check_model(proto, full_check=True)
    session = onnxruntime.InferenceSession(proto.SerializeToString(), options)
    return session.run(None, {session.get_inputs()[0].name: feed})


def random(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng([seed, *shape]).standard_normal(shape).astype(np.float32)


def equal_after(name: str, make: Callable[[], ir.Model], shape: tuple[int, ...]) -> ir.Model:
    """The graph after the pass of that name, which must change it, but not what it computes."""
    x = random(*shape, seed=9)
    (expected,) = run(make(), x)
    model = make()
    (step,) = chosen_passes((name,))
    assert step(model).modified
    (got,) = run(model, x)
    assert got.shape == expected.shape
    assert np.abs(got - expected).max() <= BOUND * np.ptp(expected)
    return model


def kinds(model: ir.Model) -> dict[str, int]:
    return dict(Counter(node.op_type for node in model.graph))


def upsample(
    channels: tuple[int, int], size: tuple[int, int], *, bias: bool = True, batch: int = 1,
    resize: dict[str, Any] | None = None, conv: dict[str, Any] | None = None, kernel: int = 3, twice: bool = False,
) -> ir.Model:  # fmt: skip
    inner, outer = channels
    weights = {"scales": np.float32([1, 1, 2, 2]), "w": random(outer, inner, kernel, kernel)}
    if bias:
        weights["b"] = random(outer)
    nodes: list[Node] = [
        ("Resize", ["x", "", "scales"], "up", UPSAMPLE if resize is None else resize),
        ("Conv", ["up", *(name for name in ("w", "b") if name in weights)], "y",
         {"pads": [1] * 4, "kernel_shape": [kernel, kernel], **(conv or {})}),
    ]  # fmt: skip
    if twice:
        weights["two"] = np.float32(2)
        nodes += [("Mul", ["up", "two"], "also", {}), ("Concat", ["y", "also"], "both", {"axis": 1})]
    return layers((batch, inner, *size), nodes, weights)


# Every spatial size at which a generator of 512x512 upsamples, with fewer channels; then what else could go wrong.
@pytest.mark.parametrize(
    ("channels", "size"),
    [((12, 12), (8, 8)), ((12, 12), (16, 16)), ((8, 8), (32, 32)), ((6, 6), (64, 64)), ((4, 4), (128, 128)),
     ((2, 2), (256, 256)), ((3, 5), (1, 1)), ((5, 3), (1, 7)), ((4, 6), (9, 2)), ((1, 1), (3, 4))],
)  # fmt: skip
def test_an_upsample_split_in_four_computes_the_same_borders_included(channels, size):
    model = equal_after("split-upsample", lambda: upsample(channels, size), (1, channels[0], *size))
    assert kinds(model) == {"Conv": 4, "Concat": 1, "DepthToSpace": 1}


def test_an_upsample_split_in_four_works_without_bias_and_with_batches():
    equal_after("split-upsample", lambda: upsample((3, 4), (5, 6), bias=False, batch=3), (3, 3, 5, 6))


def test_the_corners_of_a_split_upsample_see_the_padding():
    """Ones through a kernel of ones: a corner sums 4 pixels, an edge 6, the inside 9."""
    model = upsample((1, 1), (3, 3), bias=False)
    model.graph.initializers["w"].const_value = ir.tensor(np.ones((1, 1, 3, 3), dtype=np.float32))
    SplitUpsample()(model)
    (got,) = run(model, np.ones((1, 1, 3, 3), dtype=np.float32))
    expected = np.full((6, 6), 9.0)
    expected[0] = expected[-1] = expected[:, 0] = expected[:, -1] = 6
    expected[::5, ::5] = 4
    assert np.array_equal(got[0, 0], expected)


@pytest.mark.parametrize(
    "other",
    [{"resize": {"mode": "linear"}}, {"resize": {"mode": "nearest"}}, {"conv": {"strides": [2, 2]}}, {"kernel": 1},
     {"conv": {"pads": [0, 0, 0, 0]}}, {"conv": {"dilations": [2, 2]}}, {"twice": True}],
    ids=str,
)  # fmt: skip
def test_an_upsample_of_another_form_is_refused_not_passed_over(other):
    with pytest.raises(PostconditionError, match=r"of no known form: \['y'\]"):
        SplitUpsample()(upsample((2, 2), (4, 4), **other))


def convolution(
    channels: tuple[int, int], size: tuple[int, int], *, bias: bool = True, batch: int = 1, kernel: int = 3, **more: Any
) -> ir.Model:
    inner, outer = channels
    weights = {"w": random(outer, inner, kernel, kernel), **({"b": random(outer)} if bias else {})}
    return layers((batch, inner, *size), [("Conv", ["x", *weights], "y", {"pads": [1] * 4, **more})], weights)


# 64 by 64 pixels are what a picture of 512x512 has at the latent, 16 by 16 tiles; then borders, batches and no bias.
@pytest.mark.parametrize(
    ("channels", "size", "more"),
    [((24, 16), (64, 64), {}), ((3, 5), (4, 4), {}), ((5, 3), (4, 12), {}), ((6, 6), (8, 16), {"batch": 3}),
     ((4, 4), (16, 8), {"bias": False})],
    ids=str,
)  # fmt: skip
def test_winograds_convolution_computes_the_same_borders_included(channels, size, more):
    x = random(more.get("batch", 1), channels[0], *size, seed=9)
    model = convolution(channels, size, **more)
    (expected,) = run(model, x)
    assert Winograd(1, 1)(model).modified
    (got,) = run(model, x)
    assert got.shape == expected.shape
    assert np.abs(got - expected).max() <= BOUND * np.ptp(expected)
    assert kinds(model)["Conv"] == 6 + 36 + 36
    assert all(value.uses() for value in model.graph.initializers.values())


def test_winograds_matrices_are_exact_for_every_tap_and_place():
    a, g, b = matrices()
    for tap in range(3):
        for place in range(6):
            kernel, line = np.eye(3)[tap], np.eye(6)[place]
            expected = [line[start : start + 3] @ kernel for start in range(4)]
            np.testing.assert_allclose(a @ ((g @ kernel) * (b @ line)), expected, atol=1e-14)


@pytest.mark.parametrize(
    "other",
    [{"size": (6, 8)}, {"size": (8, 6)}, {"kernel": 1, "pads": [0] * 4}, {"pads": [0] * 4}, {"strides": [2, 2]},
     {"dilations": [2, 2], "pads": [2] * 4}, {"channels": (7, 8)}, {"channels": (8, 7)}, {"size": (4, 12)}],
    ids=str,
)  # fmt: skip
def test_winograd_leaves_other_convolutions_and_those_too_small_to_pay_as_they_are(other):
    model = convolution(**{"channels": (8, 8), "size": (8, 8), **other})
    assert not Winograd(8, 64)(model).modified
    assert kinds(model) == {"Conv": 1}


def two_convolutions(outer: tuple[int, ...] = (4, 8, 1, 1), **more: Any) -> ir.Model:
    weights = {"w": random(8, 3, 3, 3), "b": random(8), "q": random(*outer), "c": random(outer[0])}
    first = {"pads": [1] * 4, "strides": [2, 2]}
    nodes: list[Node] = [("Conv", ["x", "w", "b"], "inner", first), ("Conv", ["inner", "q", "c"], "y", more)]
    return layers((1, 3, 9, 8), nodes, weights)


def test_a_1x1_convolution_becomes_part_of_the_one_before_it():
    model = equal_after("fold-quant-conv", two_convolutions, (1, 3, 9, 8))
    assert kinds(model) == {"Conv": 1}
    assert all(value.uses() for value in model.graph.initializers.values())


@pytest.mark.parametrize(
    "other",
    [{"outer": (4, 8, 3, 3)}, {"pads": [1] * 4}, {"strides": [2, 2]}, {"outer": (9, 8, 1, 1)},
     {"outer": (4, 4, 1, 1), "group": 2}],
    ids=str,
)  # fmt: skip
def test_another_second_convolution_stays(other):
    model = two_convolutions(**other)
    (step,) = chosen_passes(("fold-quant-conv",))
    assert not step(model).modified
    assert kinds(model) == {"Conv": 2}


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("first", [True, False])
def test_a_constant_per_channel_becomes_the_bias(bias, first):
    def make() -> ir.Model:
        weights = {"w": random(4, 3, 3, 3), "t": random(1, 4, 1, 1), **({"b": random(4)} if bias else {})}
        conv = ["x", *(name for name in ("w", "b") if name in weights)]
        return layers(
            (1, 3, 5, 5),
            [("Conv", conv, "c", {"pads": [1] * 4}), ("Add", ["c", "t"] if first else ["t", "c"], "y", {})],
            weights,
        )

    assert kinds(equal_after("fold-time-bias", make, (1, 3, 5, 5))) == {"Conv": 1}


def test_a_constant_per_pixel_is_no_bias():
    model = layers(
        (1, 3, 4, 4),
        [("Conv", ["x", "w"], "c", {"pads": [1] * 4}), ("Add", ["c", "t"], "y", {})],
        {"w": random(4, 3, 3, 3), "t": random(1, 1, 4, 4)},
    )
    (step,) = chosen_passes(("fold-time-bias",))
    assert not step(model).modified


def attention(*, bias: bool = False, constant: bool = False) -> ir.Model:
    """Two heads of three channels over five tokens, as torch's exporter writes it; ``constant`` keys and values."""
    weights: dict[str, np.ndarray] = {name: random(6, 6, seed=i) for i, name in enumerate(("wq", "wk", "wv", "wo"))}
    weights |= {"s": np.float32([0.7]), "heads": np.array([1, 5, 2, 3]), "flat": np.array([1, 5, 6])}
    weights |= {"bq": random(6, seed=7), "keys": random(1, 2, 3, 4), "values": random(1, 2, 4, 3)}
    forward, swap = {"perm": [0, 2, 1, 3]}, {"perm": [0, 1, 3, 2]}
    nodes: list[Node] = [("MatMul", ["x", "wq"], "q", {})]
    nodes += [("Add", ["bq", "q"], "qb", {})] if bias else []
    nodes += [
        ("Reshape", ["qb" if bias else "q", "heads"], "q4", {}), ("Transpose", ["q4"], "qh", forward),
        ("Mul", ["qh", "s"], "qs", {}),
    ]  # fmt: skip
    if not constant:
        nodes += [
            ("MatMul", ["x", "wk"], "k", {}), ("Reshape", ["k", "heads"], "k4", {}),
            ("Transpose", ["k4"], "kh", forward), ("Transpose", ["kh"], "kt", swap), ("Mul", ["kt", "s"], "keys", {}),
            ("MatMul", ["x", "wv"], "v", {}), ("Reshape", ["v", "heads"], "v4", {}),
            ("Transpose", ["v4"], "values", forward),
        ]  # fmt: skip
    nodes += [
        ("MatMul", ["qs", "keys"], "logits", {}), ("Softmax", ["logits"], "p", {"axis": -1}),
        ("MatMul", ["p", "values"], "mix", {}), ("Transpose", ["mix"], "back", forward),
        ("Reshape", ["back", "flat"], "joined", {}), ("MatMul", ["joined", "wo"], "y", {}),
    ]  # fmt: skip
    taken = {name for _, inputs, _, _ in nodes for name in inputs} - {name for _, _, name, _ in nodes}
    return layers((1, 5, 6), nodes, {name: value for name, value in weights.items() if name in taken})


@pytest.mark.parametrize("bias", [True, False])
def test_the_attentions_scale_becomes_part_of_the_projections(bias):
    model = equal_after("fold-attention-scale", lambda: attention(bias=bias), (1, 5, 6))
    assert "Mul" not in kinds(model)


def test_a_projection_that_something_else_takes_is_not_scaled():
    model = layers(
        (1, 5, 6),
        [("MatMul", ["x", "w"], "q", {}), ("Mul", ["q", "s"], "t", {}), ("Add", ["t", "q"], "y", {})],
        {"w": random(6, 6), "s": np.float32(0.5)},
    )
    (step,) = chosen_passes(("fold-attention-scale",))
    assert not step(model).modified


@pytest.mark.parametrize("names", [("fold-prompt",), ("fold-attention-scale", "fold-prompt")])
def test_constant_keys_and_values_become_part_of_the_projections(names):
    expected, model = run(attention(constant=True), random(1, 5, 6))[0], attention(constant=True)
    for step in chosen_passes(names):
        assert step(model).modified
    assert kinds(model) == {"MatMul": 2, "Reshape": 2, "Softmax": 1}
    (got,) = run(model, random(1, 5, 6))
    assert np.abs(got - expected).max() <= BOUND * np.ptp(expected)


def test_a_self_attention_is_no_prompts():
    (step,) = chosen_passes(("fold-prompt",))
    assert not step(attention()).modified


def test_an_attention_over_something_else_than_tokens_is_left_alone():
    model = attention(constant=True)
    next(node for node in model.graph if node.name == "qh").attributes["perm"] = ir.AttrInt64s("perm", [0, 2, 3, 1])
    (step,) = chosen_passes(("fold-prompt",))
    assert not step(model).modified


def test_queries_keys_and_values_become_one_product():
    assert kinds(equal_after("merge-projections", attention, (1, 5, 6)))["Split"] == 1


def around_the_unet() -> ir.Model:
    """quant_conv, latent's factor, the UNet's conv_out, x0's two factors, sum and divisor, post_quant_conv."""
    weights = {name: random(4, 4, 1, 1, seed=i) for i, name in enumerate(("q", "p"))}
    weights |= {"u": random(4, 4, 3, 3), "bq": random(4), "bp": random(4), "bu": random(4)}
    weights |= {"scale": np.float32(0.18215), "a": np.float32(14.6), "e": np.float32(-14.5)}
    same = {"pads": [1] * 4}
    return layers(
        (1, 4, 6, 7),
        [
            ("Conv", ["x", "q", "bq"], "moments", {}), ("Mul", ["moments", "scale"], "latent", {}),
            ("Conv", ["latent", "u", "bu"], "noise", same), ("Mul", ["latent", "a"], "al", {}),
            ("Mul", ["noise", "e"], "en", {}), ("Add", ["al", "en"], "sum", {}), ("Div", ["sum", "scale"], "x0", {}),
            ("Conv", ["x0", "p", "bp"], "y", {}),
        ],
        weights,
    )  # fmt: skip


def test_the_factors_around_the_unet_leave_one_product_and_one_sum():
    model = equal_after("fold-latent-scale", around_the_unet, (1, 4, 6, 7))
    assert kinds(model) == {"Conv": 3, "Mul": 1, "Add": 1}


def test_a_frames_scaling_stays_before_its_convolution():
    model = layers(
        (1, 3, 4, 4),
        [("Div", ["x", "levels"], "unit", {}), ("Conv", ["unit", "w"], "y", {"pads": [1] * 4})],
        {"levels": np.float32(255), "w": random(4, 3, 3, 3)},
    )
    (step,) = chosen_passes(("fold-latent-scale",))
    assert not step(model).modified


def test_new_nodes_belong_where_the_old_one_did():
    model = upsample((2, 2), (4, 4))
    for node in model.graph:
        node.metadata_props[SCOPES] = "['', 'vae_decoder', 'vae_decoder.decoder.up_blocks.0', 'conv2d']"
    SplitUpsample()(model)
    StageNames()(model)
    assert {node.name.rpartition("/")[0] for node in model.graph} == {"vae_decoder/decoder.up_blocks.0"}
