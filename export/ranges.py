"""The range ledger: what would not fit FP16, found by arithmetic that cannot hide it.

ONNX Runtime's CPU kernels compute FP16 convolutions in FP32, so an overflow that turns a GPU's picture black is
invisible there. The ledger runs the final graph as an FP32 shadow and records the largest magnitude of every tensor
and weight that the graph stores in FP16.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx_ir as ir

from ..engines.errors import RangeError
from ..engines.manifest import RangeEntry, RangeLedger
from .passes.stage_names import stage_of
from .probe import probing
from .samples import Sample, batches

FP16_LIMIT = 65504.0  # the largest finite float16 (IEEE 754 binary16)
WARN_ABOVE = FP16_LIMIT / 2
_HOTTEST = 10

# They move or repeat values and cannot make a larger one.
_MOVERS = frozenset(
    {"Concat", "Expand", "Flatten", "Gather", "Identity", "Reshape", "Resize", "Slice", "Split", "Squeeze", "Transpose", "Unsqueeze"}
)
# Element-wise and bounded by their input or by one.
_BOUNDED = frozenset({"Clip", "Sigmoid", "Softmax", "Tanh"})


@dataclass(frozen=True)
class _Probe:
    """The two reductions that bracket one tensor: names of graph outputs."""

    tensor: str
    highest: str
    lowest: str


def range_ledger(onnx: Path, taken: tuple[Sample, ...]) -> RangeLedger:
    """Record the FP16 tensors' largest magnitudes over ``taken``. Raises RangeError, naming them, above FP16's limit."""
    weights = _weight_entries(ir.load(onnx))
    shadow, probes = _shadow(ir.load(onnx))
    largest: dict[str, float] = dict.fromkeys((probe.tensor for probe in probes), 0.0)
    with probing(shadow, onnx, optimise=False) as engine:
        for feed in batches(taken, engine.inputs):
            results = engine.run(feed)
            for probe in probes:
                ends = abs(float(results[probe.highest])), abs(float(results[probe.lowest]))
                largest[probe.tensor] = max(largest[probe.tensor], *(math.inf if math.isnan(end) else end for end in ends))
    tensors = [RangeEntry(name, stage_of(name), value) for name, value in largest.items()]
    entries = sorted([*tensors, *weights], key=lambda entry: (-entry.largest, entry.tensor))
    _refuse_overflow([entry for entry in entries if entry.largest > FP16_LIMIT])
    return RangeLedger(
        limit=FP16_LIMIT,
        frames=len(taken),
        tensors=len(tensors),
        weights=len(weights),
        hottest=tuple(entries[:_HOTTEST]),
        warnings=tuple(entry for entry in entries if entry.largest > WARN_ABOVE),
    )


def _refuse_overflow(over: list[RangeEntry]) -> None:
    if over:
        listing = "; ".join(f"{entry.tensor} reaches {entry.largest:,.0f}" for entry in over[:10])
        raise RangeError(
            f"{len(over)} tensors do not fit FP16: on a GPU this picture can turn black",
            expected=f"magnitudes up to {FP16_LIMIT:,.0f}",
            got=listing + (f"; and {len(over) - 10} more" if len(over) > 10 else ""),
            hint="--precision fp32",
        )


def _weight_entries(model: ir.Model) -> list[RangeEntry]:
    entries = []
    for name, value in model.graph.initializers.items():
        if value.dtype == ir.DataType.FLOAT16 and value.const_value is not None and value.const_value.size:
            largest = float(np.abs(value.const_value.numpy()).max())
            entries.append(RangeEntry(name, stage_of(name), math.inf if math.isnan(largest) else largest))
    return entries


def _shadow(model: ir.Model) -> tuple[ir.Model, list[_Probe]]:
    """The graph with every FP16 tensor computed in FP32 from the same FP16 weights, its outputs replaced by probes."""
    half = [node for node in model.graph if node.outputs[0].dtype == ir.DataType.FLOAT16]
    kept = [node for node in half if node.op_type not in _MOVERS | _BOUNDED]
    _to_float(model)
    model.graph.outputs.clear()
    probes = [_add_probe(model, output) for node in kept for output in node.outputs]
    return model, probes


def _to_float(model: ir.Model) -> None:
    for node in list(model.graph):
        if node.op_type == "Cast" and node.attributes["to"].as_int() == ir.DataType.FLOAT16:
            node.attributes["to"] = ir.AttrInt64("to", int(ir.DataType.FLOAT))
        for output in node.outputs:
            if output.dtype == ir.DataType.FLOAT16:
                output.dtype = ir.DataType.FLOAT
    for value in list(model.graph.initializers.values()):
        if value.dtype == ir.DataType.FLOAT16:
            _widen(model, value)


def _widen(model: ir.Model, weight: ir.Value) -> None:
    """Cast a weight where it is used first: widened copies of all weights at once would be the model twice."""
    users = {node for node, _ in weight.uses()}
    first = next(node for node in model.graph if node in users) if len(users) > 1 else next(iter(users))
    cast = ir.node("Cast", [weight], attributes={"to": int(ir.DataType.FLOAT)}, name=f"{weight.name}/widened")
    cast.outputs[0].name = cast.name
    for node, index in list(weight.uses()):
        if node is not cast:
            node.replace_input_with(index, cast.outputs[0])
    model.graph.insert_before(first, cast)


def _add_probe(model: ir.Model, value: ir.Value) -> _Probe:
    names = []
    for operator in ("ReduceMax", "ReduceMin"):
        node = ir.node(operator, [value], attributes={"keepdims": 0}, name=f"{value.name}/{operator}")
        output = node.outputs[0]
        output.name, output.dtype, output.shape = node.name, ir.DataType.FLOAT, ir.Shape([])
        producer = value.producer()
        if producer is None:
            raise ValueError(f"{value.name} has no producer")
        model.graph.insert_after(producer, node)
        model.graph.outputs.append(output)
        names.append(str(output.name))
    return _Probe(str(value.name), *names)
