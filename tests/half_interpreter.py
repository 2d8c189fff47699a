"""Runs an ONNX graph with true FP16 arithmetic: every FP16 tensor is a torch.float16, every operator torch's own.

ONNX Runtime's CPU kernels compute FP16 nodes in FP32 and so hide overflows; PyTorch rounds each node's result to FP16,
as a GPU does, where what is beyond 65,504 is infinite. Only the operators that exported generators have.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import torch
import torch.nn.functional as f
from torch import Tensor

_TYPES = {
    ir.DataType.FLOAT: torch.float32,
    ir.DataType.FLOAT16: torch.float16,
    ir.DataType.UINT8: torch.uint8,
    ir.DataType.INT64: torch.int64,
    ir.DataType.INT32: torch.int32,
}


def run(onnx: Path, feeds: dict[str, np.ndarray], wanted: str) -> tuple[Tensor, list[str]]:
    """The tensor ``wanted`` of the graph in ``onnx``, and the names of the tensors on the way that are not finite."""
    graph = ir.load(onnx).graph
    values: dict[str, Tensor] = {name: torch.from_numpy(np.array(array)) for name, array in feeds.items()}
    for name, value in graph.initializers.items():
        values[name] = torch.from_numpy(np.array(value.const_value.numpy()))
    broken = []
    with torch.no_grad():
        for node in graph:
            inputs = [None if value is None else values[value.name] for value in node.inputs]
            attributes = {name: attribute.value for name, attribute in node.attributes.items()}
            results = _OPERATORS[node.op_type](inputs, attributes, node)
            for output, result in zip(node.outputs, results if isinstance(results, tuple) else (results,), strict=True):
                assert result.dtype == _TYPES[output.dtype], f"{node.name} makes {result.dtype}, not {output.dtype}"
                values[output.name] = result
                if result.is_floating_point() and not bool(torch.isfinite(result).all()):
                    broken.append(output.name)
    return values[wanted], broken


def _conv(inputs: list[Any], attributes: dict[str, Any], _: ir.Node) -> Tensor:
    x, weight, *bias = inputs
    top, left, bottom, right = attributes.get("pads", (0, 0, 0, 0))
    padded = f.pad(x, (left, right, top, bottom))
    return f.conv2d(
        padded, weight, bias[0] if bias else None, attributes.get("strides", 1), 0,
        attributes.get("dilations", 1), attributes.get("group", 1),
    )  # fmt: skip


def _norm(inputs: list[Any], attributes: dict[str, Any], _: ir.Node) -> Tensor:
    return f.instance_norm(inputs[0], weight=inputs[1], bias=inputs[2], eps=attributes["epsilon"])


def _layer_norm(inputs: list[Any], attributes: dict[str, Any], _: ir.Node) -> Tensor:
    x = inputs[0]
    return f.layer_norm(x, x.shape[-1:], inputs[1], inputs[2] if len(inputs) > 2 else None, attributes["epsilon"])


def _split(inputs: list[Any], attributes: dict[str, Any], node: ir.Node) -> tuple[Tensor, ...]:
    axis = attributes.get("axis", 0)
    sizes = [int(output.shape[axis]) for output in node.outputs]
    return tuple(torch.split(inputs[0], sizes, axis))


def _resize(inputs: list[Any], attributes: dict[str, Any], node: ir.Node) -> Tensor:
    assert attributes["mode"] == "nearest"
    return f.interpolate(inputs[0], size=[int(size) for size in node.outputs[0].shape[2:]], mode="nearest")


def _cast(inputs: list[Any], attributes: dict[str, Any], _: ir.Node) -> Tensor:
    kind = _TYPES[ir.DataType(attributes["to"])]
    return torch.nan_to_num(inputs[0]).clamp(0, 255).to(kind) if kind == torch.uint8 else inputs[0].to(kind)


def _clip(inputs: list[Any], _: dict[str, Any], __: ir.Node) -> Tensor:
    return torch.clamp(inputs[0], *inputs[1:])


def _reshape(inputs: list[Any], _: dict[str, Any], node: ir.Node) -> Tensor:
    return inputs[0].reshape([int(size) for size in node.outputs[0].shape])


def _plain(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
    return lambda inputs, _, __: function(*inputs)


_OPERATORS: dict[str, Callable[..., Any]] = {
    "Add": _plain(torch.add),
    "Cast": _cast,
    "Clip": _clip,
    "Concat": lambda inputs, attributes, _: torch.cat(inputs, attributes["axis"]),
    "Conv": _conv,
    "Div": _plain(torch.div),
    "Exp": _plain(torch.exp),
    "Floor": _plain(torch.floor),
    "Gelu": _plain(f.gelu),
    "InstanceNormalization": _norm,
    "LayerNormalization": _layer_norm,
    "MatMul": _plain(torch.matmul),
    "Mul": _plain(torch.mul),
    "Reshape": _reshape,
    "Resize": _resize,
    "Sigmoid": _plain(torch.sigmoid),
    "Softmax": lambda inputs, attributes, _: torch.softmax(inputs[0], attributes.get("axis", -1)),
    "Split": _split,
    "Sub": _plain(torch.sub),
    "Transpose": lambda inputs, attributes, _: inputs[0].permute(*attributes["perm"]),
}
