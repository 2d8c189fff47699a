"""A generator's graph as TensorRT 8.6's parser reads it (JetPack 6.0): opset 17, and none but its operators.

It needs onnx-ir and numpy alone, so it runs on the device that builds the plan. What TensorRT 8.6 itself makes of the
lowered graph could not be tried where this was written; that it is valid at opset 17, computes the same in ONNX
Runtime and holds nothing outside the parser's list was.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ..engines.errors import BundleError, MissingComponentError, UsageError, first_line
from ..engines.files import replacing_folder, writing_to

if TYPE_CHECKING:
    import onnx_ir as ir

    from .passes.edit import Block

OPSET = 17
_IR_VERSION = 8  # of ONNX 1.13, which TensorRT 8.6's parser was built with
_HIGHEST_OPSET = 20  # from 21 on the exporter writes GroupNormalization, from 23 on Attention

# Facts of onnx-tensorrt, branch 8.6-GA, docs/operators.md: the operators marked Y. HardSwish and those that our
# exporter could never write (recurrent ones, control flow, ImageScaler and its kind) are left out.
OPERATORS = frozenset({
    "Abs", "Acos", "Acosh", "Add", "And", "ArgMax", "ArgMin", "Asin", "Asinh", "Atan", "Atanh", "AveragePool",
    "BatchNormalization", "Cast", "Ceil", "Celu", "Clip", "Concat", "Constant", "ConstantOfShape", "Conv",
    "ConvTranspose", "Cos", "Cosh", "CumSum", "DepthToSpace", "DequantizeLinear", "Div", "Dropout", "Einsum", "Elu",
    "Equal", "Erf", "Exp", "Expand", "EyeLike", "Flatten", "Floor", "Gather", "GatherElements", "GatherND", "Gemm",
    "GlobalAveragePool", "GlobalMaxPool", "Greater", "GreaterOrEqual", "GridSample", "HardSigmoid", "Identity",
    "InstanceNormalization", "IsInf", "IsNaN", "LayerNormalization", "LeakyRelu", "Less", "LessOrEqual", "Log",
    "LogSoftmax", "LpNormalization", "LpPool", "MatMul", "Max", "MaxPool", "Mean", "MeanVarianceNormalization",
    "Min", "Mod", "Mul", "Neg", "NonZero", "Not", "OneHot", "Or", "Pad", "Pow", "PRelu", "QuantizeLinear", "Range",
    "Reciprocal", "ReduceL1", "ReduceL2", "ReduceLogSum", "ReduceLogSumExp", "ReduceMax", "ReduceMean", "ReduceMin",
    "ReduceProd", "ReduceSum", "ReduceSumSquare", "Relu", "Reshape", "Resize", "Round", "ScatterElements",
    "ScatterND", "Selu", "Shape", "Sigmoid", "Sign", "Sin", "Sinh", "Size", "Slice", "Softmax", "Softplus",
    "Softsign", "SpaceToDepth", "Split", "Sqrt", "Squeeze", "Sub", "Sum", "Tan", "Tanh", "ThresholdedRelu", "Tile",
    "TopK", "Transpose", "Trilu", "Unsqueeze", "Where", "Xor",
})  # fmt: skip
# The same document's data types. DOUBLE, which the parser narrows, no generator holds.
_TYPES = frozenset({"FLOAT", "FLOAT16", "INT32", "INT64", "INT8", "UINT8", "BOOL"})

# Changed in opsets 18 to 20 in ways that are not handled here: they could mean something else at opset 17. The others
# that changed (Cast, Constant, ConstantOfShape, Equal, Identity, Reshape, Shape, Size) only accept further types.
_CHANGED = frozenset({"AveragePool", "IsInf", "IsNaN", "LpPool"})

_REDUCTIONS = ("L1", "L2", "LogSum", "LogSumExp", "Max", "Mean", "Min", "Prod", "SumSquare")


def needs_lowering(onnx: Path) -> bool:
    """Whether TensorRT 8.6's parser needs the graph lowered: its opset is above 17. Reads no weights.

    Raises BundleError for a file that is no ONNX graph, MissingComponentError without onnx-ir.
    """
    return _load(onnx).opset_imports.get("", 0) > OPSET


def lower_for_tensorrt_8(onnx: Path, out: Path) -> tuple[str, ...]:
    """Write the graph in ``onnx``, opset 17 to 20, to ``out`` at opset 17; its weights to ``<out>.data`` beside it.

    Returns the names of new nodes that compute in float32 in an FP16 graph: FP32 islands in addition to the manifest's,
    whose names do not change. Both files are written in full before they take the place of earlier ones, the weights
    first. Raises UsageError for a graph that cannot be said at opset 17, naming operators and nodes; BundleError,
    MissingComponentError as ``needs_lowering``; DiskFullError.
    """
    model = _load(onnx)
    opset = model.opset_imports.get("", 0)
    if not OPSET <= opset <= _HIGHEST_OPSET:
        raise UsageError(
            f"{onnx} cannot be lowered for TensorRT 8.6",
            expected=f"ONNX opset {OPSET} to {_HIGHEST_OPSET}",
            got=f"opset {opset}",
            hint=f"turbo-export ... --opset {_HIGHEST_OPSET}",
        )
    islands = tuple(name for node in list(model.graph) for name in _lower(model, node)) if opset > OPSET else ()
    _refuse_unknown(onnx, model)
    model.opset_imports.clear()
    model.opset_imports[""] = OPSET
    model.ir_version = min(model.ir_version, _IR_VERSION)
    _save(model, out)
    return islands


def _load(onnx: Path) -> ir.Model:
    try:
        import onnx_ir as ir
    except ImportError as error:
        raise MissingComponentError(
            "lowering a graph for TensorRT 8.6 needs onnx-ir, which is not installed",
            hint='pip install "edgeturbo[tensorrt8]"',
        ) from error
    undecodable: type[Exception] = import_module("google.protobuf.message").DecodeError
    try:
        model = ir.load(onnx)
    except (OSError, undecodable, ValueError) as error:
        raise BundleError(f"cannot read {onnx}: {first_line(error)}", hint="export the bundle again") from error
    if not len(model.graph):
        raise BundleError(f"{onnx} holds no operators", hint="export the bundle again")
    return model


def _save(model: ir.Model, out: Path) -> None:
    import onnx_ir as ir

    written = out.parent / f".{out.name}.lowered"
    with replacing_folder(written) as folder:
        ir.save(model, folder / out.name, external_data=f"{out.name}.data")
    with writing_to(out):
        for name in (f"{out.name}.data", out.name):
            (written / name).replace(out.with_name(name))
        written.rmdir()


def _lower(model: ir.Model, node: ir.Node) -> tuple[str, ...]:
    """Say ``node`` at opset 17, in place or by others; returns the names of new nodes that compute in float32."""
    if node.op_type == "Gelu":
        return _gelu(model, node)
    change = _CHANGES.get(node.op_type)
    if change is not None:
        change(model, node)
    elif node.op_type in _CHANGED:
        raise _refusal(node, "its meaning changed after opset 17")
    return ()


def _gelu(model: ir.Model, node: ir.Node) -> tuple[str, ...]:
    """``x / 2 * (1 + erf(x / sqrt 2))``, or its tanh approximation: the definitions of ONNX's Gelu-20.

    In float32 even in an FP16 graph: 1 + erf cancels for negative x, and FP16 would keep few digits of what is left.
    """
    import onnx_ir as ir

    from .passes.edit import Block, sizes

    value = node.inputs[0]
    if value is None:
        raise _refusal(node, "it has no input")
    shape, block = sizes(value), Block(model, node)
    kind = node.outputs[0].dtype
    half = kind == ir.DataType.FLOAT16
    x = block.add("Cast", [value], shape, to=int(ir.DataType.FLOAT)) if half else value
    tanh = "approximate" in node.attributes and node.attributes["approximate"].as_string() == "tanh"
    bell = _tanh_bell(block, x, shape) if tanh else _erf_bell(block, x, shape)
    result = block.add("Mul", [block.add("Mul", [x, bell], shape), block.weight(np.array(0.5))], shape)
    made = block.names
    if half:
        result = block.add("Cast", [result], shape, to=int(ir.DataType.FLOAT16))
        result.dtype = ir.DataType.FLOAT16
    result.name, node.outputs[0].name = node.outputs[0].name, None
    block.instead(result)
    return made if half else ()


def _erf_bell(block: Block, x: ir.Value, shape: list[int]) -> ir.Value:
    erf = block.add("Erf", [block.add("Mul", [x, block.weight(np.array(math.sqrt(0.5)))], shape)], shape)
    return block.add("Add", [erf, block.weight(np.array(1.0))], shape)


def _tanh_bell(block: Block, x: ir.Value, shape: list[int]) -> ir.Value:
    cube = block.add("Mul", [block.add("Mul", [x, x], shape), x], shape)
    inner = block.add("Add", [x, block.add("Mul", [cube, block.weight(np.array(0.044715))], shape)], shape)
    tanh = block.add("Tanh", [block.add("Mul", [inner, block.weight(np.array(math.sqrt(2 / math.pi)))], shape)], shape)
    return block.add("Add", [tanh, block.weight(np.array(1.0))], shape)


def _reduction(_: ir.Model, node: ir.Node) -> None:
    """Up to opset 17 the axes are an attribute; ReduceSum alone has had them as an input since 13."""
    import onnx_ir as ir

    _drop(node, "noop_with_empty_axes", 0)
    axes = _constant(node, 1)
    if len(node.inputs) > 1:
        node.resize_inputs(1)
    if axes is not None:
        node.attributes["axes"] = ir.AttrInt64s("axes", axes)


def _split(model: ir.Model, node: ir.Node) -> None:
    """``num_outputs`` came with opset 18. The sizes are its equal parts, the last one smaller where they must be."""
    from .passes.edit import Block, sizes

    if node.attributes.pop("num_outputs", None) is None:
        return
    axis = node.attributes["axis"].as_int() if "axis" in node.attributes else 0
    parts = [sizes(output)[axis] for output in node.outputs]
    node.resize_inputs(2)
    node.replace_input_with(1, Block(model, node).constant(np.array(parts, dtype=np.int64)))


def _resize(_: ir.Model, node: ir.Node) -> None:
    _drop(node, "antialias", 0)
    _drop(node, "keep_aspect_ratio_policy", "stretch")
    if "axes" in node.attributes:
        raise _refusal(node, "it names axes, which came with opset 18")
    mode = node.attributes.get("coordinate_transformation_mode")
    if mode is not None and mode.as_string() == "half_pixel_symmetric":
        raise _refusal(node, "half_pixel_symmetric came with opset 19")


def _pad(model: ir.Model, node: ir.Node) -> None:
    """Padding named for some axes, since opset 18, becomes padding for all: zero for the others."""
    from .passes.edit import Block, sizes

    if "mode" in node.attributes and node.attributes["mode"].as_string() == "wrap":
        raise _refusal(node, 'mode "wrap" came with opset 19')
    axes, pads = _constant(node, 3), _constant(node, 1)
    value = node.inputs[0]
    if axes is not None and pads is not None and value is not None:
        rank = len(sizes(value))
        whole = [0] * (2 * rank)
        for index, axis in enumerate(axes):
            whole[axis % rank], whole[axis % rank + rank] = pads[index], pads[index + len(axes)]
        node.replace_input_with(1, Block(model, node).constant(np.array(whole, dtype=np.int64)))
    if len(node.inputs) > 3:
        node.resize_inputs(3)


def _grid_sample(_: ir.Model, node: ir.Node) -> None:
    import onnx_ir as ir

    from .passes.edit import sizes

    if node.inputs[0] is None or len(sizes(node.inputs[0])) != 4:
        raise _refusal(node, "inputs other than pictures came with opset 20")
    mode = node.attributes["mode"].as_string() if "mode" in node.attributes else "linear"
    earlier = {"linear": "bilinear", "cubic": "bicubic"}.get(mode, mode)
    node.attributes["mode"] = ir.AttrString("mode", earlier)


def _scatter(_: ir.Model, node: ir.Node) -> None:
    if "reduction" in node.attributes and node.attributes["reduction"].as_string() in ("min", "max"):
        raise _refusal(node, "reductions min and max came with opset 18")


def _quantised(_: ir.Model, node: ir.Node) -> None:
    raise _refusal(node, "its scale is in FP16, and quantised generators need TensorRT 10")


def _without_saturate(_: ir.Model, node: ir.Node) -> None:
    node.attributes.pop("saturate", None)  # concerns float8 alone


_CHANGES: dict[str, Callable[[ir.Model, ir.Node], None]] = {
    **{f"Reduce{what}": _reduction for what in _REDUCTIONS},
    "Cast": _without_saturate,
    **dict.fromkeys(("QuantizeLinear", "DequantizeLinear"), _quantised),
    **dict.fromkeys(("ScatterElements", "ScatterND"), _scatter),
    "GridSample": _grid_sample,
    "Pad": _pad,
    "Resize": _resize,
    "Split": _split,
}


def _drop(node: ir.Node, attribute: str, default: int | str) -> None:
    """Remove an attribute that opset 17 has not, where it says what opset 17 does anyway."""
    found = node.attributes.pop(attribute, None)
    if found is not None and found.value != default:
        raise _refusal(node, f"{attribute}={found.value} came after opset 17")


def _constant(node: ir.Node, index: int) -> list[int] | None:
    """Input ``index`` as integers; None where it is left out. Refuses one that is computed."""
    value = node.inputs[index] if index < len(node.inputs) else None
    if value is None:
        return None
    if value.const_value is None:
        raise _refusal(node, f"its input {index} is computed, and opset 17 wants it constant")
    return [int(number) for number in value.const_value.numpy().reshape(-1)]


def _refuse_unknown(onnx: Path, model: ir.Model) -> None:
    unknown = sorted({f"{n.domain}::{n.op_type}" if n.domain else n.op_type for n in model.graph
                      if n.domain or n.op_type not in OPERATORS})  # fmt: skip
    if unknown:
        raise UsageError(
            f"{onnx} has operators that TensorRT 8.6 does not know: {', '.join(unknown)}",
            hint=f"turbo-export ... --opset {_HIGHEST_OPSET}, or a device with JetPack 6.1 or later",
        )
    for node in model.graph:
        for value in (*node.inputs, *node.outputs):
            kind = value.dtype.name if value is not None and value.dtype is not None else "FLOAT"
            if kind not in _TYPES:
                raise _refusal(node, f"TensorRT 8.6 has no type {kind}")
            # NVIDIA/TensorRT issue 3985: nothing but a cast takes or makes uint8.
            if kind == "UINT8" and node.op_type != "Cast":
                raise _refusal(node, "TensorRT 8.6 does nothing with uint8 but cast it")


def _refusal(node: ir.Node, reason: str) -> UsageError:
    return UsageError(
        f"{node.op_type} {node.name} cannot be lowered for TensorRT 8.6: {reason}",
        hint=f"turbo-export ... --opset {_HIGHEST_OPSET}, or a device with JetPack 6.1 or later",
    )
