"""Lowering for TensorRT 8.6: valid at opset 17, the same results in ONNX Runtime, only what its parser knows."""

from __future__ import annotations

import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest
from edgeturbo.engines.bundle import ONNX, ONNX_DATA
from edgeturbo.engines.errors import BundleError, MissingComponentError, UsageError
from edgeturbo.export.lowering import OPERATORS, lower_for_tensorrt_8, needs_lowering
from edgeturbo.export.passes.half import Half
from edgeturbo.export.precision import is_island
from edgeturbo.export.trace import UNQUANTISED
from onnx import TensorProto as T
from onnx import helper, numpy_helper

FRAME = np.random.default_rng(5).integers(0, 256, (1, 64, 64, 3), dtype=np.uint8)


def save(
    path: Path, nodes: list[onnx.NodeProto], *, shape: tuple[int, ...] = (2, 3, 6, 7), weights: Any = None,
    opset: int = 20, kind: int = T.FLOAT, made: int | None = None,
) -> Path:  # fmt: skip
    """A graph from ``x`` of ``kind`` to the outputs of its last node, of the kind ``made``."""
    outputs = [helper.make_tensor_value_info(name, made or kind, None) for name in nodes[-1].output]
    stored = [numpy_helper.from_array(np.asarray(value), name) for name, value in (weights or {}).items()]
    graph = helper.make_graph(nodes, "g", [helper.make_tensor_value_info("x", kind, shape)], outputs, stored)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=10)
    onnx.save(onnx.shape_inference.infer_shapes(model, strict_mode=True), path)
    return path


def run(path: Path, feed: np.ndarray, also: str | None = None) -> list[np.ndarray]:
    """As it is written. ``also``: a value to give out besides the outputs."""
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    model = ir.external_data.load_to_model(ir.load(path))
    if also:
        model.graph.outputs.append(next(v for node in model.graph for v in node.outputs if v.name == also))
    session = onnxruntime.InferenceSession(ir.to_proto(model).SerializeToString(), options)
    return session.run(None, {session.get_inputs()[0].name: feed})


def checked(path: Path) -> onnx.ModelProto:
    """The model at ``path``, valid at opset 17: no attribute, input or type that came later."""
    onnx.checker.check_model(str(path), full_check=True)
    model = onnx.load(path, load_external_data=False)
    assert [(entry.domain, entry.version) for entry in model.opset_import] == [("", 17)]
    assert model.ir_version == 8
    assert {node.op_type for node in model.graph.node} <= OPERATORS
    return model


@pytest.fixture(scope="module")
def halved(exported, tmp_path_factory) -> Path:
    model = ir.load(exported.root / ONNX)
    Half(is_island)(model)
    path = tmp_path_factory.mktemp("halved") / ONNX
    ir.save(model, path, external_data=ONNX_DATA)
    return path


def names_of(path: Path) -> set[str]:
    return {node.name for node in onnx.load(path, load_external_data=False).graph.node}


def test_a_whole_fp32_generator_computes_the_same_at_opset_17(exported, tmp_path):
    original, lowered = exported.root / ONNX, tmp_path / "lowered.onnx"
    assert needs_lowering(original)
    assert lower_for_tensorrt_8(original, lowered) == ()
    checked(lowered)
    assert not needs_lowering(lowered)
    (image, wide), (expected, wide_expected) = run(lowered, FRAME, UNQUANTISED), run(original, FRAME, UNQUANTISED)
    assert np.abs(wide - wide_expected).max() <= 1e-6 * np.ptp(wide_expected)
    assert np.array_equal(image, expected)
    # Every node but the sixteen Gelu keeps its name: the manifest's FP32 islands are still theirs.
    assert {name.rpartition("/")[2] for name in names_of(original) - names_of(lowered)} == {"Gelu_0"}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["lowered.onnx", "lowered.onnx.data"]


def test_a_whole_fp16_generator_stays_within_60_db_and_names_its_new_islands(halved, tmp_path):
    lowered = tmp_path / ONNX
    islands = lower_for_tensorrt_8(halved, lowered)
    model = checked(lowered)
    wide, expected = (run(path, FRAME, UNQUANTISED)[1].astype(float) for path in (lowered, halved))
    assert 10 * math.log10(4 / max(np.square(wide - expected).mean(), 1e-12)) >= 60
    assert len(islands) == 16 * 6
    made = names_of(lowered) - names_of(halved)
    kinds = {info.name: info.type.tensor_type.elem_type for info in model.graph.value_info}
    new = {node.name for node in model.graph.node if node.name in made and kinds[node.output[0]] == T.FLOAT}
    assert set(islands) == new


@pytest.mark.parametrize("approximate", ["none", "tanh"])
def test_gelu_keeps_its_digits_in_fp16(approximate, tmp_path):
    node = helper.make_node("Gelu", ["x"], ["y"], name="gelu", approximate=approximate)
    x = np.linspace(-8, 8, 4001).astype(np.float16).reshape(1, -1)
    path = save(tmp_path / "g.onnx", [node], shape=x.shape, kind=T.FLOAT16)
    islands = lower_for_tensorrt_8(path, tmp_path / "l.onnx")
    checked(tmp_path / "l.onnx")
    (got,) = run(tmp_path / "l.onnx", x)
    wide = x.astype(np.float64)
    bell = {
        "none": np.vectorize(math.erf)(wide / math.sqrt(2)),
        "tanh": np.tanh(math.sqrt(2 / math.pi) * (wide + 0.044715 * wide**3)),
    }[approximate]
    expected = wide / 2 * (1 + bell)
    # Half a unit in FP16's last place, and what float32 loses where 1 + erf cancels.
    assert (np.abs(got - expected) <= np.abs(expected) * 2.0**-11 + 1e-6).all()
    # All but the cast back, which answers in FP16.
    (back,) = names_of(tmp_path / "l.onnx") - {*islands}
    assert back.startswith("gelu/Cast_")
    assert [output.name for output in onnx.load(tmp_path / "l.onnx").graph.output] == ["y"]


N = helper.make_node
AXES = {"axes": np.array([-1, 1])}
CASES: dict[str, tuple[list[onnx.NodeProto], dict[str, Any]]] = {
    "Gelu": ([N("Gelu", ["x"], ["y"], name="n")], {}),
    "reduction": ([N("ReduceMean", ["x", "axes"], ["y"], name="n", keepdims=0)], AXES),
    "reduction of all": ([N("ReduceMax", ["x"], ["y"], name="n", noop_with_empty_axes=0)], {}),
    "sum": ([N("ReduceSum", ["x", "axes"], ["y"], name="n")], AXES),
    "even split": ([N("Split", ["x"], ["a", "b"], name="n", axis=2, num_outputs=2)], {}),
    "uneven split": ([N("Split", ["x"], ["a", "b", "c"], name="n", axis=-1, num_outputs=3)], {}),
    "split by sizes": ([N("Split", ["x", "s"], ["a", "b"], name="n", axis=1)], {"s": np.array([1, 2])}),
    "Resize": (
        [N("Resize", ["x", "", "s"], ["y"], name="n", mode="nearest", coordinate_transformation_mode="asymmetric",
           nearest_mode="floor", antialias=0, keep_aspect_ratio_policy="stretch")],
        {"s": np.float32([1, 1, 2, 2])},
    ),
    "Pad": (
        [N("Pad", ["x", "p", "v", "axes"], ["y"], name="n")],
        {"p": np.array([1, 2, 3, 0]), "v": np.float32(7), "axes": np.array([3, -3])},
    ),
    "GridSample": (
        [N("GridSample", ["x", "grid"], ["y"], name="n", mode="linear", align_corners=1)],
        {"grid": np.random.default_rng(1).uniform(-1, 1, (2, 4, 5, 2)).astype(np.float32)},
    ),
    "Cast": ([N("Cast", ["x"], ["c"], to=T.FLOAT16, saturate=1), N("Cast", ["c"], ["y"], to=T.FLOAT)], {}),
    "Reshape": ([N("Reshape", ["x", "s"], ["y"], allowzero=1)], {"s": np.array([2, -1])}),
}  # fmt: skip


# The first opset of a form; 18 for the others.
SINCE = {"Gelu": 20, "GridSample": 20, "Cast": 19}


@pytest.mark.parametrize(
    ("name", "opset"), [(name, opset) for name in CASES for opset in range(SINCE.get(name, 18), 21)]
)
def test_each_later_form_says_the_same_at_opset_17(name, opset, tmp_path):
    nodes, weights = CASES[name]
    x = np.random.default_rng(2).standard_normal((2, 3, 6, 7)).astype(np.float32)
    path = save(tmp_path / "g.onnx", nodes, weights=weights, opset=opset)
    lower_for_tensorrt_8(path, tmp_path / "l.onnx")
    checked(tmp_path / "l.onnx")
    got, expected = run(tmp_path / "l.onnx", x), run(path, x)
    assert len(got) == len(expected)
    for one, other in zip(got, expected, strict=True):
        assert one.shape == other.shape
        assert np.abs(one - other).max() <= 1e-6


def to_uint8(*nodes: onnx.NodeProto) -> dict[str, Any]:
    return {"nodes": list(nodes), "kind": T.UINT8, "made": T.UINT8}


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "an unknown operator": ({"nodes": [N("Mish", ["x"], ["y"])]}, "does not know: Mish"),
    "a changed meaning": ({"nodes": [N("LpPool", ["x"], ["y"], name="n", kernel_shape=[2, 2])]}, "LpPool n .*changed"),
    "antialias": (
        {"nodes": [N("Resize", ["x", "", "s"], ["y"], name="n", mode="linear", antialias=1)],
         "weights": {"s": np.float32([1, 1, 0.5, 0.5])}},
        "antialias=1 came after opset 17",
    ),
    "half_pixel_symmetric": (
        {"nodes": [N("Resize", ["x", "", "s"], ["y"], coordinate_transformation_mode="half_pixel_symmetric")],
         "weights": {"s": np.float32([1, 1, 2, 2])}},
        "half_pixel_symmetric came with opset 19",
    ),
    "a resize of some axes": (
        {"nodes": [N("Resize", ["x", "", "s"], ["y"], axes=[2, 3])], "weights": {"s": np.float32([2, 2])}},
        "names axes",
    ),
    "wrapped padding": (
        {"nodes": [N("Pad", ["x", "p"], ["y"], mode="wrap")], "weights": {"p": np.array([0, 0, 1, 1] * 2)}},
        'mode "wrap" came with opset 19',
    ),
    "a reduction of nothing": (
        {"nodes": [N("ReduceMean", ["x"], ["y"], noop_with_empty_axes=1)]}, "noop_with_empty_axes=1 came after",
    ),
    "computed axes": (
        {"nodes": [N("Shape", ["x"], ["s"], start=3), N("Sub", ["s", "five"], ["a"]),
                   N("ReduceMean", ["x", "a"], ["y"], name="n")], "weights": {"five": np.array([5])}},
        "its input 1 is computed",
    ),
    "a scattered maximum": (
        {"nodes": [N("ScatterElements", ["x", "i", "u"], ["y"], reduction="max")],
         "weights": {"i": np.zeros((1, 1, 1, 1), np.int64), "u": np.zeros((1, 1, 1, 1), np.float32)}},
        "came with opset 18",
    ),
    "uint8 that is moved": (
        to_uint8(N("Transpose", ["x"], ["t"], name="n"), N("Cast", ["t"], ["f"], to=T.FLOAT),
                 N("Cast", ["f"], ["y"], to=T.UINT8)),
        "Transpose n .*nothing with uint8 but cast it",
    ),
    "bfloat16": ({"nodes": [N("Cast", ["x"], ["y"], to=T.BFLOAT16)], "made": T.BFLOAT16}, "no type BFLOAT16"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_what_opset_17_or_tensorrt_8_6_cannot_say_is_refused_by_name(name, tmp_path):
    graph, message = REFUSED[name]
    path = save(tmp_path / "g.onnx", **graph)
    with pytest.raises(UsageError, match=message) as caught:
        lower_for_tensorrt_8(path, tmp_path / "l.onnx")
    assert "--opset 20" in str(caught.value)
    assert [path.name for path in tmp_path.iterdir()] == ["g.onnx"]


@pytest.mark.parametrize("opset", [16, 21, 23])
def test_other_opsets_are_refused(opset, tmp_path):
    path = save(tmp_path / "g.onnx", [N("Neg", ["x"], ["y"])], opset=opset)
    with pytest.raises(UsageError, match=f"cannot be lowered(.|\n)*opset {opset}(.|\n)*--opset 20"):
        lower_for_tensorrt_8(path, tmp_path / "l.onnx")


def test_a_graph_of_opset_17_needs_nothing_and_may_be_lowered_all_the_same(tmp_path):
    path = save(tmp_path / "g.onnx", [N("Neg", ["x"], ["y"], name="n")], opset=17)
    assert not needs_lowering(path)
    assert lower_for_tensorrt_8(path, tmp_path / "l.onnx") == ()
    checked(tmp_path / "l.onnx")


@pytest.mark.parametrize("weights", [{"w": np.float32([1])}, {}])
def test_earlier_files_are_replaced_and_nothing_else_is_left_behind(weights, tmp_path):
    node = N("Add", ["x", "w"], ["y"]) if weights else N("Neg", ["x"], ["y"])
    path = save(tmp_path / "g.onnx", [node], weights=weights)
    for name in ("l.onnx", "l.onnx.data"):
        (tmp_path / name).write_bytes(b"the earlier one")
    lower_for_tensorrt_8(path, tmp_path / "l.onnx")
    checked(tmp_path / "l.onnx")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["g.onnx", "l.onnx", "l.onnx.data"]
    assert (tmp_path / "l.onnx.data").read_bytes() != b"the earlier one"


@pytest.mark.parametrize("content", [None, b"no protobuf at all", b""])
def test_a_file_that_is_no_graph_is_refused(content, tmp_path):
    path = tmp_path / "g.onnx"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(BundleError, match=r"g\.onnx"):
        needs_lowering(path)


def test_without_onnx_ir_the_error_says_what_to_install(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "onnx_ir", None)
    with pytest.raises(MissingComponentError, match=r"edgeturbo\[tensorrt8\]"):
        needs_lowering(tmp_path / "g.onnx")


def test_it_works_where_nothing_of_the_exporter_is_installed(tmp_path):
    path = save(tmp_path / "g.onnx", [N("Gelu", ["x"], ["y"], name="n")])
    blocked = ("torch", "onnxscript", "diffusers", "transformers", "peft", "safetensors", "onnxruntime")
    code = (
        f"import sys; sys.modules.update(dict.fromkeys({blocked!r}))\n"
        "from pathlib import Path\n"
        "from edgeturbo.export.lowering import lower_for_tensorrt_8, needs_lowering\n"
        f"path, out = Path({str(path)!r}), Path({str(tmp_path / 'l.onnx')!r})\n"
        "assert needs_lowering(path); lower_for_tensorrt_8(path, out); assert not needs_lowering(out)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    checked(tmp_path / "l.onnx")
