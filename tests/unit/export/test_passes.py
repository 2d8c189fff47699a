"""The rewrites of the graph, on graphs made by hand and on a traced generator."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import edgeturbo
import numpy as np
import onnx
import onnx_ir as ir
import pytest
from edgeturbo.engines.bundle import ONNX, ONNX_DATA
from edgeturbo.engines.onnxruntime import OnnxRuntimeEngine
from edgeturbo.export.passes.exact_norm import ExactNorm
from edgeturbo.export.passes.half import Half
from edgeturbo.export.passes.specialise import Specialise, constant_nodes
from edgeturbo.export.passes.stage_names import StageNames
from edgeturbo.export.precision import is_island
from edgeturbo.export.stages import STAGES, stage_of
from edgeturbo.export.trace import UNQUANTISED
from onnx_ir.passes import PostconditionError, PreconditionError

FLOAT, FLOAT16 = ir.DataType.FLOAT, ir.DataType.FLOAT16
TO_FLOAT = {"to": onnx.TensorProto.FLOAT}
TO_UINT8 = {"to": onnx.TensorProto.UINT8}
ISLANDS = {"frame_in", "latent", "x0", "image_out"}


@pytest.fixture
def traced(exported) -> ir.Model:
    return ir.load(exported.root / ONNX)


@pytest.fixture(scope="session")
def halved(exported, tmp_path_factory) -> Path:
    """The traced generator in FP16, saved with external data as an export saves it."""
    model = ir.load(exported.root / ONNX)
    Half(is_island)(model)
    path = tmp_path_factory.mktemp("halved") / ONNX
    ir.save(model, path, external_data=ONNX_DATA)
    return path


def with_constants(graph) -> ir.Model:
    return graph(
        [
            ("Constant", [], "direct", {"value_float": 2.0}),
            ("Neg", ["direct"], "indirect", {}),
            ("Mul", ["indirect", "weight"], "mixed", {}),
            ("Cast", ["frame"], "varying", TO_FLOAT),
            ("Mul", ["varying", "mixed"], "product", {}),
            ("Neg", ["varying"], "unused", {}),
            ("Cast", ["product"], "image", TO_UINT8),
        ],
        {"weight": np.float32(-3)},
    )


def run(model: ir.Model, path: Path, frame: np.ndarray) -> np.ndarray:
    ir.save(model, path)
    with OnnxRuntimeEngine(path) as engine:
        return next(iter(engine.run({"frame": frame}).values()))


def test_constant_nodes_are_found_directly_and_through_others(graph):
    assert [node.name for node in constant_nodes(with_constants(graph))] == ["direct", "indirect", "mixed"]


def test_specialise_folds_what_is_constant_drops_what_is_unused_and_computes_the_same(graph, tmp_path):
    model = with_constants(graph)
    Specialise()(model)
    assert [node.op_type for node in model.graph] == ["Cast", "Mul", "Cast"]
    frame = np.arange(24, dtype=np.uint8).reshape(1, 2, 4, 3)
    assert np.array_equal(run(model, tmp_path / "folded.onnx", frame), frame * 6)  # -(2) * -3


def test_specialise_raises_when_something_constant_is_left(graph):
    model = graph(
        [
            ("Cast", ["frame"], "float", TO_FLOAT),
            # Nothing may fold a random number, and an attribute alone makes this node depend on nothing.
            ("RandomNormal", [], "random", {"shape": [1], "seed": 1.0}),
            ("Add", ["float", "random"], "sum", {}),
            ("Cast", ["sum"], "image", TO_UINT8),
        ]
    )
    with pytest.raises(PostconditionError, match="1 nodes depend on constants alone"):
        Specialise()(model)


def test_a_traced_generator_has_no_constant_node(traced):
    assert constant_nodes(traced) == []
    unused = [node.name for node in traced.graph if not any(output.uses() for output in node.outputs)]
    # Only the output, and the value that the parity gate makes one, have no further use.
    assert len(unused) <= 2


def test_stage_names_follow_the_modules_that_nodes_were_traced_in(graph):
    scopes = {
        "a": "['', 'frame_in', 'to']",
        "b": "['', 'unet', 'unet.network.conv_in', 'conv2d']",
        "c": "['', 'unet', 'unet.network.conv_in', 'conv2d_1']",
        "d": None,  # made by a rewrite: it belongs where its latest input does
        "e": "['', 'image_out', 'clamp']",
    }
    model = graph(
        [
            ("Cast", ["frame"], "a", TO_FLOAT),
            ("Mul", ["a", "w"], "b", {}),
            ("Mul", ["b", "w"], "c", {}),
            ("Add", ["a", "c"], "d", {}),
            ("Cast", ["d"], "e", TO_UINT8),
        ],
        {"w": np.float32(2)},
    )
    for node in model.graph:
        node.outputs[0].metadata_props["pkg.torch.onnx.original_node_name"] = "convolution_7"
        node.doc_string = f"{Path(edgeturbo.__file__).parent}/export/generator.py"
        if scopes[node.name]:
            node.metadata_props["pkg.torch.onnx.name_scopes"] = scopes[node.name]
    StageNames(frozenset({"d"}))(model)
    assert [node.name for node in model.graph] == [
        "frame_in/Cast_0", "unet/network.conv_in/Mul_0", "unet/network.conv_in/Mul_1", "unet/network.conv_in/Add_0",
        "image_out/Cast_0",
    ]  # fmt: skip
    assert [node.outputs[0].name for node in model.graph] == [
        "frame_in/Cast_0", "unet/network.conv_in/Mul_0", "unet/network.conv_in/Mul_1", "d", "e",
    ]  # fmt: skip
    assert list(model.graph.initializers) == ["unet/network.conv_in/Mul_0:1"]
    assert not any(node.doc_string or node.metadata_props for node in model.graph)
    assert not any(value.metadata_props for value in (model.graph.inputs[0], model.graph.outputs[0]))


def test_everything_in_a_traced_generator_is_named_by_its_stage_and_once(traced):
    nodes = [node.name for node in traced.graph]
    assert {stage_of(name) for name in nodes} == set(STAGES)
    values = [output.name for node in traced.graph for output in node.outputs]
    assert {name for name in values if not stage_of(name)} == {"image", UNQUANTISED}
    weights = list(traced.graph.initializers)
    assert all(name.rpartition(":")[0] in nodes for name in weights)
    for names in (nodes, [*values, *weights, "frame"]):
        assert [name for name, count in Counter(names).items() if count > 1] == []


def test_a_traced_generator_says_nothing_of_where_it_was_built(exported, traced):
    data = (exported.root / ONNX).read_bytes()
    for text in ("site-packages", str(Path(edgeturbo.__file__).resolve().parent), "Traceback", "pkg.torch", "/tmp"):  # noqa: S108
        assert text.encode() not in data, text
    assert not any(node.metadata_props or node.doc_string for node in traced.graph)
    assert not traced.metadata_props
    assert (traced.producer_name, traced.producer_version, traced.graph.name) == ("edgeturbo", None, "generator")


def test_the_unquantised_image_is_a_value_and_no_output(traced):
    assert [output.name for output in traced.graph.outputs] == ["image"]
    (value,) = [out for node in traced.graph for out in node.outputs if out.name == UNQUANTISED]
    assert (value.dtype, tuple(value.shape)) == (FLOAT, (1, 3, 64, 64))


def hand_made(graph, weights=None) -> ir.Model:
    """Two islands around two FP16 nodes that share an input, with a Resize, whose scales the standard keeps FP32."""
    return graph(
        [
            ("Cast", ["frame"], "frame_in/Cast_0", TO_FLOAT),
            ("Mul", ["frame_in/Cast_0", "w"], "unet/Mul_0", {}),
            ("Add", ["frame_in/Cast_0", "w"], "unet/Add_0", {}),
            ("Resize", ["unet/Mul_0", "", "scales"], "unet/Resize_0", {"mode": "nearest"}),
            ("Add", ["unet/Resize_0", "unet/Add_0"], "x0/Add_0", {}),
            ("Mul", ["x0/Add_0", "unet/Mul_0"], "x0/Mul_0", {}),
            ("Cast", ["x0/Mul_0"], "image", TO_UINT8),
        ],
        {"w": np.float32([1.1, 0.1, 2.5]), "scales": np.ones(4, np.float32), **(weights or {})},
    )


def test_half_types_nodes_weights_and_borders(graph):
    model = hand_made(graph)
    half = Half(is_island)
    half(model)
    kinds = {node.name: node.outputs[0].dtype for node in model.graph}
    assert half.islands == ["frame_in/Cast_0", "x0/Add_0", "x0/Mul_0"]
    assert {kinds[name] for name in half.islands} == {FLOAT}
    assert {kinds[f"unet/{name}_0"] for name in ("Mul", "Add", "Resize")} == {FLOAT16}
    # One cast serves both takers of frame_in's value, one both of Mul_0's; each stands right after what it casts.
    names = [node.name for node in model.graph]
    casts = [name for name in names if "/to_" in name]
    assert Counter(casts) == Counter(
        ["frame_in/Cast_0/to_fp16", "unet/Resize_0/to_fp32", "unet/Add_0/to_fp32", "unet/Mul_0/to_fp32"]
    )
    assert all(names[names.index(cast) - 1] == cast.rpartition("/")[0] for cast in casts)
    resize = model.graph[names.index("unet/Resize_0")]
    assert (resize.inputs[0].dtype, resize.inputs[2].dtype) == (FLOAT16, FLOAT)
    assert (model.graph.inputs[0].dtype, model.graph.outputs[0].dtype) == (ir.DataType.UINT8, ir.DataType.UINT8)


def test_half_converts_a_weight_once_when_it_is_saved_and_as_numpy_does(graph, tmp_path):
    model = hand_made(graph)
    wide = model.graph.initializers["w"].const_value.numpy().copy()
    Half(is_island)(model)
    assert sorted(model.graph.initializers) == ["scales", "w.fp16"]
    assert isinstance(model.graph.initializers["w.fp16"].const_value, ir.LazyTensor)
    ir.save(model, tmp_path / "half.onnx")
    saved = ir.load(tmp_path / "half.onnx").graph.initializers["w.fp16"].const_value.numpy()
    assert saved.dtype == np.float16
    assert np.array_equal(saved, wide.astype(np.float16))


def test_half_keeps_a_weight_in_both_types_where_both_are_taken(graph):
    model = graph(
        [
            ("Cast", ["frame"], "frame_in/Cast_0", TO_FLOAT),
            ("Mul", ["frame_in/Cast_0", "w"], "frame_in/Mul_0", {}),
            ("Mul", ["frame_in/Mul_0", "w"], "unet/Mul_0", {}),
            ("Cast", ["unet/Mul_0"], "image", TO_UINT8),
        ],
        {"w": np.float32(2)},
    )
    Half(is_island)(model)
    assert {name: value.dtype for name, value in model.graph.initializers.items()} == {"w": FLOAT, "w.fp16": FLOAT16}


def test_half_leaves_what_is_no_float_as_it_is(graph):
    model = graph(
        [
            ("Cast", ["frame"], "frame_in/Cast_0", TO_FLOAT),
            ("Greater", ["frame_in/Cast_0", "w"], "unet/Greater_0", {}),
            ("Where", ["unet/Greater_0", "frame_in/Cast_0", "w"], "unet/Where_0", {}),
            ("Cast", ["unet/Where_0"], "image", TO_UINT8),
        ],
        {"w": np.float32(2)},
    )
    Half(is_island)(model)
    where = model.graph[-2]
    assert [value.dtype for value in where.inputs] == [ir.DataType.BOOL, FLOAT16, FLOAT16]
    assert where.outputs[0].dtype == FLOAT16


def test_half_is_not_applied_twice(graph):
    model = hand_made(graph)
    Half(is_island)(model)
    with pytest.raises(PreconditionError, match="in float16 already"):
        Half(is_island)(model)


def test_half_checks_that_types_agree(graph):
    model = hand_made(graph)
    Half(is_island)(model)
    node = next(node for node in model.graph if node.name == "unet/Mul_0")
    node.inputs[0].dtype = FLOAT
    with pytest.raises(PostconditionError, match="unet/Mul_0 mixes"):
        Half(is_island).ensures(model)


def test_a_halved_generator_is_valid_onnx_with_types_that_agree(halved, tmp_path):
    onnx.checker.check_model(str(halved), full_check=True)
    onnx.shape_inference.infer_shapes_path(
        str(halved), str(tmp_path / "inferred.onnx"), check_type=True, strict_mode=True, data_prop=True
    )
    with OnnxRuntimeEngine(halved) as engine:
        (image,) = engine.run({"frame": np.zeros((1, 64, 64, 3), np.uint8)}).values()
    assert image.shape == (1, 64, 64, 3)


def test_a_halved_generator_keeps_its_islands_and_its_border(halved):
    model = ir.load(halved)
    borders = [node for node in model.graph if node.name.endswith(("/to_fp16", "/to_fp32"))]
    for node in model.graph:
        floats = {out.dtype for out in node.outputs} & {FLOAT, FLOAT16}
        if node not in borders and floats:
            assert floats == {FLOAT if stage_of(node.name) in ISLANDS else FLOAT16}, node.name
        if node.op_type == "Resize":
            assert node.inputs[2].dtype == FLOAT
    assert len({(node.inputs[0], node.attributes["to"].as_int()) for node in borders}) == len(borders) > 0
    assert [value.dtype for value in (*model.graph.inputs, *model.graph.outputs)] == [ir.DataType.UINT8] * 2


def test_a_halved_generators_weights_are_the_wide_ones_rounded(halved, traced):
    narrow = ir.load(halved).graph.initializers
    halves = {name: value for name, value in narrow.items() if value.dtype == FLOAT16}
    assert len(halves) > 100
    for name, value in halves.items():
        wide = traced.graph.initializers[name.removesuffix(".fp16")].const_value.numpy()
        assert np.array_equal(value.const_value.numpy(), wide.astype(np.float16)), name


def _group_norm(count: int) -> ir.Model:
    """[1, 2, count] in, normalised by group, as torch's exporter writes GroupNorm: unit scale, zero bias."""
    parameters = [
        onnx.numpy_helper.from_array(np.full(2, fill, dtype=np.float32), name)
        for name, fill in (("one", 1), ("zero", 0))
    ]
    x, y = (onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [1, 2, count]) for name in "xy")
    node = onnx.helper.make_node("InstanceNormalization", ["x", "one", "zero"], ["y"], name="norm", epsilon=1e-6)
    graph = onnx.helper.make_graph([node], "g", [x], [y], parameters)
    return ir.from_proto(onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 20)], ir_version=10))


def test_exact_norm_keeps_the_digits_that_one_long_sum_loses():
    import onnxruntime

    count = 512 * 512
    # Two values, far from zero and close to each other: what a sketch's first convolution looks like.
    random = np.random.default_rng(0)
    x = np.where(random.random((1, 2, count)) < 0.3, 20.0, 20.1).astype(np.float32)
    wide = x.astype(np.float64)
    expected = (wide - wide.mean(-1, keepdims=True)) / np.sqrt(wide.var(-1, keepdims=True) + 1e-6)
    errors = []
    for model in (_group_norm(count), ExactNorm()(_group_norm(count)).model):
        session = onnxruntime.InferenceSession(ir.to_proto(model).SerializeToString())
        errors.append(np.abs(session.run(None, {"x": x})[0] - expected).max())
    assert errors[1] < 1e-4 < errors[0]


def test_exact_norm_leaves_nothing_that_depends_on_constants_alone():
    model = ExactNorm()(_group_norm(96)).model
    assert constant_nodes(model) == []
    assert "InstanceNormalization" not in {node.op_type for node in model.graph}
    assert all(value.uses() for value in model.graph.initializers.values())


def test_exact_norm_refuses_a_norm_with_a_scale_of_its_own():
    model = _group_norm(96)
    model.graph.initializers["one"].const_value = ir.tensor(np.full(2, 2, dtype=np.float32))
    with pytest.raises(ir.passes.PostconditionError, match="norm"):
        ExactNorm()(model)
