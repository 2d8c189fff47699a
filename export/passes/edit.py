"""What the rewrites of a graph share: new nodes beside an old one, weights as arrays, leaving nothing unused behind."""

from __future__ import annotations

from collections.abc import Container
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray
from onnx_ir.passes import PreconditionError


class Block:
    """New float32 nodes in front of ``node``, which belong where it does: they bear its name and its metadata."""

    def __init__(self, model: ir.Model, node: ir.Node) -> None:
        self._model = model
        self._node = node
        self._made = 0
        self._nodes: list[str] = []

    @property
    def names(self) -> tuple[str, ...]:
        """Of the nodes made so far, in order."""
        return tuple(self._nodes)

    def add(self, operator: str, inputs: list[ir.Value], shape: list[int], **attributes: Any) -> ir.Value:
        """A node with one output of that ``shape``; returns the output."""
        return self.split(operator, inputs, [shape], **attributes)[0]

    def split(
        self, operator: str, inputs: list[ir.Value], shapes: list[list[int]], **attributes: Any
    ) -> tuple[ir.Value, ...]:
        """A node with an output for each of ``shapes``; returns the outputs."""
        made = ir.node(operator, inputs, attributes=attributes, num_outputs=len(shapes), name=self._name(operator))
        made.metadata_props.update(self._node.metadata_props)
        for index, (output, shape) in enumerate(zip(made.outputs, shapes, strict=True)):
            output.name = made.name if len(shapes) == 1 else f"{made.name}.{index}"
            output.dtype, output.shape = ir.DataType.FLOAT, ir.Shape(shape)
        self._model.graph.insert_before(self._node, made)
        self._nodes.append(str(made.name))
        return tuple(made.outputs)

    def constant(self, array: NDArray[Any]) -> ir.Value:
        """A weight of the graph with that value and its type."""
        tensor = ir.tensor(array)
        kind = ir.TensorType(tensor.dtype)
        value = ir.Value(name=self._name("constant"), shape=ir.Shape(array.shape), type=kind, const_value=tensor)
        self._model.graph.register_initializer(value)
        return value

    def weight(self, array: NDArray[Any]) -> ir.Value:
        """``array``, computed in float64, as a float32 weight: rounded once, here."""
        return self.constant(np.ascontiguousarray(array, dtype=np.float32))

    def instead(self, result: ir.Value) -> None:
        """``result`` takes the place of the node's only output, and the node goes."""
        ir.convenience.replace_all_uses_with(self._node.outputs[0], result, replace_graph_outputs=True)
        self._model.graph.remove(self._node, safe=True)

    def _name(self, what: str) -> str:
        self._made += 1
        name = f"{self._node.name}/{what}_{self._made}"
        # A node whose weights are changed twice has two blocks.
        return self._name(what) if name in self._model.graph.initializers else name


def sizes(value: ir.Value) -> list[int]:
    """A value's static shape, which an exported graph knows everywhere. Raises PreconditionError where it does not."""
    if value.shape is None or not all(isinstance(size, int) for size in value.shape):
        raise PreconditionError(f"{value.name} has no static shape")
    return [int(size) for size in value.shape]  # type: ignore[arg-type]


def weight_of(node: ir.Node, index: int) -> NDArray[np.float64] | None:
    """The weight that a node takes as its input ``index``, in float64; None where that is no weight, or is left out."""
    value = node.inputs[index] if index < len(node.inputs) else None
    if value is None or value.const_value is None or not value.is_initializer():
        return None
    return np.asarray(value.const_value.numpy(), dtype=np.float64)


def only_user(value: ir.Value | None) -> ir.Node | None:
    """The node that alone takes ``value``, which is no output of the graph; None where there is no such node."""
    uses = list(value.uses()) if value is not None and not value.is_graph_output() else []
    return uses[0][0] if len(uses) == 1 else None


def producer_of(value: ir.Value | None, operator: str) -> ir.Node | None:
    """The node of that operator which makes ``value`` for one taker alone; None where it is made otherwise."""
    node = value.producer() if value is not None and only_user(value) is not None else None
    return node if node is not None and node.op_type == operator else None


def integers(node: ir.Node, attribute: str, default: list[int]) -> list[int]:
    """An attribute that is a list of integers, or its default."""
    found = node.attributes.get(attribute)
    return default if found is None else list(found.as_ints())


def is_plain_3x3(node: ir.Node) -> bool:
    """Whether ``node`` is a 3x3 Conv with a weight, in one group, that keeps its input's size."""
    weight = node.inputs[1] if node.op_type == "Conv" else None
    return (
        weight is not None
        and weight.is_initializer()
        and sizes(weight)[2:] == [3, 3]
        and integers(node, "pads", [0] * 4) == [1] * 4
        and integers(node, "strides", [1, 1]) == [1, 1]
        and integers(node, "dilations", [1, 1]) == [1, 1]
        and node.attributes.get_int("group", 1) == 1
    )


def free_name(taken: Container[str | None], name: str) -> str:
    """``name``, or where that is taken the first of it with primes that is not."""
    while name in taken:
        name += "'"
    return name


def forget_unused(model: ir.Model) -> None:
    """Drop nodes without effect and weights that nobody takes any more, and let go of those weights' memory."""
    for node in reversed(list(model.graph)):
        if not any(output.uses() or output.is_graph_output() for output in node.outputs):
            model.graph.remove(node, safe=True)
    for name, value in list(model.graph.initializers.items()):
        if not value.uses() and not value.is_graph_output():
            del model.graph.initializers[name]
            value.const_value = None  # rewrite rules may still know the value (see release)
