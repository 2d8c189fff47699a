"""The graph as it would be with room enough: FP16 tensors computed in FP32, each with its range as an output."""

from __future__ import annotations

from dataclasses import dataclass, field

import onnx_ir as ir
from onnx_ir.passes import InPlacePass, PassResult, PostconditionError

# They move or repeat values and cannot make a larger one.
_MOVERS = frozenset(
    {"Concat", "Expand", "Flatten", "Gather", "Identity", "Reshape", "Resize", "Slice", "Split", "Squeeze", "Transpose",
     "Unsqueeze"}
)  # fmt: skip
_PROBES = ("ReduceMax", "ReduceMin", "ReduceSum")
# Element-wise and bounded by their input or by one.
_BOUNDED = frozenset({"Clip", "Sigmoid", "Softmax", "Tanh"})


@dataclass
class Shadow(InPlacePass):
    """Computes every FP16 tensor in FP32, from the same FP16 weights, and makes three numbers of each the only outputs.

    ``probes``, filled by the call: for each tensor's name the names of the outputs with its maximum, its minimum and
    its sum, which is NaN where a maximum may pass over one. Tensors that only repeat others, or are bounded by one,
    have none. Ensures: no node computes in FP16.
    """

    probes: dict[str, tuple[str, ...]] = field(default_factory=dict)

    def call(self, model: ir.Model) -> PassResult:
        half = [node for node in model.graph if node.outputs[0].dtype == ir.DataType.FLOAT16]
        probed = [node for node in half if node.op_type not in _MOVERS | _BOUNDED]
        _to_float(model)
        model.graph.outputs.clear()
        for node in probed:
            for value in node.outputs:
                self.probes[str(value.name)] = tuple(_probe(model, value, operator) for operator in _PROBES)
        return PassResult(model, modified=True)

    def ensures(self, model: ir.Model) -> None:
        left = [node.name for node in model.graph if node.outputs[0].dtype == ir.DataType.FLOAT16]
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
    node = ir.node(operator, [value], attributes={"keepdims": 0}, name=f"{value.name}/{operator}")
    output, producer = node.outputs[0], value.producer()
    output.name, output.dtype, output.shape = node.name, ir.DataType.FLOAT, ir.Shape([])
    if producer is None:
        raise ValueError(f"{value.name} has no producer")
    model.graph.insert_after(producer, node)
    model.graph.outputs.append(output)
    return str(output.name)
