"""What was measured as bounds on exponents: how far each tensor and weight of an FP16 graph can be scaled."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from .costs import VIEWS, bytes_of
from .ranges import FP16_LIMIT, MOST_LOST, SMALLEST_RMS, SUBNORMAL_LOSS, Measured, Problem, Range
from .repair_scales import NORMS, Link, Scales, is_float, is_weight, room, significance
from .repair_solver import Rule, Solver

if TYPE_CHECKING:
    import onnx_ir as ir

_FURTHEST = 48  # 4^-48 of an epsilon of 1e-6 is still a normal float32


class Ranges:
    """What is known of every FP16 tensor and weight of a graph, those that only repeat others included."""

    def __init__(self, graph: ir.Graph, measured: Measured, margin: float) -> None:
        self.limit = FP16_LIMIT / margin
        self.weights = dict(measured.weights)
        self._tensors = dict(measured.tensors)
        self._origins: dict[str, str] = {}
        self.follow(graph, {})

    def follow(self, graph: ir.Graph, copies: Mapping[str, str]) -> None:
        """Fill in tensors that were not measured, from those they are made of; ``copies``: new ones, by name."""
        for node in graph:
            for output in node.outputs:
                name = str(output.name)
                if not is_float(output) or name in self._tensors:
                    continue
                sources = [copies[name]] if name in copies else [str(v.name) for v in node.inputs if v is not None]
                known = [source for source in sources if source in self._tensors]
                if known:
                    hottest = max(known, key=lambda source: self._tensors[source].largest)
                    bounded = node.op_type in ("Sigmoid", "Softmax", "Tanh")
                    self._tensors[name] = Range(1.0, 1.0) if bounded else self._tensors[hottest]
                    self._origins[name] = self.origin(hottest)

    def origin(self, name: str) -> str:
        """The measured tensor whose range a tensor has; itself where it was measured."""
        return self._origins.get(name, name)

    def of(self, value: ir.Value) -> Range | None:
        """The range of an FP16 tensor or weight; None for others, which have room enough."""
        import onnx_ir as ir

        if value.dtype != ir.DataType.FLOAT16:
            return None
        return (self.weights if value.is_initializer() else self._tensors).get(str(value.name))

    @property
    def rms(self) -> dict[str, float]:
        return {name: held.rms for name, held in self._tensors.items()}


class Bounds:
    """The solver's problem for a graph as it now is."""

    def __init__(self, graph: ir.Graph, ranges: Ranges) -> None:
        self.scales = Scales.of(graph)
        self._ranges = ranges
        self._rms = ranges.rms
        self._values = self.scales.members(graph)
        self._indices: dict[ir.Value | None, int] = {None: 0}
        for value in self._values:
            self._indices.setdefault(self.scales.root(value), len(self._indices))
        self._links = {
            (link, part): self._rule(link, part) for link in self.scales.links for part in range(len(link.parts))
        }
        products = [self._sum(terms.plus, terms.minus, 0, 0) for terms in self.scales.products]
        low, high = self._class_bounds()
        self._solver = Solver(low, high, [*products, *self._links.values()])

    @property
    def exponents(self) -> dict[ir.Value | None, int]:
        return {root: exponent for root, index in self._indices.items() if (exponent := self._solver.exponents[index])}

    def settle(self) -> list[ir.Value]:
        """Bring everything within its bounds; return the FP16 tensors and weights with which that failed."""
        left: list[ir.Value] = []
        for value in self._values:
            held = self._ranges.of(value)
            if held is not None and not self._fits(value, held):
                index = self._index(self._hottest_part(value))
                if not self._solver.settle(index) or not self._fits(value, held):
                    left.append(value)
        for (link, _), rule in self._links.items():
            if not self._solver.keep(rule):
                left.append(link.weight)
        return left

    def exponent_of(self, name: str) -> int:
        """What a tensor or weight is multiplied by, as a power of two; of a weight in parts the largest power."""
        sums = [
            sum(factor * self._solver.exponents[index] for index, factor in rule.terms)
            for (link, _), rule in self._links.items()
            if link.weight.name == name
        ]
        return max(sums, key=abs) if sums else self._solver.exponents[self._indices[self.owner(name)]]

    def owner(self, name: str) -> ir.Value | None:
        """What stands for the class of the tensor, or for that of the tensor next to a weight."""
        for value in self._values:
            if value.name == name:
                return self.scales.root(self._hottest_part(value))
        for link in self.scales.links:
            if link.weight.name == name:
                values = [value for terms in link.parts for value in (*terms.plus, *terms.minus)]
                return next((root for v in values if self.exponents.get(root := self.scales.root(v), 0)), None)
        return None

    def _index(self, value: ir.Value) -> int:
        return self._indices[self.scales.root(value)]

    def _hottest_part(self, value: ir.Value) -> ir.Value:
        parts = self.scales.parts_of(value)
        return max(parts, key=lambda part: held.largest if (held := self._ranges.of(part)) else 0.0)

    def _fits(self, value: ir.Value, held: Range) -> bool:
        low, high = self._bounds_of(value, held)
        return low <= self._solver.exponents[self._index(self._hottest_part(value))] <= high

    def _bounds_of(self, value: ir.Value, held: Range) -> tuple[int, int]:
        part = significance(value, self._rms)
        return _lowest(held.rms, part), room(held.largest, self._ranges.limit)

    def _class_bounds(self) -> tuple[list[int], list[int]]:
        low, high = [-_FURTHEST] * len(self._indices), [_FURTHEST] * len(self._indices)
        low[0] = high[0] = 0
        for value in self._values:
            index, held = self._index(self._hottest_part(value)), self._ranges.of(value)
            if index and held is not None:
                lowest, highest = self._bounds_of(value, held)
                low[index], high[index] = max(low[index], lowest), min(high[index], highest)
        # Where both cannot be had, what overflows comes first; what vanishes then is left over, and becomes an island.
        return [min(pair) for pair in zip(low, high, strict=True)], high

    def _rule(self, link: Link, part: int) -> Rule:
        terms, held = link.parts[part], self._ranges.of(link.weight)
        low, high = -2 * _FURTHEST, 2 * _FURTHEST
        if held is not None:
            high = room(held.largest, FP16_LIMIT)
            if not link.adds:
                low = min(_lowest(held.rms, significance(link.node.outputs[0], self._rms)), high)
        return self._sum(terms.plus, terms.minus, low, high)

    def _sum(self, plus: Iterable[ir.Value], minus: Iterable[ir.Value], low: int, high: int) -> Rule:
        factors: dict[int, int] = {}
        for values, sign in ((plus, 1), (minus, -1)):
            for value in values:
                index = self._index(value)
                factors[index] = factors.get(index, 0) + sign
        return Rule(tuple((index, factor) for index, factor in factors.items() if index and factor), low, high)


def vanishing(graph: ir.Graph, measured: Measured) -> list[Problem]:
    """The tensors, and the weights that multiply, of which FP16 would lose too much among its subnormals."""
    rms = {name: held.rms for name, held in measured.tensors.items()}
    parts: dict[str, float] = {}
    for node in graph:
        for output in node.outputs:
            if str(output.name) in measured.tensors:
                parts[str(output.name)] = significance(output, rms)
    for link in Scales.of(graph).links:
        if not link.adds:
            name = str(link.weight.name)
            parts[name] = max(parts.get(name, 0.0), significance(link.node.outputs[0], rms))
    held_by_name = {**measured.tensors, **measured.weights}
    return [
        Problem("subnormal", name, held_by_name[name].rms, part * SMALLEST_RMS)
        for name, part in parts.items()
        if name in held_by_name and 0 < held_by_name[name].rms < part * SMALLEST_RMS
    ]


def takes_scaled(node: ir.Node, value: ir.Value) -> bool:
    """Whether ``node`` can take ``value`` times a power of two: a weight or an epsilon of its own takes it back."""
    if node.op_type in NORMS:
        return node.inputs[0] is value
    if node.op_type in ("Conv", "ConvTranspose", "Gemm", "MatMul", "Mul"):
        return sum(is_weight(factor) for factor in node.inputs[:2]) == 1
    return False


def moved_bytes(graph: ir.Graph, free: Iterable[ir.Node] = ()) -> int:
    """Bytes that a graph's nodes read and write as it is written, weights included, but for nodes that are ``free``."""
    left_out = set(free)
    return sum(node_bytes(node) for node in graph if node.op_type not in VIEWS and node not in left_out)


def node_bytes(node: ir.Node) -> int:
    """Bytes that a node reads and writes."""
    return sum(bytes_of(value) for value in (*node.inputs, *node.outputs) if value is not None)


def _lowest(rms: float, part: float) -> int:
    """The lowest exponent with which a tensor, that has this ``part`` in what it goes into, does not vanish."""
    if rms == 0 or part == 0:
        return -_FURTHEST
    if not math.isfinite(rms):
        return -_FURTHEST
    return math.ceil(math.log2(part * SUBNORMAL_LOSS / MOST_LOST / rms))
