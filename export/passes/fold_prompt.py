"""One prompt: the keys and values of every cross-attention are constants, so its projections become part of them.

A head's logits are ``(x Wq) (K s)^T = x (Wq (K s)^T)``, and the projected output is ``sum over heads of p_h V_h Wo_h``.
With M = Wq K^T and P = V Wo, both made here, the whole is ``softmax per head(x M) P``: two matrix products over all
heads at once, and none of the transposes that bring heads forward and back. For heads of 64 channels and 77 tokens that
is 3 % less arithmetic at 320 channels, and 7 % and 13 % more at 640 and 1280, where there are fewer pixels to do it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray
from onnx_ir.passes import InPlacePass, PassResult

from .edit import Block, forget_unused, only_user, producer_of, sizes, weight_of

Array = NDArray[np.float64]
_HEADS_FORWARD = [0, 2, 1, 3]


@dataclass(frozen=True)
class _CrossAttention:
    """``query``: [in, heads * d]; ``keys``: [heads, d, tokens], scaled; ``values``: [heads, tokens, d];
    ``output``: [heads * d, out]. ``source`` is x, [B, N, in]; ``last`` the MatMul with ``output``.
    """

    source: ir.Value
    last: ir.Node
    query: Array
    keys: Array
    values: Array
    output: Array


class FoldPrompt(InPlacePass):
    """Replaces each attention whose keys and values are constants by two MatMuls with a Softmax between.

    Requires: a float32 graph with static shapes, the attention as torch's exporter writes it up to opset 22.
    """

    def call(self, model: ir.Model) -> PassResult:
        found = [attention for node in model.graph if (attention := _attention(node)) is not None]
        for attention in found:
            _fold(model, attention)
        forget_unused(model)
        return PassResult(model, modified=bool(found))


def _attention(softmax: ir.Node) -> _CrossAttention | None:
    """The cross-attention around a Softmax; None where there is none, or of another form."""
    logits = producer_of(softmax.inputs[0], "MatMul") if softmax.op_type == "Softmax" else None
    if logits is None:
        return None
    queries, scale = logits.inputs[0], 1.0
    if (product := producer_of(queries, "Mul")) is not None:
        factor = weight_of(product, 1)
        if factor is None or factor.size != 1:
            return None
        queries, scale = product.inputs[0], float(factor.item())
    projection = _behind(queries, ("Transpose", "Reshape", "MatMul"))
    mix = only_user(softmax.outputs[0])
    last = _ahead(mix, ("Transpose", "Reshape", "MatMul"))
    if projection is None or projection.inputs[0] is None or mix is None or mix.op_type != "MatMul" or last is None:
        return None
    weights = (weight_of(projection, 1), _shared(weight_of(logits, 1)), _shared(weight_of(mix, 1)), weight_of(last, 1))
    query, keys, values, output = weights
    if query is None or keys is None or values is None or output is None:
        return None
    return _CrossAttention(projection.inputs[0], last, query, keys * scale, values, output)


def _behind(value: ir.Value | None, operators: tuple[str, ...]) -> ir.Node | None:
    """The last of the ``operators`` met going back from ``value``, if they follow each other there."""
    node = None
    for operator in operators:
        node = producer_of(value, operator)
        if node is None or not _brings_heads(node):
            return None
        value = node.inputs[0]
    return node


def _ahead(node: ir.Node | None, operators: tuple[str, ...]) -> ir.Node | None:
    """The last of the ``operators`` met going on from ``node``, if they follow each other there."""
    for operator in operators:
        node = only_user(node.outputs[0]) if node is not None else None
        if node is None or node.op_type != operator or not _brings_heads(node):
            return None
    return node


def _brings_heads(node: ir.Node) -> bool:
    return node.op_type != "Transpose" or list(node.attributes["perm"].as_ints()) == _HEADS_FORWARD


def _shared(weight: Array | None) -> Array | None:
    """[B, heads, ...] without B: one prompt is the same for every frame of a batch."""
    if weight is None or weight.ndim != 4 or not np.array_equal(weight, np.broadcast_to(weight[:1], weight.shape)):
        return None
    return np.asarray(weight[0])


def _fold(model: ir.Model, found: _CrossAttention) -> None:
    heads, depth, tokens = found.keys.shape
    query = found.query.reshape(-1, heads, depth)
    output = found.output.reshape(heads, depth, -1)
    into = np.einsum("chd,hdt->cht", query, found.keys).reshape(-1, heads * tokens)
    out = np.einsum("htd,hdo->hto", found.values, output).reshape(heads * tokens, -1)
    block = Block(model, found.last)
    batch, count, _ = sizes(found.source)
    flat, split = [batch, count, heads * tokens], [batch, count, heads, tokens]
    logits = block.add("MatMul", [found.source, block.weight(into)], flat)
    share = block.add(
        "Softmax", [block.add("Reshape", [logits, block.constant(np.array(split))], split)], split, axis=-1
    )
    joined = block.add("Reshape", [share, block.constant(np.array(flat))], flat)
    block.instead(block.add("MatMul", [joined, block.weight(out)], sizes(found.last.outputs[0])))
