"""The passes of ``--passes`` on a whole tiny generator, the command that measures them, and how they are chosen."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from edgeturbo._console import Console
from edgeturbo.benchmarks.passes import Plan, measure
from edgeturbo.engines.bundle import ONNX
from edgeturbo.engines.errors import UsageError
from edgeturbo.export.costs import operations
from edgeturbo.export.passes.choice import DEFAULT_PASSES, PASSES, chosen_passes, default_passes
from edgeturbo.export.passes.half import Half
from edgeturbo.export.passes.specialise import constant_nodes
from edgeturbo.export.passes.split_upsample import SplitUpsample
from edgeturbo.export.passes.winograd import Winograd
from edgeturbo.export.precision import is_island
from edgeturbo.export.probe import probing
from edgeturbo.export.stages import STAGES, stage_of
from edgeturbo.export.trace import UNQUANTISED
from shared import once

FRAME = np.random.default_rng(3).integers(0, 256, (1, 64, 64, 3), dtype=np.uint8)
BOUND = 1e-5 * 2  # of the image's range, which is [-1, 1]


def kinds(model: ir.Model) -> Counter[str]:
    return Counter(node.op_type for node in model.graph)


@pytest.fixture(scope="module")
def image(tmp_path_factory) -> Callable[..., np.ndarray]:
    """Runs a graph as it is written; the image before quantisation, or the one after it."""
    beside = tmp_path_factory.mktemp("image") / ONNX

    def run(model: ir.Model, name: str = UNQUANTISED) -> np.ndarray:
        with probing(model, beside) as engine:
            return engine.run({"frame": FRAME})[name]

    return run


PLAN = Plan(64, ("split-upsample", "fold-time-bias+fold-quant-conv"), ("onnxruntime-f32",), rounds=1)


@pytest.fixture(scope="module")
def measured(tiny, tmp_path_factory) -> Path:
    """A folder where the passes were measured on a tiny generator, as the command does it."""

    def make(work: Path) -> None:
        (work / "base").symlink_to(tiny.base)
        (work / "cyclegan.pkl").symlink_to(tiny.cyclegan())
        (work / "results").mkdir()
        (work / "results" / "passes.json").write_text('{"runs": ["an earlier one"]}')
        assert measure(Console(quiet=True), work, work / "results", PLAN) == work / "results" / "passes.json"

    return once(tmp_path_factory, "measured", make)


@pytest.fixture(scope="module")
def whole(measured) -> Callable[[], ir.Model]:
    """A tiny generator in FP32 before any pass, with the image before quantisation as an output."""
    return lambda: ir.external_data.load_to_model(ir.load(measured / "graph-64-none" / ONNX))


@pytest.fixture(scope="module")
def reference(whole, image) -> np.ndarray:
    return image(whole())


# What each pass makes of a generator: six upsamplers, 22 ResNet blocks with a time embedding, 16 cross-attentions,
# 16 self-attentions and the VAE's two.
CHANGES = {
    "split-upsample": {"Resize": -6, "Conv": 18, "Concat": 6, "DepthToSpace": 6},
    "winograd": {},  # every layer is too small for it to pay
    "fold-time-bias": {"Add": -22},
    "fold-latent-scale": {"Mul": -2, "Div": -1},
    "fold-quant-conv": {"Conv": -1},
    "fold-attention-scale": {"Mul": -52},
    "fold-prompt": {"MatMul": -32, "Transpose": -32, "Mul": -16},
    "merge-projections": {"MatMul": -36, "Split": 18},
}


@pytest.mark.parametrize("name", PASSES)
def test_each_pass_leaves_a_whole_generator_as_it_computes(name, whole, image, reference):
    model, before = whole(), kinds(whole())
    (step,) = chosen_passes((name,))
    step(model)
    after = kinds(model)
    changes = {kind: after[kind] - before[kind] for kind in before | after if after[kind] != before[kind]}
    assert changes == CHANGES[name]
    assert np.abs(image(model) - reference).max() <= BOUND


def test_winograd_in_every_layer_leaves_a_whole_generator_as_it_computes(whole, image, reference):
    model = whole()
    before = kinds(model)
    assert Winograd(channels=4, pixels=8 * 8)(model).modified
    assert kinds(model)["DepthToSpace"] > 20
    assert kinds(model)["Conv"] == before["Conv"] + 77 * kinds(model)["DepthToSpace"]
    assert np.abs(image(model) - reference).max() <= BOUND
    assert {stage_of(node.name) for node in model.graph} == {*STAGES}


def test_all_passes_together_leave_a_whole_generator_as_it_computes(whole, image, reference):
    model = whole()
    for step in chosen_passes(tuple(PASSES)):
        step(model)
    assert np.abs(image(model) - reference).max() <= BOUND
    assert constant_nodes(model) == []
    assert all(value.uses() for value in model.graph.initializers.values())
    nodes = [node.name for node in model.graph]
    assert len(set(nodes)) == len(nodes)
    # No factor of the latent is left, so no node of its own: the others have theirs.
    assert {stage_of(name) for name in nodes} == {*STAGES} - {"latent"}


def test_a_generator_after_all_passes_goes_to_fp16(whole, image, tmp_path: Path):
    model = whole()
    model.graph.outputs.pop()
    for step in chosen_passes(tuple(PASSES)):
        step(model)
    Half(is_island)(model)
    ir.save(model, tmp_path / ONNX)
    onnx.checker.check_model(str(tmp_path / ONNX), full_check=True)
    assert np.abs(image(model, "image").astype(int) - image(whole(), "image")).max() <= 8


def test_passes_run_in_their_own_order_whatever_the_names_order():
    names = tuple(reversed(PASSES))
    made = [type(step).__name__ for step in chosen_passes((*names, *names))]
    assert made == [graph_pass.kind for graph_pass in PASSES.values()]
    assert chosen_passes(()) == []


def test_an_unknown_pass_is_refused_with_the_known_ones():
    with pytest.raises(UsageError, match="does not know fold-everything") as caught:
        chosen_passes(("split-upsample", "fold-everything"))
    assert all(name in str(caught.value) for name in PASSES)


def test_the_passes_on_by_default_are_those_that_only_take_work_away():
    assert {*DEFAULT_PASSES.values()} == {("fold-time-bias", "fold-quant-conv")}
    assert default_passes("onnxruntime") == ("fold-time-bias", "fold-quant-conv")
    assert default_passes("a backend of tomorrow") == ()


def test_the_command_times_each_set_against_the_graph_without_any_and_keeps_earlier_figures(measured):
    earlier, run = json.loads((measured / "results" / "passes.json").read_text())["runs"]
    assert earlier == "an earlier one"
    assert run["environment"]["packages"]["onnxruntime"]
    plain, split, folded = (run["graphs_fp32"][name] for name in ("none", *PLAN.sets))
    assert split["flop"] < plain["flop"]
    assert split["weight_bytes"] > plain["weight_bytes"]
    assert folded["nodes"] == plain["nodes"] - 23
    assert [gain["passes"] for gain in run["gains"]] == ["none", *PLAN.sets]
    assert all(gain["seconds"] > 0 and gain["max_abs"] <= BOUND for gain in run["gains"])
    assert run["gains"][0]["max_abs"] == 0
    assert run["gains"][1]["max_abs"] > 0


def test_a_split_upsample_takes_4_ninths_of_the_arithmetic(whole):
    """Of a convolution behind an upsample, 16 multiplications are left of 36; the rest of the graph stays."""
    model = whole()
    behind = [node for node in model.graph if node.op_type == "Conv" and node.inputs[0].producer() is not None
              and node.inputs[0].producer().op_type == "Resize"]  # fmt: skip
    before, part = sum(map(operations, model.graph)), sum(map(operations, behind))
    SplitUpsample()(model)
    assert len(behind) == 6
    assert sum(map(operations, model.graph)) == before - part + part * 4 // 9


def test_arithmetic_counts_two_for_each_multiply_add():
    made = [
        onnx.helper.make_node("Conv", ["x", "w"], ["c"], pads=[1] * 4, group=2),
        onnx.helper.make_node("MatMul", ["c", "m"], ["y"]),
    ]
    info = [onnx.helper.make_tensor_value_info(n, onnx.TensorProto.FLOAT, s) for n, s in
            (("x", [1, 4, 5, 6]), ("w", [8, 2, 3, 3]), ("m", [6, 7]))]  # fmt: skip
    graph = onnx.helper.make_graph(made, "g", info, [onnx.helper.make_tensor_value_info("y", 1, None)])
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 20)], ir_version=10)
    nodes = ir.from_proto(onnx.shape_inference.infer_shapes(model)).graph
    assert [operations(node) for node in nodes] == [2 * (8 * 5 * 6) * (2 * 3 * 3), 2 * (8 * 5 * 7) * 6]


def test_without_sets_each_pass_is_measured_alone_and_then_all():
    assert Plan(512, (), (), 1).chosen() == (*PASSES, "+".join(PASSES))


def test_an_unknown_engine_is_refused(tmp_path):
    with pytest.raises(UsageError, match="does not know toaster"):
        measure(Console(), tmp_path, tmp_path, Plan(64, (), ("toaster",), 1))
    assert not (tmp_path / "graph-64").exists()
