"""The range ledger: overflows that ONNX Runtime's FP32 arithmetic hides are found and named."""

from __future__ import annotations

import math

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from edgeturbo.engines.errors import RangeError
from edgeturbo.engines.onnxruntime import OnnxRuntimeEngine
from edgeturbo.export.passes.half import Half
from edgeturbo.export.passes.shadow import Shadow
from edgeturbo.export.precision import is_island
from edgeturbo.export.ranges import ledger_of, measure
from edgeturbo.export.repair import Request, hold_ranges
from edgeturbo.export.samples import Sample
from onnx_ir.passes import PostconditionError

SHAPE = (2, 4, 3)


def range_ledger(path, taken, margin=2.0):
    """The ledger alone: nothing is repaired."""
    return ledger_of(measure(path, taken), margin, "made by hand")


def refused(path, taken):
    """What is said of a graph that no repair makes right."""
    with pytest.raises(RangeError) as caught:
        hold_ranges(path, Request(lambda: taken, "made by hand", 1.0))
    return caught.value


TO_FLOAT, TO_UINT8 = {"to": onnx.TensorProto.FLOAT}, {"to": onnx.TensorProto.UINT8}


def sample(value: int) -> Sample:
    """One bright pixel in a dark frame."""
    frame = np.zeros(SHAPE, np.uint8)
    frame[1, 2, 1] = value
    return Sample(frame, {})


@pytest.fixture
def saved(graph, tmp_path):
    """``saved([("Mul", "300"), …])``: a chain of FP16 operators with one constant each, between two borders."""

    def make(chain, **weights):
        nodes, last = [("Cast", ["frame"], "frame_in/Cast_0", TO_FLOAT)], "frame_in/Cast_0"
        for index, (operator, constant) in enumerate(chain):
            name = f"unet/{operator}_{index}"
            nodes.append((operator, [last, constant] if constant else [last], name, {}))
            last = name
        nodes.append(("Cast", [last], "image", TO_UINT8))
        constants = {constant: np.float32(constant) for _, constant in chain if constant and constant not in weights}
        model = graph(nodes, {**constants, **weights})
        Half(is_island)(model)
        ir.save(model, tmp_path / "generator.onnx", external_data="generator.onnx.data")
        return tmp_path / "generator.onnx"

    return make


UP_AND_DOWN = [("Mul", "300"), ("Mul", "300"), ("Div", "300"), ("Div", "300")]


def test_an_overflow_is_named_though_onnx_runtime_returns_a_faultless_picture(saved):
    path = saved(UP_AND_DOWN)
    frame = sample(100).frame[None]
    with OnnxRuntimeEngine(path) as engine:
        assert np.abs(engine.run({"frame": frame})["image"].astype(int) - frame).max() <= 1
    ledger = range_ledger(path, (sample(100),))
    assert (ledger.hottest[0].tensor, ledger.hottest[0].largest) == ("unet/Mul_1", 9_000_000)


def test_what_fits_is_recorded_hottest_first(saved):
    ledger = range_ledger(saved(UP_AND_DOWN), (sample(0),))
    assert (ledger.limit, ledger.frames, ledger.tensors, ledger.weights) == (65504.0, 1, 5, 1)
    assert ledger.warnings == ()
    # frame_in's cast to FP16 is a tensor of its own: its magnitude is the frame's.
    ledger = range_ledger(saved([("Mul", "100")]), (sample(200),))
    assert [(entry.tensor, entry.stage, entry.largest) for entry in ledger.hottest] == [
        ("unet/Mul_0", "unet", 20000.0),
        ("frame_in/Cast_0/to_fp16", "frame_in", 200.0),
        ("100.fp16", "", 100.0),
    ]


def test_the_largest_of_all_frames_counts(saved):
    ledger = range_ledger(saved([("Mul", "100")]), (sample(10), sample(200), sample(50)))
    assert (ledger.frames, ledger.hottest[0].largest) == (3, 20000.0)


@pytest.mark.parametrize(("factor", "repaired"), [("327.5", False), ("327.75", True), ("-327.75", True), ("655", True)])
def test_above_half_of_the_limit_is_repaired(saved, factor, repaired):
    """32,752 is half of the limit."""
    outcome = hold_ranges(saved([("Mul", factor)]), Request(lambda: [sample(100)], "", 2.0))
    assert [repair.tensor for repair in outcome.ledger.repairs] == (["unet/Mul_0"] if repaired else [])
    assert all(entry.largest <= 32752 for entry in outcome.ledger.hottest)


@pytest.mark.parametrize(
    ("chain", "named"),
    [
        ([("Div", "0")], "unet/Div_0 reaches inf"),  # one inf, and 0 / 0 all around it
        ([("Log", None)], "unet/Log_0 reaches inf"),
        ([("Sub", "50"), ("Sqrt", None)], "unet/Sqrt_1 reaches inf"),  # NaN but for one pixel
        ([("Neg", None), ("Sqrt", None)], "unet/Sqrt_1 reaches inf"),  # one NaN among zeros
    ],
)
def test_what_is_no_number_counts_as_an_overflow(saved, chain, named):
    assert named in refused(saved(chain), (sample(100),)).got


def test_a_weight_beyond_the_limit_became_infinite_and_is_named_where_nobody_knows_it_any_more(saved):
    path = saved([("Mul", "big")], big=np.float32([1e6, 1.0, 1.0]))
    assert math.isinf(ir.load(path).graph.initializers["big.fp16"].const_value.numpy().max())
    assert refused(path, (sample(0),)).got.startswith("big.fp16 reaches inf")


def test_of_many_tensors_ten_are_named(saved):
    error = refused(saved([("Log", None), *[("Neg", None)] * 12]), (sample(255),))
    assert "13 tensors do not fit FP16" in error.what
    assert error.exit_code == 5
    assert error.got.count(" reaches ") == 10
    assert error.got.endswith("; and 3 more")


def test_the_ledger_leaves_no_file_behind(saved, tmp_path):
    path = saved([("Mul", "300")])
    before = sorted(tmp_path.iterdir())
    range_ledger(path, (sample(1),))
    hold_ranges(path, Request(lambda: [sample(255)], "", 1.0))
    assert sorted(tmp_path.iterdir()) == before


def test_a_shadow_computes_nothing_in_fp16_and_has_only_ranges_as_outputs(saved):
    model = ir.load(saved([*UP_AND_DOWN, ("Sigmoid", None)]))
    shadow = Shadow()
    shadow(model)
    assert ir.DataType.FLOAT16 not in {out.dtype for node in model.graph for out in node.outputs}
    assert "unet/Sigmoid_4" not in shadow.probes  # bounded by one
    assert {output.name for output in model.graph.outputs} == {name for ends in shadow.probes.values() for name in ends}
    # The weights stay FP16 and are widened where they are used: it is the same numbers that are judged.
    assert {value.dtype for value in model.graph.initializers.values()} == {ir.DataType.FLOAT16}


def test_a_shadow_in_which_fp16_is_left_is_refused(saved):
    with pytest.raises(PostconditionError, match="still compute in FP16"):
        Shadow().ensures(ir.load(saved(UP_AND_DOWN)))
