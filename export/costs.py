"""Counts what a saved generator computes and moves, node by node. The weights' file is not read, and need not be there.

Sources of the formulas: ``torch.utils.flop_counter`` (a multiply-add is 2 operations; only convolutions and matrix
products count) and the operators' shapes in the ONNX specification (https://onnx.ai/onnx/operators/).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING

from ..engines.costs import SCHEMA, Costs, Growth, Work
from ..engines.errors import BundleError
from ..engines.files import replacing
from .stages import STAGES, stage_of

if TYPE_CHECKING:
    import onnx_ir as ir

# A Reshape and its like give new names to the same bytes.
VIEWS = frozenset({"Reshape", "Squeeze", "Unsqueeze", "Flatten", "Identity"})
# Parts of the kernels before and behind them ("Q/DQ fusion" in NVIDIA's TensorRT documentation, "Working with Quantized
# Types"): they move nothing themselves, and a product reads the eight bits.
_QUANTISE, _DEQUANTISE = "QuantizeLinear", "DequantizeLinear"
# These read no more than they write.
_PARTS = frozenset({"Slice", "Gather", "GatherElements", "GatherND", "Split"})
_KINDS = {
    **dict.fromkeys(("Conv", "ConvTranspose"), "conv"),
    **dict.fromkeys(("MatMul", "Gemm"), "matmul"),
    # Engines that know attention run the softmax between its two products together with them.
    **dict.fromkeys(("Attention", "Softmax"), "attention"),
    **dict.fromkeys(
        ("InstanceNormalization", "LayerNormalization", "GroupNormalization", "RMSNormalization", "BatchNormalization",
         "ReduceMean", "ReduceSum", "ReduceSumSquare", "ReduceMax", "ReduceL2", "GlobalAveragePool"),
        "norm",
    ),
    **dict.fromkeys(
        ("Add", "Sub", "Mul", "Div", "Pow", "Sqrt", "Reciprocal", "Neg", "Abs", "Exp", "Log", "Sin", "Cos", "Tanh",
         "Erf", "Sigmoid", "Gelu", "Relu", "LeakyRelu", "Swish", "Clip", "Floor", "Ceil", "Round", "Min", "Max", "Sum",
         "Where", "Equal", "Less", "Greater", "Not", "And", "Or", "QuantizeLinear", "DequantizeLinear"),
        "elementwise",
    ),
    **dict.fromkeys(
        (*VIEWS, *_PARTS, "Transpose", "Concat", "Resize", "Cast", "DepthToSpace", "SpaceToDepth", "Expand", "Pad",
         "Tile", "Constant", "ConstantOfShape", "Shape"),
        "movement",
    ),
}  # fmt: skip

# Inputs of the generator's own size end so; a strength or a prompt has the same size for every picture.
_PICTURES = ("frame", "noise")

_HINT = "export the bundle again"

# How a value grows with the pixels: not at all and known before the first frame, not at all (a prompt), as they do, as
# their square.
_CONSTANT, _FIXED, _LINEAR, _QUADRATIC = -1, 0, 1, 2


def write_costs(onnx: Path, path: Path) -> Costs:
    """Write the cost table of the generator ``onnx`` to ``path`` and return it. Raises as ``cost_table``."""
    costs = cost_table(onnx)
    with replacing(path) as temporary:
        temporary.write_text(costs.to_json(), encoding="utf-8")
    return costs


def cost_table(onnx: Path) -> Costs:
    """Count the generator in the file ``onnx``, whose shapes are static and whose nodes are named by stage.

    How figures grow is read off the data flow: all that is computed from the frame or a noise grows as the pixels; a
    product of two such values, the scores of self-attention, as their square. A camera's frame that the graph itself
    resizes is counted as if it grew with the generator. Takes about a second. Raises BundleError when the file is no
    ONNX graph, or is not shaped as a generator is.
    """
    import onnx_ir as ir

    try:
        graph = ir.load(onnx).graph
    except Exception as error:
        # onnx-ir passes on what protobuf, the file system and its own checks raise; they share no class.
        raise BundleError(f"cannot read the graph {onnx}: {error}", hint=_HINT) from error
    return counted(graph, onnx)


def counted(graph: ir.Graph, onnx: Path) -> Costs:
    """The table of a graph in memory; ``onnx`` is the name that errors give it. Raises BundleError."""
    batch, _, height, width = _planes(graph, onnx)
    growth = _Growths(graph)
    counts: Counter[Work] = Counter()
    names: dict[Work, str] = {}
    for node in graph:
        entry = _work(node, growth)
        counts[entry] += 1
        names.setdefault(entry, node.name or node.op_type)
    work = tuple(
        Work(**{**vars(entry), "nodes": nodes, "example": names[entry]})
        for entry, nodes in sorted(counts.items(), key=lambda item: STAGES.index(item[0].stage))
    )
    return Costs(
        SCHEMA, width=width, height=height, batch=batch,
        weights=sum(bytes_of(value) for value in graph.initializers.values()),
        live=_front(_live(graph, growth)), work=work,
    )  # fmt: skip


def _planes(graph: ir.Graph, onnx: Path) -> list[int]:
    """What the encoder's first convolution takes, [B,3,H,W]; the frame itself may be a camera's, of another size."""
    for node in graph:
        if node.op_type == "Conv" and stage_of(node.name) == "vae_encoder" and len(_shape(node.inputs[0])) == 4:
            return _shape(node.inputs[0])
    raise BundleError(f"{onnx} is no generator: there is no convolution in its vae_encoder", hint=_HINT)


class _Growths:
    """For each value of a graph: how many bytes it has, and which part of a Growth they are."""

    def __init__(self, graph: ir.Graph) -> None:
        self._degree: dict[ir.Value, int] = dict.fromkeys(graph.initializers.values(), _CONSTANT)
        for value in graph.inputs:
            self._degree.setdefault(value, _LINEAR if (value.name or "").endswith(_PICTURES) else _FIXED)
        for node in graph:
            self._degree.update(dict.fromkeys(node.outputs, self._made(node)))

    def degree(self, value: ir.Value) -> int:
        return self._degree[value]

    def constant(self, value: ir.Value) -> bool:
        return self._degree[value] == _CONSTANT

    def operations(self, node: ir.Node) -> int:
        """The degree of a node's arithmetic."""
        return max(_FIXED, self._made(node), _QUADRATIC if self._is_product(node) else _FIXED)

    def bytes(self, value: ir.Value) -> Growth:
        return _grown(bytes_of(value), self._degree[value])

    def _made(self, node: ir.Node) -> int:
        degrees = [self._degree[value] for value in node.inputs if value is not None] or [_CONSTANT]
        if not self._is_product(node):
            return max(degrees)
        # Scores are one query against every key; the next product sums over the keys, and so does a fused Attention.
        return _LINEAR if _QUADRATIC in degrees or node.op_type == "Attention" else _QUADRATIC

    def _is_product(self, node: ir.Node) -> bool:
        """Whether a node multiplies two matrices that both grow with the pixels."""
        pair = [self._degree[value] for value in node.inputs[:2] if value is not None]
        return node.op_type in ("MatMul", "Gemm", "Attention") and len(pair) == 2 and min(pair) >= _LINEAR


def _work(node: ir.Node, growth: _Growths) -> Work:
    """One node's entry, as yet without its count and name."""
    stage = stage_of(node.name)
    if stage not in STAGES:
        raise BundleError(f"the node {node.name} belongs to no stage", expected=", ".join(STAGES), got=stage or "none")
    values = list(dict.fromkeys(_stored(value) for value in node.inputs if value is not None))
    written = _sum(growth.bytes(value) for value in node.outputs)
    if node.op_type in VIEWS or node.op_type in (_QUANTISE, _DEQUANTISE):
        values, written = [], Growth()
    read = _sum(growth.bytes(value) for value in values if not growth.constant(value))
    if node.op_type in _PARTS:
        read = written
    return Work(
        stage=stage, kind=_kind(node, growth), dtype=_dtype(node), nodes=1, example="",
        flops=_grown(operations(node), growth.operations(node)), read=read, written=written,
        weights=sum(bytes_of(value) for value in values if growth.constant(value)),
    )  # fmt: skip


def _stored(value: ir.Value) -> ir.Value:
    """What a kernel reads where the graph says a dequantised value: the eight bits it was dequantised from."""
    producer = value.producer()
    stored = producer.inputs[0] if producer is not None and producer.op_type == _DEQUANTISE else None
    return value if stored is None else stored


def operations(node: ir.Node) -> int:
    """Floating-point operations of a node's multiply-adds, 2 for each; 0 for nodes that have none.

    Each output of a Conv sums over a kernel of [out, in / groups, height, width]; each input of a ConvTranspose is
    multiplied with one of [in, out / groups, height, width]; each output of a MatMul or Gemm sums over the axis that
    its inputs share; in an Attention each query meets every key, and each output sums over every value.
    """
    if node.op_type in ("Conv", "ConvTranspose"):
        meets = _shape(node.outputs[0] if node.op_type == "Conv" else node.inputs[0])
        return 2 * prod(meets) * prod(_shape(node.inputs[1])[1:])
    if node.op_type in ("MatMul", "Gemm"):
        transposed = node.op_type == "Gemm" and bool(node.attributes.get_int("transA", 0))
        return 2 * prod(_shape(node.outputs[0])) * _shape(node.inputs[0])[0 if transposed else -1]
    if node.op_type == "Attention":
        keys = _shape(node.inputs[1])[-2]
        return 2 * keys * (prod(_shape(node.inputs[0])) + prod(_shape(node.outputs[0])))
    return 0


def _kind(node: ir.Node, growth: _Growths) -> str:
    """A product of two computed values belongs to attention, and so does one with a stack of matrices: the keys and
    values of a prompt that was folded into the graph."""
    kind = _KINDS.get(node.op_type, "other")
    if node.op_type == "MatMul":
        right = node.inputs[1]
        if right is not None and (not growth.constant(right) or len(_shape(right)) > 2):
            return "attention"
    return kind


def _dtype(node: ir.Node) -> str:
    """What a node computes in. Between quantised values a product runs on them, whatever the graph's types say."""
    first = node.inputs[0] if node.inputs else None
    source = first.producer() if first is not None else None
    if source is not None and source.op_type == "DequantizeLinear" and operations(node):
        first = source.inputs[0]
    else:
        first = node.outputs[0]
    if first is None or first.dtype is None:
        raise BundleError(f"the node {node.name} has no type", hint=_HINT)
    return str(first.dtype.numpy())


def _live(graph: ir.Graph, growth: _Growths) -> Iterator[Growth]:
    """The activations that exist while each node runs; a view keeps alive what it was made from."""
    order = list(graph)
    held: dict[ir.Value, ir.Value] = {}
    last: dict[ir.Value, int] = {value: len(order) for value in (*graph.inputs, *graph.outputs)}
    for index, node in enumerate(order):
        for output in node.outputs:
            source = node.inputs[0] if node.op_type in VIEWS else None
            held[output] = held.get(source, source) if source is not None else output
        for value in (*node.inputs, *node.outputs):
            if value is not None:
                root = held.get(value, value)
                last[root] = max(last.get(root, 0), index, last.get(value, 0))
    alive = [value for value in graph.inputs if not growth.constant(value)]
    for index, node in enumerate(order):
        alive += [value for value in node.outputs if held[value] is value and not growth.constant(value)]
        yield _sum(growth.bytes(value) for value in alive)
        alive = [value for value in alive if last[value] > index]


def _front(moments: Iterator[Growth]) -> tuple[Growth, ...]:
    """The moments that no other one equals or exceeds in all three parts."""
    front: list[Growth] = []
    for moment in moments:
        if not any(_covers(other, moment) for other in front):
            front = [other for other in front if not _covers(moment, other)] + [moment]
    return tuple(front)


def _covers(larger: Growth, smaller: Growth) -> bool:
    return all(a >= b for a, b in zip(larger.parts(), smaller.parts(), strict=True))


def _sum(growths: Iterator[Growth]) -> Growth:
    return sum(growths, Growth())


def _grown(figure: int, degree: int) -> Growth:
    parts = [0, 0, 0]
    parts[max(degree, _FIXED)] = figure
    return Growth(*parts)


def bytes_of(value: ir.Value) -> int:
    """A value's size, packed. Raises BundleError where it has no type or no static shape."""
    if value.dtype is None:
        raise BundleError(f"the value {value.name} has no type", hint=_HINT)
    return -(-prod(_shape(value)) * value.dtype.bitwidth // 8)


def _shape(value: ir.Value | None) -> list[int]:
    if value is None or value.shape is None or not all(isinstance(size, int) for size in value.shape):
        raise BundleError(f"{value.name if value is not None else 'an input'} has no static shape", hint=_HINT)
    return [int(size) for size in value.shape]  # type: ignore[arg-type]
