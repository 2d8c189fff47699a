"""Numbers that whole tensors are multiplied by, moved into the weights that make or take the tensors.

``s (W x + b) = (s W) x + (s b)``, whatever Reshape and Transpose stand between; and ``W (x s) = (W s) x``, zero
padding included. The attention multiplies queries and keys by the square root of its scale, so that is two passes over
both saved. Around the UNet, what remains of latent and x0 is one product and one sum, in float32 as before: a
floating-point weight or output times a number has the same relative precision as without it.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
from onnx_ir.passes import InPlacePass, PassResult

from .edit import Block, forget_unused, only_user, producer_of, weight_of

_MOVERS = ("Reshape", "Transpose")


class FoldAttentionScale(InPlacePass):
    """Moves the factor of queries and keys into their projections, which are MatMuls, with a bias or without.

    Requires: a float32 graph.
    """

    def call(self, model: ir.Model) -> PassResult:
        return PassResult(model, modified=_fold_all(model, "MatMul"))


class FoldLatentScale(InPlacePass):
    """Moves the factors of latent and x0 into the convolutions before and behind them, where they can go.

    That is ``quant_conv``, unless a posterior is sampled or noise mixed in, the UNet's ``conv_out`` and
    ``post_quant_conv``. Requires: a float32 graph.
    """

    def call(self, model: ir.Model) -> PassResult:
        backwards = _fold_all(model, "Conv")
        forwards = [node for node in model.graph if _factor(node) is not None and _taker(node) is not None]
        for node in forwards:
            _fold_forwards(model, node)
        forget_unused(model)
        return PassResult(model, modified=backwards or bool(forwards))


def _fold_all(model: ir.Model, operator: str) -> bool:
    found = [node for node in model.graph if _factor(node) is not None and _maker(node, operator) is not None]
    for node in found:
        factor, maker = _factor(node), _maker(node, operator)
        if factor is None or maker is None or node.inputs[0] is None:
            raise ValueError(f"{node.name} is not the product that was looked for")
        _scale(model, maker, factor)
        Block(model, node).instead(node.inputs[0])
    forget_unused(model)
    return bool(found)


def _factor(node: ir.Node) -> float | None:
    """The one number that ``node`` multiplies its first input by; None where it does something else."""
    number = weight_of(node, 1) if node.op_type in ("Mul", "Div") else None
    if number is None or number.size != 1 or number.ndim > 1:
        return None
    return float(number.item()) if node.op_type == "Mul" else 1.0 / float(number.item())


def _maker(node: ir.Node, operator: str) -> ir.Node | None:
    """The product with weights that makes what ``node`` takes: ``operator``, or the Add of its bias."""
    value = node.inputs[0]
    while (mover := next((m for kind in _MOVERS if (m := producer_of(value, kind)) is not None), None)) is not None:
        value = mover.inputs[0]
    if (product := producer_of(value, operator)) is not None:
        return product if weight_of(product, 1) is not None else None
    total = producer_of(value, "Add") if operator == "MatMul" else None
    if total is None or all(weight_of(total, index) is None for index in (0, 1)):
        return None
    summand = total.inputs[0] if weight_of(total, 1) is not None else total.inputs[1]
    product = producer_of(summand, operator)
    return total if product is not None and weight_of(product, 1) is not None else None


def _taker(node: ir.Node) -> ir.Node | None:
    """The 1x1 Conv that alone takes what ``node`` makes.

    Not a larger one: ``conv_in`` takes the frame, whose scaling stays in float32, where its whole numbers are exact.
    """
    taker = only_user(node.outputs[0])
    if taker is None or taker.op_type != "Conv" or taker.inputs[0] is not node.outputs[0]:
        return None
    kernel = weight_of(taker, 1)
    return taker if kernel is not None and list(kernel.shape[2:]) == [1, 1] else None


def _fold_forwards(model: ir.Model, node: ir.Node) -> None:
    factor, taker = _factor(node), _taker(node)
    if factor is None or taker is None or node.inputs[0] is None:
        raise ValueError(f"{node.name} is not the product that was looked for")
    _rescale(model, taker, 1, factor)
    Block(model, node).instead(node.inputs[0])


def _scale(model: ir.Model, maker: ir.Node, factor: float) -> None:
    """Multiply what ``maker`` makes: a Conv or MatMul by its weights, the Add of a bias by both summands."""
    if maker.op_type == "Add":
        bias = 1 if weight_of(maker, 1) is not None else 0
        _rescale(model, maker, bias, factor)
        summand = maker.inputs[1 - bias]
        product = summand.producer() if summand is not None else None
        if product is None:
            raise ValueError(f"{maker.name} adds to nothing")
        _rescale(model, product, 1, factor)
        return
    for index in range(1, len(maker.inputs)):
        _rescale(model, maker, index, factor)


def _rescale(model: ir.Model, node: ir.Node, index: int, factor: float) -> None:
    weight = weight_of(node, index)
    if weight is None:
        raise ValueError(f"{node.name}'s input {index} is no weight")
    node.replace_input_with(index, Block(model, node).weight(np.asarray(weight * factor)))
