"""A second opinion on a graph: its operators in PyTorch, one by one, quantisation as PyTorch's own fake quantisation.

It shares no code with the package and none with ONNX Runtime, so that where the two agree, the graph means what it
should. ``dtype`` "as written" computes each node in the types of its inputs; "float32" widens all floats first.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx_ir as ir
import torch
import torch.nn.functional as F  # noqa: N812 -- PyTorch's own habit

Tensors = list[torch.Tensor | None]

_TYPES = {
    ir.DataType.FLOAT: torch.float32, ir.DataType.FLOAT16: torch.float16, ir.DataType.UINT8: torch.uint8,
    ir.DataType.INT64: torch.int64, ir.DataType.INT32: torch.int32, ir.DataType.BOOL: torch.bool,
}  # fmt: skip
_FP8 = torch.float8_e4m3fn


def run(
    model: ir.Model, feeds: dict[str, np.ndarray], wanted: list[str] | None = None, *, widen: bool = False
) -> dict[str, np.ndarray]:
    """The values called ``wanted`` (the graph's outputs), computed from ``feeds``; floats as float32 if ``widen``."""
    names = wanted or [str(value.name) for value in model.graph.outputs]
    values: dict[str, torch.Tensor] = {name: torch.from_numpy(array) for name, array in feeds.items()}
    left = _uses(model.graph, names)
    for name, value in model.graph.initializers.items():
        values[name] = _tensor(value, widen)
    with torch.inference_mode():
        for node in model.graph:
            inputs = [None if value is None else values[str(value.name)] for value in node.inputs]
            made = _OPERATORS[node.op_type](node, inputs, widen)
            for output, result in zip(node.outputs, made, strict=True):
                values[str(output.name)] = result
            for value in node.inputs:
                if value is not None:
                    left[str(value.name)] -= 1
                    if not left[str(value.name)]:
                        del values[str(value.name)]
    return {name: values[name].numpy() for name in names}


def _uses(graph: ir.Graph, names: list[str]) -> dict[str, int]:
    count = dict.fromkeys([*graph.initializers, *(str(value.name) for value in graph.inputs)], 0)
    for node in graph:
        for value in node.inputs:
            if value is not None:
                count[str(value.name)] = count.get(str(value.name), 0) + 1
    for name in names:
        count[name] = count.get(name, 0) + 1
    return count


def _tensor(value: ir.Value, widen: bool) -> torch.Tensor:
    array = value.const_value.numpy()
    if value.dtype == ir.DataType.FLOAT8E4M3FN:
        return torch.from_numpy(array.view(np.uint8).copy()).view(_FP8)
    tensor = torch.from_numpy(np.array(array))
    return tensor.float() if widen and tensor.dtype == torch.float16 else tensor


def _attribute(node: ir.Node, name: str, default: Any = None) -> Any:
    found = node.attributes.get(name)
    return default if found is None else found.value


def _conv(node: ir.Node, inputs: Tensors, _: bool) -> Tensors:
    top, left, bottom, right = _attribute(node, "pads", [0, 0, 0, 0])
    padded = F.pad(inputs[0], (left, right, top, bottom))
    bias = inputs[2] if len(inputs) > 2 else None
    more = {
        name: tuple(_attribute(node, key, [1, 1])) for name, key in (("stride", "strides"), ("dilation", "dilations"))
    }
    return [F.conv2d(padded, inputs[1], bias, groups=_attribute(node, "group", 1), **more)]


def _reshape(node: ir.Node, inputs: Tensors, _: bool) -> Tensors:
    assert not _attribute(node, "allowzero", 0) or 0 not in inputs[1].tolist()
    shape = [inputs[0].shape[i] if size == 0 else size for i, size in enumerate(inputs[1].tolist())]
    return [inputs[0].reshape(shape)]


def _instance_norm(node: ir.Node, inputs: Tensors, _: bool) -> Tensors:
    return [F.instance_norm(inputs[0], weight=inputs[1], bias=inputs[2], eps=_attribute(node, "epsilon", 1e-5))]


def _layer_norm(node: ir.Node, inputs: Tensors, _: bool) -> Tensors:
    shape = inputs[0].shape[_attribute(node, "axis", -1) :]
    bias = inputs[2] if len(inputs) > 2 else None
    return [F.layer_norm(inputs[0], shape, inputs[1], bias, _attribute(node, "epsilon", 1e-5))]


def _resize(node: ir.Node, inputs: Tensors, _: bool) -> Tensors:
    assert _attribute(node, "mode", "nearest") == "nearest"
    assert inputs[2].tolist() == [1, 1, 2, 2]
    return [inputs[0].repeat_interleave(2, dim=2).repeat_interleave(2, dim=3)]


def _gelu(node: ir.Node, inputs: Tensors, _: bool) -> Tensors:
    return [F.gelu(inputs[0], approximate=_attribute(node, "approximate", "none"))]


def _split(node: ir.Node, inputs: Tensors, _: bool) -> Tensors:
    axis = _attribute(node, "axis", 0)
    sizes = inputs[1].tolist() if len(inputs) > 1 else inputs[0].shape[axis] // len(node.outputs)
    return list(torch.split(inputs[0], sizes, dim=axis))


def _cast(node: ir.Node, inputs: Tensors, widen: bool) -> Tensors:
    wanted = _TYPES[ir.DataType(_attribute(node, "to"))]
    return [inputs[0].to(torch.float32 if widen and wanted == torch.float16 else wanted)]


def _clip(_: ir.Node, inputs: Tensors, __: bool) -> Tensors:
    low, high = [*inputs[1:], None, None][:2]
    return [torch.clamp(inputs[0], low, high)]


def _quantise(node: ir.Node, inputs: Tensors, _: bool) -> Tensors:
    values, scale, zero = inputs
    divided = values.float() / _along(scale.float(), values, _attribute(node, "axis", 1))
    if zero.dtype == _FP8:
        return [divided.clamp(-448, 448).to(_FP8)]
    return [torch.round(divided).clamp(-128, 127).to(torch.int8)]


def _dequantise(node: ir.Node, inputs: Tensors, _: bool) -> Tensors:
    scale = inputs[1]
    return [(inputs[0].float() * _along(scale.float(), inputs[0], _attribute(node, "axis", 1))).to(scale.dtype)]


def _along(scale: torch.Tensor, values: torch.Tensor, axis: int) -> torch.Tensor:
    shape = [1] * values.ndim
    if scale.ndim:
        shape[axis] = -1
    return scale.reshape(shape)


def _reduce_mean(node: ir.Node, inputs: Tensors, _: bool) -> Tensors:
    return [inputs[0].mean(dim=inputs[1].tolist(), keepdim=bool(_attribute(node, "keepdims", 1)))]


def _two(function: Callable[[Any, Any], torch.Tensor]) -> Callable[[ir.Node, Tensors, bool], Tensors]:
    return lambda _, inputs, __: [function(inputs[0], inputs[1])]


def _one(function: Callable[[Any], torch.Tensor]) -> Callable[[ir.Node, Tensors, bool], Tensors]:
    return lambda _, inputs, __: [function(inputs[0])]


_OPERATORS: dict[str, Callable[[ir.Node, Tensors, bool], Tensors]] = {
    "Add": _two(torch.add), "Sub": _two(torch.sub), "Mul": _two(torch.mul), "Div": _two(torch.div),
    "MatMul": _two(torch.matmul), "Sigmoid": _one(torch.sigmoid), "Floor": _one(torch.floor), "Sqrt": _one(torch.sqrt),
    "Softmax": lambda node, inputs, _: [torch.softmax(inputs[0], dim=_attribute(node, "axis", -1))],
    "Transpose": lambda node, inputs, _: [inputs[0].permute(_attribute(node, "perm"))],
    "Concat": lambda node, inputs, _: [torch.cat(inputs, dim=_attribute(node, "axis"))],
    "Conv": _conv, "Reshape": _reshape, "InstanceNormalization": _instance_norm, "LayerNormalization": _layer_norm,
    "Resize": _resize, "Gelu": _gelu, "Split": _split, "Cast": _cast, "Clip": _clip, "ReduceMean": _reduce_mean,
    "QuantizeLinear": _quantise, "DequantizeLinear": _dequantise,
}  # fmt: skip
