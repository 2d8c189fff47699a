"""The graph as it would be with room enough: FP16 tensors computed in FP32, each with its range as an output."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import onnx_ir as ir
from onnx_ir.passes import InPlacePass, PassResult, PostconditionError

from .edit import sizes

# They move or repeat values and cannot make a larger one. (A Split tells which of its parts is the large one.)
_MOVERS = frozenset(
    {"Concat", "Expand", "Flatten", "Gather", "Identity", "Reshape", "Resize", "Slice", "Squeeze", "Transpose",
     "Unsqueeze"}
)  # fmt: skip
_PROBES = ("ReduceMax", "ReduceMin", "ReduceSumSquare")
# Element-wise and bounded by their input or by one.
_BOUNDED = frozenset({"Clip", "Sigmoid", "Softmax", "Tanh"})
_ROWS = 128


@dataclass
class Shadow(InPlacePass):
    """Computes every FP16 tensor in FP32, from the same FP16 weights, and makes three numbers of each the only outputs.

    ``probes``, filled by the call: for each tensor's name the names of the outputs with its maximum, its minimum and
    the sum of its squares, which is NaN where a maximum may pass over one. Tensors that only repeat others, or are
    bounded by one, have none. ``sizes``: how many elements each has.
    ``softmaxes``: for the name of what a Softmax takes, two outputs: the sum of squares of what storing it in FP16
    changes in the Softmax's result, and of that result, over up to 128 of its rows.
    Ensures: no node computes in FP16.
    """

    probes: dict[str, tuple[str, ...]] = field(default_factory=dict)
    sizes: dict[str, int] = field(default_factory=dict)
    softmaxes: dict[str, tuple[str, str]] = field(default_factory=dict)

    def call(self, model: ir.Model) -> PassResult:
        half = [node for node in model.graph if node.outputs[0].dtype == ir.DataType.FLOAT16]
        probed = [node for node in half if node.op_type not in _MOVERS | _BOUNDED]
        softmaxes = [node for node in half if node.op_type == "Softmax"]
        _to_float(model)
        model.graph.outputs.clear()
        for node in probed:
            for value in node.outputs:
                self.probes[str(value.name)] = tuple(_probe(model, value, operator) for operator in _PROBES)
                self.sizes[str(value.name)] = int(np.prod(sizes(value)))
        for node in softmaxes:
            if (logits := node.inputs[0]) is not None and len(sizes(logits)) > 1:
                self.softmaxes[str(logits.name)] = _probe_softmax(model, node, logits)
        return PassResult(model, modified=True)

    def ensures(self, model: ir.Model) -> None:
        rounding = {f"{name}/rounded_3" for name in self.softmaxes}
        left = [
            node.name
            for node in model.graph
            if node.outputs[0].dtype == ir.DataType.FLOAT16 and node.outputs[0].name not in rounding
        ]
        if left:
            raise PostconditionError(f"{len(left)} nodes still compute in FP16: {left[:10]}")


def _to_float(model: ir.Model) -> None:
    for node in model.graph:
        if node.op_type == "Cast" and node.attributes["to"].as_int() == ir.DataType.FLOAT16:
            node.attributes["to"] = ir.AttrInt64("to", int(ir.DataType.FLOAT))
        for output in node.outputs:
            if output.dtype == ir.DataType.FLOAT16:
                output.dtype = ir.DataType.FLOAT
    order = {node: index for index, node in enumerate(model.graph)}
    for value in list(model.graph.initializers.values()):
        if value.dtype == ir.DataType.FLOAT16:
            _widen(model, value, min((node for node, _ in value.uses()), key=order.__getitem__))


def _widen(model: ir.Model, weight: ir.Value, first_user: ir.Node) -> None:
    """Cast a weight where it is used first: widened copies of all weights at once would be the model twice."""
    cast = ir.node("Cast", [weight], attributes={"to": int(ir.DataType.FLOAT)}, name=f"{weight.name}/widened")
    cast.outputs[0].name = cast.name
    for node, index in list(weight.uses()):
        if node is not cast:
            node.replace_input_with(index, cast.outputs[0])
    model.graph.insert_before(first_user, cast)


def _probe(model: ir.Model, value: ir.Value, operator: str) -> str:
    """Add the reduction of ``value`` to one number as a graph output; return its name."""
    producer = value.producer()
    if producer is None:
        raise ValueError(f"{value.name} has no producer")
    return _as_output(model, producer, value, operator)


def _as_output(model: ir.Model, behind: ir.Node, value: ir.Value, operator: str) -> str:
    node = ir.node(operator, [value], attributes={"keepdims": 0}, name=f"{value.name}/{operator}")
    output = node.outputs[0]
    output.name, output.dtype, output.shape = node.name, ir.DataType.FLOAT, ir.Shape([])
    model.graph.insert_after(behind, node)
    model.graph.outputs.append(output)
    return str(output.name)


def _probe_softmax(model: ir.Model, node: ir.Node, value: ir.Value) -> tuple[str, str]:
    """Compare some evenly spread rows with what they are when their logits were stored in FP16."""
    shape = sizes(value)
    step = -(-shape[-2] // _ROWS)
    last, made = node, 0

    def add(
        operator: str, inputs: list[ir.Value], kind: ir.DataType = ir.DataType.FLOAT, **attributes: int
    ) -> ir.Value:
        nonlocal last, made
        made += 1
        new = ir.node(operator, inputs, attributes=attributes, name=f"{value.name}/rounded_{made}")
        new.outputs[0].name, new.outputs[0].dtype = new.name, kind
        model.graph.insert_after(last, new)
        last = new
        return new.outputs[0]

    bounds = [
        ir.Value(name=f"{value.name}/rows_{i}", const_value=ir.tensor(np.array([number], np.int64)),
                 type=ir.TensorType(ir.DataType.INT64), shape=ir.Shape([1]))
        for i, number in enumerate((0, shape[-2], len(shape) - 2, step))
    ]  # fmt: skip
    for bound in bounds:
        model.graph.register_initializer(bound)
    axis = node.attributes["axis"].as_int() if "axis" in node.attributes else -1
    rows = add("Slice", [value, *bounds])
    exact = add("Softmax", [rows], axis=axis)
    stored = add("Cast", [rows], ir.DataType.FLOAT16, to=int(ir.DataType.FLOAT16))
    rounded = add("Softmax", [add("Cast", [stored], to=int(ir.DataType.FLOAT))], axis=axis)
    change = add("Sub", [exact, rounded])
    return _as_output(model, last, change, _PROBES[2]), _as_output(model, last, exact, _PROBES[2])
