"""Repairs of graphs made by hand: what is rescaled, what becomes an island, and that neither changes a picture."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import pytest
import torch_graph
from edgeturbo.engines.errors import RangeError
from edgeturbo.engines.onnxruntime import OnnxRuntimeEngine
from edgeturbo.export.passes.half import Half
from edgeturbo.export.passes.rescale import Rescale
from edgeturbo.export.precision import is_island
from edgeturbo.export.ranges import FP16_LIMIT, lossy_weights
from edgeturbo.export.repair import Outcome, Request, hold_ranges
from edgeturbo.export.repair_scales import Scales
from edgeturbo.export.repair_solver import Rule, Solver
from edgeturbo.export.samples import Sample

SHAPE = (1, 8, 8, 3)
FRAME = np.random.default_rng(6).integers(0, 256, SHAPE, dtype=np.uint8)


def weights(**factors):
    """A residual block with attention behind it; ``factors`` multiply its weights by name."""
    random = np.random.default_rng(7)

    def normal(*shape):
        return random.normal(0, 1, shape) / np.sqrt(np.prod(shape[1:]))

    made = {
        "w1": normal(8, 3, 1, 1), "b1": normal(8, 1)[:, 0], "g": 1 + 0.1 * normal(8, 1, 1), "be": 0.1 * normal(8, 1, 1),
        "w2": normal(8, 8, 3, 3), "lw": np.ones(8), "lb": np.zeros(8), "qkv": normal(8, 24), "qkvb": np.zeros(24),
        "o": normal(8, 8), "w3": normal(3, 8, 1, 1) * 20, "b3": np.full(3, 128.0),
    }  # fmt: skip
    return {name: np.float32(array * factors.get(name, 1.0)) for name, array in made.items()}


def network():
    """Nodes as the exporter writes them: GroupNorm as InstanceNormalization, SiLU, a residual, attention."""
    return [
        ("Cast", ["frame"], "frame_in/c", {"to": onnx.TensorProto.FLOAT}),
        ("Transpose", ["frame_in/c"], "frame_in/t", {"perm": [0, 3, 1, 2]}),
        ("Div", ["frame_in/t", "d"], "frame_in/d", {}),
        ("Conv", ["frame_in/d", "w1", "b1"], "unet/conv1", {}),
        ("Reshape", ["unet/conv1", "groups"], "unet/r1", {}),
        ("InstanceNormalization", ["unet/r1", "one", "zero"], "unet/norm", {"epsilon": 1e-5}),
        ("Reshape", ["unet/norm", "planes"], "unet/r2", {}),
        ("Mul", ["unet/r2", "g"], "unet/scaled_", {}),
        ("Add", ["unet/scaled_", "be"], "unet/affine", {}),
        ("Sigmoid", ["unet/affine"], "unet/sigmoid", {}),
        ("Mul", ["unet/affine", "unet/sigmoid"], "unet/silu", {}),
        ("Conv", ["unet/silu", "w2"], "unet/conv2", {"pads": [1, 1, 1, 1]}),
        ("Add", ["unet/conv2", "unet/conv1"], "unet/residual", {}),
        ("Reshape", ["unet/residual", "rows"], "unet/r3", {}),
        ("Transpose", ["unet/r3"], "unet/tokens", {"perm": [0, 2, 1]}),
        ("LayerNormalization", ["unet/tokens", "lw", "lb"], "unet/layernorm", {"epsilon": 1e-5, "axis": -1}),
        ("MatMul", ["unet/layernorm", "qkv"], "unet/qkv", {}),
        ("Add", ["unet/qkv", "qkvb"], "unet/qkv_b", {}),
        ("Split", ["unet/qkv_b"], ["unet/s.0", "unet/s.1", "unet/s.2"], {"axis": 2, "num_outputs": 3}),
        ("Transpose", ["unet/s.1"], "unet/keys", {"perm": [0, 2, 1]}),
        ("MatMul", ["unet/s.0", "unet/keys"], "unet/scores", {}),
        ("Softmax", ["unet/scores"], "unet/softmax", {"axis": -1}),
        ("MatMul", ["unet/softmax", "unet/s.2"], "unet/values", {}),
        ("MatMul", ["unet/values", "o"], "unet/projected", {}),
        ("Transpose", ["unet/projected"], "unet/back", {"perm": [0, 2, 1]}),
        ("Reshape", ["unet/back", "planes"], "unet/r4", {}),
        ("Conv", ["unet/r4", "w3", "b3"], "unet/out", {}),
        ("Transpose", ["unet/out"], "image_out/t", {"perm": [0, 2, 3, 1]}),
        ("Clip", ["image_out/t", "lo", "hi"], "image_out/clip", {}),
        ("Cast", ["image_out/clip"], "image", {"to": onnx.TensorProto.UINT8}),
    ]


FIXED = {
    "d": np.float32(255), "groups": np.int64([1, 4, -1]),
    "one": np.ones(4, np.float32), "zero": np.zeros(4, np.float32),
    "planes": np.int64([1, 8, 8, 8]), "rows": np.int64([1, 8, 64]), "lo": np.float32(0), "hi": np.float32(255),
}  # fmt: skip


def built(parameters) -> ir.Model:
    made = [
        onnx.helper.make_node(
            operator, inputs, outputs if isinstance(outputs, list) else [outputs],
            name=outputs[0][:-2] if isinstance(outputs, list) else outputs, **attributes,
        )
        for operator, inputs, outputs, attributes in network()
    ]  # fmt: skip
    graph = onnx.helper.make_graph(
        made, "generator",
        [onnx.helper.make_tensor_value_info("frame", onnx.TensorProto.UINT8, SHAPE)],
        [onnx.helper.make_tensor_value_info("image", onnx.TensorProto.UINT8, SHAPE)],
        [onnx.numpy_helper.from_array(np.asarray(value), name) for name, value in {**FIXED, **parameters}.items()],
    )  # fmt: skip
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 20)], ir_version=10)
    return ir.from_proto(onnx.shape_inference.infer_shapes(model, check_type=True, strict_mode=True))


@pytest.fixture
def mended(tmp_path):
    """``mended(**factors)``: the FP32 picture, the FP16 graph's path, and the outcome of holding its ranges."""

    def make(margin: float = 2.0, **factors: float):
        parameters = weights(**factors)
        ir.save(built(parameters), tmp_path / "fp32.onnx")
        with OnnxRuntimeEngine(tmp_path / "fp32.onnx") as engine:
            exact = engine.run({"frame": FRAME})["image"].astype(int)
        model = built(parameters)
        originals = lossy_weights(model)
        Half(is_island)(model)
        path = tmp_path / "generator.onnx"
        ir.save(model, path, external_data="generator.onnx.data")
        _, broken = torch_graph.run(path, {"frame": FRAME}, "image")
        outcome = hold_ranges(path, Request(lambda: [Sample(FRAME[0], {})], "one", margin, originals))
        return exact, path, outcome, broken

    return make


def assert_holds(exact: np.ndarray, path, outcome: Outcome) -> None:
    """Within FP16's range by the ledger, and in true FP16 finite and the same picture."""
    assert all(entry.largest <= FP16_LIMIT / outcome.ledger.margin for entry in outcome.ledger.hottest)
    image, broken = torch_graph.run(path, {"frame": FRAME}, "image")
    assert broken == []
    assert np.abs(image.numpy().astype(int) - exact).max() <= 2
    with OnnxRuntimeEngine(path) as engine:
        assert np.abs(engine.run({"frame": FRAME})["image"].astype(int) - exact).max() <= 2
    onnx.checker.check_model(onnx.load(path), full_check=True)


OVERFLOWS = {
    "a residual stream": {"w1": 2e5, "b1": 2e5, "w2": 2e5},
    "a residual branch alone": {"w2": 3e5},
    "attention values": {"qkv": np.repeat([1.0, 1.0, 4e5], 8), "o": 1 / 4e5},
    "several at once": {"w1": 1e5, "w2": 1e6, "qkv": np.repeat([1.0, 1.0, 3e5], 8), "o": 1 / 3e5},
}


@pytest.mark.parametrize("factors", OVERFLOWS.values(), ids=OVERFLOWS.keys())
def test_what_overflows_is_rescaled_at_no_cost(mended, factors):
    exact, path, outcome, broken = mended(**factors)
    assert broken
    assert {repair.kind for repair in outcome.ledger.repairs} == {"rescale"}
    assert outcome.islands == ()
    assert sum(repair.bytes for repair in outcome.ledger.repairs) == 0
    assert_holds(exact, path, outcome)


def test_what_vanishes_is_rescaled(mended):
    exact, path, outcome, _ = mended(w1=1e-7, b1=1e-7, w2=1e-7)
    assert "subnormal" in {repair.problem for repair in outcome.ledger.repairs}
    assert all(repair.exponent > 0 for repair in outcome.ledger.repairs if repair.kind == "rescale")
    assert_holds(exact, path, outcome)


def test_what_a_nonlinearity_takes_becomes_an_island_no_larger_than_it_must_be(mended):
    """Not the convolution behind it, which takes its input scaled."""
    exact, path, outcome, broken = mended(g=3e5, be=1e5, w2=1e-5)
    assert broken
    (first, *_) = [repair for repair in outcome.ledger.repairs if repair.kind == "island"]
    assert set(outcome.islands) <= {"unet/scaled_", "unet/affine", "unet/sigmoid", "unet/silu", "unet/silu/scaled"}
    assert first.bytes > 0
    assert 0 < first.time_share < 1
    assert_holds(exact, path, outcome)


def test_logits_whose_rounding_changes_the_softmax_are_computed_in_fp32(mended):
    exact, path, outcome, _ = mended(qkv=np.repeat([60.0, 60.0, 1.0], 8))
    (repair,) = outcome.ledger.repairs
    assert (repair.kind, repair.problem, repair.tensor) == ("island", "accuracy", "unet/scores")
    assert {"unet/scores", "unet/softmax"} <= set(outcome.islands)
    assert exact.shape == SHAPE
    assert path.exists()


def test_what_fits_is_not_touched(mended):
    _, path, outcome, broken = mended()
    assert broken == []
    assert outcome.ledger.repairs == ()
    assert not any(".2^" in name for name in ir.load(path).graph.initializers)


def test_a_margin_asks_for_more_room(mended):
    exact, path, outcome, broken = mended(w1=9000.0, b1=9000.0, w2=9000.0, margin=1.0)
    assert broken == []
    assert outcome.ledger.repairs == ()
    exact, path, outcome, _ = mended(w1=9000.0, b1=9000.0, w2=9000.0, margin=16.0)
    assert outcome.ledger.hottest[0].largest <= FP16_LIMIT / 16
    assert_holds(exact, path, outcome)


def test_what_is_no_number_in_fp32_either_is_refused_by_name(mended):
    with pytest.raises(RangeError, match="no repair") as caught:
        mended(w2=np.nan)
    assert caught.value.exit_code == 5
    assert caught.value.got.startswith("w2.fp16 reaches inf")


def scaled(tmp_path, exponents, spoil=None) -> np.ndarray:
    """The FP32 network with exponents given to tensors, by name; ``spoil`` changes it afterwards."""
    model = built(weights())
    scales = Scales.of(model.graph)
    values = {value.name: value for node in model.graph for value in node.outputs}
    Rescale(scales, {scales.root(values[name]): e for name, e in exponents.items()}, {})(model)
    if spoil:
        spoil(model)
    ir.save(model, tmp_path / "scaled.onnx")
    with OnnxRuntimeEngine(tmp_path / "scaled.onnx") as engine:
        return engine.run({"frame": FRAME})["image"].astype(int)


@pytest.fixture
def right(tmp_path):
    return scaled(tmp_path, {})


EXPONENTS = {"unet/residual": -9, "unet/s.2": 5, "unet/values": 5, "unet/norm": 3}


def test_powers_of_two_that_follow_the_rules_change_nothing(right, tmp_path):
    assert np.abs(scaled(tmp_path, EXPONENTS) - right).max() <= 1


def _double_a_weight(model: ir.Model) -> None:
    name = next(name for name in model.graph.initializers if name.startswith("o.2^"))
    weight = model.graph.initializers[name]
    weight.const_value = ir.tensor(weight.const_value.numpy() * np.float32(2), name=name)


def _forget_an_epsilon(model: ir.Model) -> None:
    for node in model.graph:
        if node.op_type == "InstanceNormalization":
            node.attributes["epsilon"] = ir.AttrFloat32("epsilon", 1e-5)


@pytest.mark.parametrize(
    ("exponents", "spoil"),
    [(EXPONENTS, _double_a_weight), ({"unet/residual": -14}, _forget_an_epsilon)],
    ids=["a factor of 2 on one side", "an epsilon that stays"],
)
def test_a_repair_that_is_wrong_on_one_side_shows(right, tmp_path, exponents, spoil):
    assert np.abs(scaled(tmp_path, exponents, spoil) - right).max() > 2


def test_a_nonlinearity_and_all_that_depends_on_it_stay_as_they_are():
    graph = built(weights()).graph
    scales = Scales.of(graph)
    fixed = {value.name for node in graph for value in node.outputs if scales.root(value) is None}
    assert {"unet/affine", "unet/sigmoid", "unet/silu", "unet/scores", "unet/softmax", "image"} <= fixed
    assert {"unet/conv1", "unet/residual", "unet/norm", "unet/s.0", "unet/s.2", "unet/projected"}.isdisjoint(fixed)


def test_an_attention_over_constant_keys_and_values_takes_powers_of_two_back_in_them(tmp_path):
    """Opset 23's Attention over the prompt, which never changes."""
    random = np.random.default_rng(1)
    shapes = {"wq": (4, 4), "keys": (1, 2, 5, 4), "prompt": (1, 2, 5, 4), "wo": (4, 4)}
    arrays = {name: random.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()}
    made = onnx.helper.make_graph(
        [
            onnx.helper.make_node("MatMul", ["x", "wq"], ["query"], name="query"),
            onnx.helper.make_node("Attention", ["query", "keys", "prompt"], ["attended"], name="attended"),
            onnx.helper.make_node("MatMul", ["attended", "wo"], ["y"], name="y"),
        ],
        "attention",
        [onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, (1, 2, 8, 4))],
        [onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, (1, 2, 8, 4))],
        [onnx.numpy_helper.from_array(array, name) for name, array in arrays.items()],
    )
    proto = onnx.helper.make_model(made, opset_imports=[onnx.helper.make_opsetid("", 23)], ir_version=11)
    proto = onnx.shape_inference.infer_shapes(proto, check_type=True, strict_mode=True)
    x = random.standard_normal((1, 2, 8, 4)).astype(np.float32)
    results = []
    for exponents in ({}, {"query": -3, "attended": 4}):
        model = ir.from_proto(proto)
        scales = Scales.of(model.graph)
        values = {value.name: value for node in model.graph for value in node.outputs}
        Rescale(scales, {scales.root(values[name]): e for name, e in exponents.items()}, {})(model)
        scaled_names = {name for name in model.graph.initializers if ".2^" in name}
        assert scaled_names == ({"wq.2^-3", "keys.2^3", "prompt.2^4", "wo.2^-4"} if exponents else set())
        ir.save(model, tmp_path / "attention.onnx")
        with OnnxRuntimeEngine(tmp_path / "attention.onnx") as engine:
            results.append(engine.run({"x": x})["y"].copy())
    assert np.array_equal(*results)


def test_the_solver_moves_what_it_must_and_no_more():
    # 1 must fall by 3; 2 follows it within one step, 3 takes up what a product of both asks for.
    rules = [Rule(((1, 1), (2, -1)), -1, 1), Rule(((1, 1), (2, 1), (3, -1)), 0, 0)]
    solver = Solver([0, -9, -9, -9], [0, -3, 9, 9], rules)
    assert solver.settle(1)
    assert solver.exponents == [0, -3, -2, -5]
    stuck = Solver([0, -9, 0], [0, -3, 0], [Rule(((1, 1), (2, -1)), -1, 1)])
    assert not stuck.settle(1)
    assert stuck.exponents == [0, 0, 0]


def test_an_rtx_plan_can_be_built_of_a_repaired_graph(mended):
    tensorrt_rtx = pytest.importorskip("tensorrt_rtx", reason="needs the extra [rtx]")
    _, path, _, _ = mended(g=3e5, be=1e5, w2=1.0, w1=1e5, b1=1e5)
    logger = tensorrt_rtx.Logger(tensorrt_rtx.Logger.ERROR)
    builder = tensorrt_rtx.Builder(logger)
    network_ = builder.create_network(1 << int(tensorrt_rtx.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = tensorrt_rtx.OnnxParser(network_, logger)
    assert parser.parse_from_file(str(path)), [parser.get_error(i).desc() for i in range(parser.num_errors)]
    config = builder.create_builder_config()
    config.num_compute_capabilities = 1
    config.set_compute_capability(tensorrt_rtx.ComputeCapability.SM89, 0)
    assert builder.build_serialized_network(network_, config) is not None
