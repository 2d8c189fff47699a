"""What a graph's mathematics allows: which tensors can be multiplied by a power of two, if others are, too.

Give every float tensor v an exponent e(v): the rescaled graph computes 2^e(v) v. It computes the same pictures when

- a product y = a b (Conv, MatMul, Mul, ...) has e(y) = e(a) + e(b); a weight among them takes the difference;
- a sum, and whatever only moves, repeats or compares values, has one exponent for all; weights among them take it;
- a normalisation y = (x - mean) / sqrt(variance + epsilon) * scale + bias leaves e(x) free, since it divides x by its
  own size: with epsilon times 4^e(x) nothing is changed at all; scale and bias take e(y);
- everything else (Sigmoid, Gelu, Softmax, ...), the graph's inputs and outputs and ``image_unquantised`` have e = 0.

Multiplying by a power of two changes no digit of a float that stays within the normal numbers. So tensors fall into
classes that have one exponent each, and what is left are a few sums of exponents with bounds.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from .trace import UNQUANTISED

if TYPE_CHECKING:
    import onnx_ir as ir

# y(2^e x) = 2^e y(x), of every input that is a float.
_HOMOGENEOUS = frozenset({
    "Abs", "Add", "AveragePool", "Concat", "DepthToSpace", "Expand", "Flatten", "Gather", "GlobalAveragePool",
    "Identity", "LeakyRelu", "Max", "MaxPool", "Min", "Neg", "Pad", "ReduceMax", "ReduceMean", "ReduceMin", "ReduceSum",
    "Relu", "Reshape", "Resize", "Slice", "SpaceToDepth", "Split", "Squeeze", "Sub", "Sum", "Tile", "Transpose",
    "Unsqueeze", "Where",
})  # fmt: skip
_PRODUCTS = frozenset({"Conv", "ConvTranspose", "Gemm", "MatMul", "Mul"})
NORMS = frozenset({"GroupNormalization", "InstanceNormalization", "LayerNormalization"})
_SUMS = ("Add", "Sub", "Sum")


@dataclass(frozen=True)
class Terms:
    """An exponent that follows from others: that of all ``plus`` less that of all ``minus``."""

    plus: tuple[ir.Value, ...]
    minus: tuple[ir.Value, ...] = ()


@dataclass(frozen=True)
class Link:
    """How a weight, input ``index`` of ``node``, follows from the tensors around it.

    ``parts``: its exponent, or those of consecutive parts along ``axis``, with their sizes. ``adds``: it is a summand.
    """

    node: ir.Node
    index: int
    parts: tuple[Terms, ...]
    sizes: tuple[int, ...] = ()
    axis: int = 0
    adds: bool = False

    @property
    def weight(self) -> ir.Value:
        value = self.node.inputs[self.index]
        if value is None:
            raise ValueError(f"{self.node.name} has no input {self.index}")
        return value


@dataclass
class Scales:
    """The classes and rules of a graph. ``class_of`` gives a tensor's class; class 0 is that of exponent 0.

    ``products`` are sums of exponents that must be 0. ``split`` holds tensors whose parts have exponents of their own:
    the outputs of the Split that alone takes them.
    """

    links: list[Link] = field(default_factory=list)
    products: list[Terms] = field(default_factory=list)
    norms: list[ir.Node] = field(default_factory=list)
    split: dict[ir.Value, tuple[ir.Value, ...]] = field(default_factory=dict)
    _parents: dict[ir.Value | None, ir.Value | None] = field(default_factory=dict)

    @classmethod
    def of(cls, graph: ir.Graph) -> Scales:
        """Read the rules off a graph with static shapes, FP32 or FP16 or both."""
        scales = cls()
        for value in (*graph.inputs, *graph.outputs):
            scales.unite(value, None)
        for node in graph:
            scales._find_parts(node)
        for node in graph:
            scales._read(node)
        scales._settle_pins()
        return scales

    def root(self, value: ir.Value | None) -> ir.Value | None:
        """What stands for the tensor's class: None for those whose exponent is 0."""
        parent = self._parents.get(value, value)
        if parent is value:
            return value
        found = self.root(parent)
        self._parents[value] = found
        return found

    def unite(self, one: ir.Value | None, other: ir.Value | None) -> None:
        """Give both one exponent; None is 0."""
        first, second = self.root(one), self.root(other)
        if first is not second:
            child, parent = (second, first) if first is None else (first, second)
            self._parents[child] = parent

    def parts_of(self, value: ir.Value) -> tuple[ir.Value, ...]:
        return self.split.get(value, (value,))

    def members(self, graph: ir.Graph) -> list[ir.Value]:
        """All float tensors that nodes make."""
        return [output for node in graph for output in node.outputs if is_float(output)]

    def _find_parts(self, node: ir.Node) -> None:
        """Let a Split's outputs differ where a product with weights, and at most a bias, makes what it splits."""
        value = node.inputs[0] if node.op_type == "Split" else None
        axis = node.attributes["axis"].as_int() if "axis" in node.attributes else 0
        chain: list[ir.Value] = []
        while value is not None and len(value.uses()) == 1 and not value.is_graph_output():
            maker = value.producer()
            last = value.shape is not None and axis in (-1, len(value.shape) - 1)
            chain.append(value)
            if maker is None or not last or value.name == UNQUANTISED:
                return
            if maker.op_type == "MatMul" and is_weight(maker.inputs[1]) and not is_weight(maker.inputs[0]):
                self.split.update(dict.fromkeys(chain, tuple(node.outputs)))
                return
            weights = [is_weight(item) for item in maker.inputs]
            if maker.op_type != "Add" or sum(weights) != 1:
                return
            bias = maker.inputs[weights.index(True)]
            if bias is None or bias.shape is None or bias.shape[-1] != value.shape[-1]:  # type: ignore[index]
                return
            value = maker.inputs[weights.index(False)]

    def _read(self, node: ir.Node) -> None:
        floats = [value for value in node.outputs if is_float(value)]
        for value in floats:
            if value.name == UNQUANTISED:
                self.unite(value, None)
        if node.op_type in _PRODUCTS:
            self._read_product(node)
        elif node.op_type == "Div":
            self._read_quotient(node)
        elif node.op_type in NORMS and len(node.outputs) == 1:
            self._read_norm(node)
        elif _is_plain_attention(node):
            self._read_attention(node)
        elif node.op_type == "Split" and node.inputs[0] in self.split:
            pass
        elif node.op_type in _HOMOGENEOUS or _is_float_cast(node):
            self._read_homogeneous(node)
        else:
            for value in (*float_inputs(node), *floats):
                self.unite(value, None)

    def _read_homogeneous(self, node: ir.Node) -> None:
        output = node.outputs[0]
        for index, value in enumerate(node.inputs):
            if value is None or not is_float(value) or (node.op_type == "Resize" and index in (1, 2)):
                continue
            if is_weight(value):
                self._link(node, index, Terms((output,)), adds=True)
            elif output in self.split:
                continue  # the bias of a product in parts: both have the parts' exponents
            else:
                self.unite(value, output)
        for other in node.outputs[1:]:
            self.unite(other, output)

    def _read_product(self, node: ir.Node) -> None:
        output = node.outputs[0]
        one, other = self._tensor(node.inputs[0]), self._tensor(node.inputs[1])
        if is_weight(other):
            self._link(node, 1, Terms((output,), (one,)))
        elif is_weight(one):
            self._link(node, 0, Terms((output,), (other,)))
        else:
            self.products.append(Terms((output,), (one, other)))
        if len(node.inputs) > 2 and (bias := node.inputs[2]) is not None:
            if is_weight(bias):
                self._link(node, 2, Terms((output,)), adds=True)
            else:
                self.unite(bias, output)

    def _read_quotient(self, node: ir.Node) -> None:
        output = node.outputs[0]
        above, below = self._tensor(node.inputs[0]), self._tensor(node.inputs[1])
        if is_weight(below):
            self._link(node, 1, Terms((above,), (output,)))
        elif is_weight(above):
            self._link(node, 0, Terms((output, below)))
        else:
            self.products.append(Terms((output, below), (above,)))

    def _read_attention(self, node: ir.Node) -> None:
        """The logits keep their exponent, 0. Keys and values of a prompt that never changes are weights."""
        query, key, value = (self._tensor(item) for item in node.inputs)
        if is_weight(key):
            self._link(node, 1, Terms((), (query,)))
        else:
            self.products.append(Terms((query, key)))
        if is_weight(value):
            self._link(node, 2, Terms((node.outputs[0],)))
        else:
            self.unite(node.outputs[0], value)

    def _read_norm(self, node: ir.Node) -> None:
        self.norms.append(node)
        for index in range(1, len(node.inputs)):
            if node.inputs[index] is not None:
                if is_weight(node.inputs[index]):
                    self._link(node, index, Terms((node.outputs[0],)), adds=index == 2)
                else:
                    self.unite(node.inputs[index], None)
                    self.unite(node.outputs[0], None)

    def _tensor(self, value: ir.Value | None) -> ir.Value:
        if value is None:
            raise ValueError("a product has two factors")
        return value

    def _link(self, node: ir.Node, index: int, terms: Terms, *, adds: bool = False) -> None:
        parts = self.split.get(node.outputs[0])
        if parts is None:
            self.links.append(Link(node, index, (terms,), adds=adds))
            return
        each = tuple(Terms((part,), terms.minus) for part in parts)
        sizes = tuple(int(part.shape[-1]) for part in parts if part.shape is not None)  # type: ignore[arg-type]
        self.links.append(Link(node, index, each, sizes, -1, adds))

    def _settle_pins(self) -> None:
        """Where all but one exponent of a product are 0, so is that one."""
        left = True
        while left:
            left = False
            for terms in self.products:
                free = {root for value in (*terms.plus, *terms.minus) if (root := self.root(value)) is not None}
                balance = sum(self.root(v) in free for v in terms.plus) - sum(self.root(v) in free for v in terms.minus)
                if len(free) == 1 and balance:
                    self.unite(free.pop(), None)
                    left = True


def significance(value: ir.Value, rms: dict[str, float]) -> float:
    """The part, 0 to 1, that ``value`` has in the first sum of tensors that it goes into; 1 where it goes elsewhere.

    ``rms``: root mean squares by name. Of several that take a tensor the one counts that it matters to most.
    """
    most = 0.0
    for node, _ in value.uses():
        output = node.outputs[0]
        if node.op_type in _SUMS and not any(is_weight(item) for item in node.inputs):
            own, whole = rms.get(str(value.name)), rms.get(str(output.name))
            most = max(most, 1.0 if own is None or not whole else min(own / whole, 1.0))
        elif node.op_type in ("Add", "Reshape", "Transpose", "Identity"):
            most = max(most, significance(output, rms))
        else:
            return 1.0
    return most


def is_weight(value: ir.Value | None) -> bool:
    return value is not None and value.is_initializer()


def is_float(value: ir.Value) -> bool:
    import onnx_ir as ir

    return value.dtype in (ir.DataType.FLOAT, ir.DataType.FLOAT16)


def float_inputs(node: ir.Node) -> list[ir.Value]:
    """The tensors among a node's inputs, without weights."""
    return [value for value in node.inputs if value is not None and is_float(value) and not is_weight(value)]


def _is_plain_attention(node: ir.Node) -> bool:
    plain = node.op_type == "Attention" and len(node.inputs) == 3 and len(node.outputs) == 1
    return plain and not is_weight(node.inputs[0])


def _is_float_cast(node: ir.Node) -> bool:
    return node.op_type == "Cast" and bool(float_inputs(node)) and is_float(node.outputs[0])


def room(largest: float, limit: float) -> int:
    """The largest e with 2^e * ``largest`` <= ``limit``; of what is no number none, and -127 stands for that."""
    if largest == 0:
        return 127
    return math.floor(math.log2(limit / largest)) if math.isfinite(largest) else -127
