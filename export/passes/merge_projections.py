"""Products of one input with several weights, as one product: queries, keys and values of a self-attention."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
from onnx_ir.passes import InPlacePass, PassResult

from .edit import Block, forget_unused, sizes, weight_of


class MergeProjections(InPlacePass):
    """Makes one MatMul and a Split of the MatMuls that take the same input and a weight each.

    The same arithmetic in fewer, larger products, for the price of the Split. Requires: a float32 graph with static
    shapes.
    """

    def call(self, model: ir.Model) -> PassResult:
        groups = [group for value in _values(model) if len(group := _products(value)) > 1]
        for group in groups:
            _merge(model, group)
        forget_unused(model)
        return PassResult(model, modified=bool(groups))


def _values(model: ir.Model) -> list[ir.Value]:
    return [*model.graph.inputs, *(output for node in model.graph for output in node.outputs)]


def _products(value: ir.Value) -> list[ir.Node]:
    """The MatMuls with a weight that take ``value``."""
    takers = [node for node, index in value.uses() if node.op_type == "MatMul" and index == 0]
    return [node for node in takers if (weight := weight_of(node, 1)) is not None and weight.ndim == 2]


def _merge(model: ir.Model, group: list[ir.Node]) -> None:
    order = {node: index for index, node in enumerate(model.graph)}
    group = sorted(group, key=order.__getitem__)
    weights = [weight for node in group if (weight := weight_of(node, 1)) is not None]
    shapes = [sizes(node.outputs[0]) for node in group]
    source = group[0].inputs[0]
    if source is None:
        raise ValueError(f"{group[0].name} has no input")
    block = Block(model, group[0])
    widths = [shape[-1] for shape in shapes]
    whole = block.add("MatMul", [source, block.weight(np.concatenate(weights, axis=1))], [*shapes[0][:-1], sum(widths)])
    parts = block.split("Split", [whole, block.constant(np.array(widths))], shapes, axis=-1)
    for node, part in zip(group, parts, strict=True):
        Block(model, node).instead(part)
