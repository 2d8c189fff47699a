"""A 1x1 convolution right behind another one is part of it: ``quant_conv`` of the encoder's ``conv_out``.

``Q (W x + b) + q = (Q W) x + (Q b + q)``. It holds at the border, too, because the outer convolution has no padding.
The other way round it would not: ``conv_in`` pads what ``post_quant_conv`` makes with zeros, not with its bias.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
from onnx_ir.passes import InPlacePass, PassResult, PostconditionError

from .edit import Block, forget_unused, integers, producer_of, sizes, weight_of


class FoldQuantConv(InPlacePass):
    """Makes one Conv of a Conv and the 1x1 Conv that alone takes its output and has no more channels than that.

    Requires: a float32 graph with static shapes. Ensures: no such pair is left.
    """

    def call(self, model: ir.Model) -> PassResult:
        found = [node for node in model.graph if _inner(node) is not None]
        for node in found:
            _fold(model, node)
        forget_unused(model)
        return PassResult(model, modified=bool(found))

    def ensures(self, model: ir.Model) -> None:
        left = [node.name for node in model.graph if _inner(node) is not None]
        if left:
            raise PostconditionError(f"{len(left)} convolutions could still be folded: {left[:10]}")


def _inner(node: ir.Node) -> ir.Node | None:
    """The Conv before ``node``, if ``node`` is a plain 1x1 Conv that can become part of it."""
    inner = producer_of(node.inputs[0], "Conv") if node.op_type == "Conv" else None
    outer_kernel = weight_of(node, 1)
    if inner is None or outer_kernel is None or weight_of(inner, 1) is None:
        return None
    plain = (
        list(outer_kernel.shape[2:]) == [1, 1]
        and not any(integers(node, "pads", [0]))
        and set(integers(node, "strides", [1])) == {1}
        and node.attributes.get_int("group", 1) == inner.attributes.get_int("group", 1) == 1
        and outer_kernel.shape[0] <= outer_kernel.shape[1]
    )
    return inner if plain else None


def _fold(model: ir.Model, node: ir.Node) -> None:
    inner = _inner(node)
    outer_kernel, kernel = weight_of(node, 1), weight_of(inner, 1) if inner is not None else None
    if inner is None or outer_kernel is None or kernel is None:
        raise ValueError(f"{node.name} is not the convolution that was looked for")
    mix = outer_kernel[:, :, 0, 0]
    inner_bias, outer_bias = weight_of(inner, 2), weight_of(node, 2)
    bias = (mix @ inner_bias if inner_bias is not None else 0.0) + (outer_bias if outer_bias is not None else 0.0)
    block = Block(model, node)
    attributes = {name: attribute.value for name, attribute in inner.attributes.items()}
    source = inner.inputs[0]
    if source is None:
        raise ValueError(f"{inner.name} has no input")
    weights = [block.weight(np.einsum("om,mi...->oi...", mix, kernel))]
    weights += [block.weight(np.broadcast_to(bias, mix.shape[:1]))]
    block.instead(block.add("Conv", [source, *weights], sizes(node.outputs[0]), **attributes))
