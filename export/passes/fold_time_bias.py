"""At one timestep, the time embedding's share of a ResNet block is a constant per channel: the convolution's bias."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray
from onnx_ir.passes import InPlacePass, PassResult

from .edit import Block, forget_unused, producer_of, weight_of


class FoldTimeBias(InPlacePass):
    """Removes each Add of one constant per channel, [1, C, 1, 1], behind a Conv: it becomes part of the Conv's bias.

    Requires: a float32 graph.
    """

    def call(self, model: ir.Model) -> PassResult:
        found = [node for node in model.graph if _shift(node) is not None]
        for node in found:
            _fold(model, node)
        forget_unused(model)
        return PassResult(model, modified=bool(found))


def _shift(node: ir.Node) -> tuple[ir.Node, NDArray[np.float64]] | None:
    """The Conv before an Add and what the Add adds to each of its channels."""
    if node.op_type != "Add":
        return None
    for index in (0, 1):
        convolution, shift = producer_of(node.inputs[index], "Conv"), weight_of(node, 1 - index)
        kernel = weight_of(convolution, 1) if convolution is not None else None
        if convolution is not None and shift is not None and kernel is not None:
            channels = kernel.shape[0]
            if shift.shape in ((1, channels, 1, 1), (channels, 1, 1)):
                return convolution, shift.reshape(-1)
    return None


def _fold(model: ir.Model, node: ir.Node) -> None:
    found = _shift(node)
    if found is None:
        raise ValueError(f"{node.name} is not the sum that was looked for")
    convolution, shift = found
    bias = weight_of(convolution, 2)
    value = Block(model, convolution).weight(shift if bias is None else bias + shift)
    convolution.resize_inputs(3)
    convolution.replace_input_with(2, value)
    Block(model, node).instead(convolution.outputs[0])
