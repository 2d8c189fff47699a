"""A second opinion on an exported graph: its operators in PyTorch, one by one.

It shares no code with the package and none with ONNX Runtime, so that where two agree, the graph means what it should.

Every tensor has the type that the graph gives it, and what an FP16 node makes is rounded to FP16, as on a GPU: beyond
65,504 it is infinite. ONNX Runtime's CPU kernels compute such nodes in FP32, round only between some of them, and so
hide overflows. Quantisation is fake: numbers of eight bits, multiplied in the type of their scales. Only the operators
that exported generators have.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import onnx_ir as ir
import torch
import torch.nn.functional as F  # noqa: N812 -- PyTorch's own habit
from torch import Tensor

_TYPES = {
    ir.DataType.FLOAT: torch.float32, ir.DataType.FLOAT16: torch.float16, ir.DataType.UINT8: torch.uint8,
    ir.DataType.INT8: torch.int8, ir.DataType.FLOAT8E4M3FN: torch.float8_e4m3fn, ir.DataType.BOOL: torch.bool,
    ir.DataType.INT32: torch.int32, ir.DataType.INT64: torch.int64,
}  # fmt: skip


Arrays = Mapping[str, np.ndarray]


def run(model: ir.Model | Path, feeds: Arrays, wanted: str) -> tuple[Tensor, list[str]]:
    """The tensor ``wanted``, and the names of the tensors on the way that are not finite."""
    found, broken = None, []
    for name, value in walk(ir.load(model) if isinstance(model, Path) else model, feeds):
        if name == wanted:
            found = value
        if value.dtype in (torch.float32, torch.float16) and not bool(torch.isfinite(value).all()):
            broken.append(name)
    assert found is not None, f"no node makes {wanted}"
    return found, broken


def walk(model: ir.Model, feeds: Arrays, instead: Arrays = MappingProxyType({})) -> Iterator[tuple[str, Tensor]]:
    """Each tensor that a node makes, with its name, in the graph's order; kept until its last user has run.

    Nodes take the tensors in ``instead`` in place of what this made of the same name: so an error stays in its node.
    """
    values = {name: torch.from_numpy(np.array(array)) for name, array in feeds.items()}
    values |= {str(name): _constant(value) for name, value in model.graph.initializers.items()}
    users = Counter(value for node in model.graph for value in node.inputs if value is not None)
    for node in model.graph:
        inputs = [None if value is None else values[str(value.name)] for value in node.inputs]
        with torch.inference_mode():
            results = _OPERATORS[node.op_type](node, inputs)
        for output, result in zip(node.outputs, results if isinstance(results, tuple) else (results,), strict=True):
            name = str(output.name)
            assert result.dtype == _TYPES[output.dtype], f"{node.name} makes {result.dtype}, not {output.dtype}"
            values[name] = torch.from_numpy(np.array(instead[name])) if name in instead else result
            yield name, result
        users.subtract(value for value in node.inputs if value is not None)
        for value in {*node.inputs, *node.outputs} - {None}:
            if not users[value]:
                del values[str(value.name)]


def _constant(value: ir.Value) -> Tensor:
    array = value.const_value.numpy()
    if value.dtype == ir.DataType.FLOAT8E4M3FN:  # which PyTorch has and numpy has not
        return torch.from_numpy(array.view(np.uint8).copy()).view(torch.float8_e4m3fn)
    return torch.from_numpy(np.array(array))


def _attribute(node: ir.Node, name: str, default: Any = None) -> Any:
    found = node.attributes.get(name)
    return default if found is None else found.value


def _conv(node: ir.Node, inputs: list[Any]) -> Tensor:
    x, weight, *bias = inputs
    top, left, bottom, right = _attribute(node, "pads", [0, 0, 0, 0])
    padded = F.pad(x, (left, right, top, bottom))
    strides, dilations = (tuple(_attribute(node, name, [1, 1])) for name in ("strides", "dilations"))
    group = _attribute(node, "group", 1)
    return F.conv2d(padded, weight, *bias, stride=strides, dilation=dilations, groups=group)


def _reshape(node: ir.Node, inputs: list[Any]) -> Tensor:
    x, wanted = inputs
    assert not _attribute(node, "allowzero", 0) or 0 not in wanted.tolist()
    return x.reshape([x.shape[i] if size == 0 else size for i, size in enumerate(wanted.tolist())])


def _instance_norm(node: ir.Node, inputs: list[Any]) -> Tensor:
    return F.instance_norm(inputs[0], weight=inputs[1], bias=inputs[2], eps=_attribute(node, "epsilon", 1e-5))


def _layer_norm(node: ir.Node, inputs: list[Any]) -> Tensor:
    x, weight, *bias = inputs
    shape = x.shape[_attribute(node, "axis", -1) :]
    return F.layer_norm(x, shape, weight, *bias, eps=_attribute(node, "epsilon", 1e-5))


def _resize(node: ir.Node, inputs: list[Any]) -> Tensor:
    assert _attribute(node, "mode", "nearest") == "nearest"
    x, _, scales = inputs
    assert scales.tolist() == [1, 1, 2, 2]
    return x.repeat_interleave(2, dim=2).repeat_interleave(2, dim=3)


def _split(node: ir.Node, inputs: list[Any]) -> tuple[Tensor, ...]:
    x, *sizes = inputs
    axis = _attribute(node, "axis", 0)
    return torch.split(x, sizes[0].tolist() if sizes else x.shape[axis] // len(node.outputs), dim=axis)


def _cast(node: ir.Node, inputs: list[Any]) -> Tensor:
    kind = _TYPES[ir.DataType(_attribute(node, "to"))]
    # What is no number of eight bits has no cast, in ONNX or in C: a black or a white pixel, so that it can be shown.
    return torch.nan_to_num(inputs[0]).clamp(0, 255).to(kind) if kind == torch.uint8 else inputs[0].to(kind)


def _quantise(node: ir.Node, inputs: list[Any]) -> Tensor:
    x, scale, zero = inputs
    assert not zero.float().any()
    divided = x.float() / _along(scale.float(), x, _attribute(node, "axis", 1))
    if zero.dtype == torch.float8_e4m3fn:
        return divided.clamp(-448, 448).to(zero.dtype)
    return torch.round(divided).clamp(-128, 127).to(torch.int8)


def _dequantise(node: ir.Node, inputs: list[Any]) -> Tensor:
    x, scale = inputs[:2]
    return (x.float() * _along(scale.float(), x, _attribute(node, "axis", 1))).to(scale.dtype)


def _along(scale: Tensor, values: Tensor, axis: int) -> Tensor:
    """One number for all, or one for each index of ``axis``."""
    shape = [1] * values.ndim
    if scale.ndim:
        shape[axis] = -1
    return scale.reshape(shape)


Operator = Callable[[ir.Node, list[Any]], Any]


def _plain(function: Callable[..., Tensor]) -> Operator:
    return lambda _, inputs: function(*inputs)


_OPERATORS: dict[str, Operator] = {
    "Add": _plain(torch.add), "Sub": _plain(torch.sub), "Mul": _plain(torch.mul), "Div": _plain(torch.div),
    "MatMul": _plain(torch.matmul), "Exp": _plain(torch.exp), "Sqrt": _plain(torch.sqrt),
    "Floor": _plain(torch.floor), "Sigmoid": _plain(torch.sigmoid), "Clip": _plain(torch.clamp),
    "Gelu": lambda node, inputs: F.gelu(inputs[0], approximate=_attribute(node, "approximate", "none")),
    "Softmax": lambda node, inputs: torch.softmax(inputs[0], dim=_attribute(node, "axis", -1)),
    "Transpose": lambda node, inputs: inputs[0].permute(_attribute(node, "perm")),
    "Concat": lambda node, inputs: torch.cat(inputs, dim=_attribute(node, "axis")),
    "ReduceMean": lambda node, inputs: inputs[0].mean(inputs[1].tolist(), bool(_attribute(node, "keepdims", 1))),
    "Conv": _conv, "Reshape": _reshape, "InstanceNormalization": _instance_norm, "LayerNormalization": _layer_norm,
    "Resize": _resize, "Split": _split, "Cast": _cast, "QuantizeLinear": _quantise, "DequantizeLinear": _dequantise,
}  # fmt: skip
