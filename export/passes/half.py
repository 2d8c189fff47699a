"""FP32 to FP16, as a property of the graph: what TensorRT's strongly typed networks and every other runtime obey."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import onnx_ir as ir
from onnx_ir.passes import InPlacePass, PassResult, PostconditionError, PreconditionError

# Inputs that the standard fixes at float32 or leaves to a type of their own, whatever the operator computes in.
_UNTYPED_INPUTS = {"Resize": {1, 2}}


@dataclass
class Half(InPlacePass):
    """Every float32 value and weight becomes float16, except in islands; casts stand at their borders, once per value.

    ``is_island(node)`` says which nodes go on computing in float32. Graph inputs and outputs keep their types.
    Requires: a float32 graph. Ensures: every float operator's typed inputs agree.
    """

    is_island: Callable[[ir.Node], bool]
    islands: list[str] = field(default_factory=list)

    def requires(self, model: ir.Model) -> None:
        if any(value.dtype == ir.DataType.FLOAT16 for value in model.graph.initializers.values()):
            raise PreconditionError("the graph is in float16 already")

    def call(self, model: ir.Model) -> PassResult:
        casts: dict[tuple[ir.Value, ir.DataType], ir.Value] = {}
        for node in list(model.graph):
            island = self.is_island(node)
            if island and _is_float(node):
                self.islands.append(str(node.name))
            wanted = ir.DataType.FLOAT if island else ir.DataType.FLOAT16
            _type_outputs(node, wanted)
            for index in typed_inputs(node):
                value = node.inputs[index]
                if value is not None and value.dtype != wanted:
                    node.replace_input_with(index, _as(model, node, value, wanted, casts))
        for name, value in list(model.graph.initializers.items()):
            if not value.uses():
                del model.graph.initializers[name]
                # Rewrite rules may still know the value (see release); only its twin shall keep the weight.
                value.const_value = None
        return PassResult(model, modified=True)

    def ensures(self, model: ir.Model) -> None:
        for node in model.graph:
            kinds = {value.dtype for i in typed_inputs(node) if (value := node.inputs[i]) is not None}
            if len(kinds) > 1:
                raise PostconditionError(f"{node.name} mixes {sorted(str(kind) for kind in kinds)}")


def _is_float(node: ir.Node) -> bool:
    return any(output.dtype == ir.DataType.FLOAT for output in node.outputs)


def typed_inputs(node: ir.Node) -> list[int]:
    """The inputs that carry the type the node computes in. A Cast takes what it gets."""
    if node.op_type == "Cast":
        return []
    fixed = _UNTYPED_INPUTS.get(node.op_type, set())
    floats = (ir.DataType.FLOAT, ir.DataType.FLOAT16)
    return [i for i, value in enumerate(node.inputs) if value is not None and i not in fixed and value.dtype in floats]


def _type_outputs(node: ir.Node, wanted: ir.DataType) -> None:
    for output in node.outputs:
        if output.dtype == ir.DataType.FLOAT and not output.is_graph_output():
            output.dtype = wanted
    if node.op_type == "Cast" and node.attributes["to"].as_int() == ir.DataType.FLOAT:
        node.attributes["to"] = ir.AttrInt64("to", int(wanted))


def _as(
    model: ir.Model,
    node: ir.Node,
    value: ir.Value,
    wanted: ir.DataType,
    casts: dict[tuple[ir.Value, ir.DataType], ir.Value],
) -> ir.Value:
    """``value`` in the type ``wanted``: a weight is converted, anything else is cast before ``node``, once."""
    if (value, wanted) not in casts:
        casts[value, wanted] = (
            _half_weight(model, value) if value.is_initializer() else _cast(model, node, value, wanted)
        )
    return casts[value, wanted]


def _half_weight(model: ir.Model, value: ir.Value) -> ir.Value:
    """A float16 twin of a float32 weight, converted when the graph is saved, so that no two copies stand in memory.

    It may then hold infinities: the range ledger refuses those by name.
    """
    tensor = value.const_value
    if tensor is None:
        raise PreconditionError(f"weight {value.name} has no value")
    name = f"{value.name}.fp16"
    half = ir.LazyTensor(
        lambda: _rounded(tensor, name), dtype=ir.DataType.FLOAT16, shape=ir.Shape(tensor.numpy().shape), name=name
    )
    twin = ir.Value(name=name, shape=value.shape, type=ir.TensorType(ir.DataType.FLOAT16), const_value=half)
    model.graph.register_initializer(twin)
    return twin


def _rounded(tensor: ir.TensorProtocol, name: str) -> ir.TensorProtocol:
    with np.errstate(over="ignore"):
        return ir.tensor(tensor.numpy().astype(np.float16), name=name)


def _cast(model: ir.Model, node: ir.Node, value: ir.Value, wanted: ir.DataType) -> ir.Value:
    kind = "fp16" if wanted == ir.DataType.FLOAT16 else "fp32"
    stem = node.name if value.producer() is None else value.producer().name  # type: ignore[union-attr]
    cast = ir.node("Cast", [value], attributes={"to": int(wanted)}, name=f"{stem}/to_{kind}")
    cast.outputs[0].name = cast.name
    cast.outputs[0].dtype = wanted
    cast.outputs[0].shape = value.shape
    producer = value.producer()
    if producer is None:
        model.graph.insert_before(node, cast)
    else:
        model.graph.insert_after(producer, cast)
    return cast.outputs[0]
