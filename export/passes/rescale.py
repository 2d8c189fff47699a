"""Tensors multiplied by powers of two, and the weights and epsilons around them by what takes that back."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray
from onnx_ir.passes import InPlacePass, PassResult

from ..repair_scales import Link, Scales, Terms
from .edit import forget_unused, free_name

_DEFAULT_EPSILON = 1e-5  # of every normalisation in the ONNX specification


class Rescale(InPlacePass):
    """Gives tensors exponents: the graph then computes 2^e times each, and the same pictures.

    ``exponents``: by tensor (class) as ``scales.root`` gives it; the others have 0. They must follow the graph's rules:
    see ``repair_scales``. ``originals``: weights in FP32, by name, where the graph's own FP16 has lost them; the pass
    takes out those that fit afterwards and puts in the others under their new names. ``touched``, filled by the call:
    for each class the nodes whose weights or epsilon changed because of it.

    A weight is converted when the graph is saved, so that no two copies stand in memory.
    """

    def __init__(
        self, scales: Scales, exponents: Mapping[ir.Value | None, int], originals: dict[str, NDArray[np.float32]]
    ) -> None:
        self._scales = scales
        self._exponents = exponents
        self._originals = originals
        self._made: dict[tuple[str, tuple[int, ...], int], ir.Value] = {}
        self.touched: dict[ir.Value | None, list[str]] = {}

    def call(self, model: ir.Model) -> PassResult:
        changed = 0
        for link in self._scales.links:
            exponents = tuple(self._exponent(terms) for terms in link.parts)
            if any(exponents):
                changed += 1
                link.node.replace_input_with(link.index, self._scaled(model, link, exponents))
                for terms in link.parts:
                    self._touch(terms, link.node)
        for node in self._scales.norms:
            terms = Terms((node.inputs[0],))  # type: ignore[arg-type]
            exponent = self._exponent(terms)
            if exponent:
                changed += 1
                _scale_epsilon(node, exponent)
                self._touch(terms, node)
        forget_unused(model)
        for name in [name for name in self._originals if name not in model.graph.initializers]:
            del self._originals[name]
        return PassResult(model, modified=bool(changed))

    def _exponent(self, terms: Terms) -> int:
        return sum(map(self._of, terms.plus)) - sum(map(self._of, terms.minus))

    def _of(self, value: ir.Value) -> int:
        return self._exponents.get(self._scales.root(value), 0)

    def _touch(self, terms: Terms, node: ir.Node) -> None:
        for value in (*terms.plus, *terms.minus):
            root = self._scales.root(value)
            if self._exponents.get(root, 0):
                names = self.touched.setdefault(root, [])
                if node.name not in names:
                    names.append(str(node.name))

    def _scaled(self, model: ir.Model, link: Link, exponents: tuple[int, ...]) -> ir.Value:
        """The weight times 2^e: one new weight for all who take the same, the old one stays for the others."""
        weight = link.weight
        key = (str(weight.name), exponents, link.axis)
        if key not in self._made:
            name = free_name(model.graph.initializers, f"{weight.name}.2^{'_'.join(map(str, exponents))}")
            self._made[key] = self._twin(weight, name, _factors(link, exponents))
            model.graph.register_initializer(self._made[key])
        return self._made[key]

    def _twin(self, weight: ir.Value, name: str, factors: NDArray[np.float32]) -> ir.Value:
        tensor, kind = weight.const_value, weight.dtype
        if tensor is None or kind is None:
            raise ValueError(f"weight {weight.name} has no value")
        original = self._originals.get(str(weight.name))
        if original is not None:
            self._originals[name] = original * factors
        shape = ir.Shape(tensor.numpy().shape)

        def made() -> ir.TensorProtocol:
            wide = tensor.numpy().astype(np.float32) if original is None else original
            with np.errstate(over="ignore"):
                return ir.tensor((wide * factors).astype(kind.numpy()), name=name)

        lazy = ir.LazyTensor(made, dtype=kind, shape=shape, name=name)
        return ir.Value(name=name, shape=shape, type=ir.TensorType(kind), const_value=lazy)


def _factors(link: Link, exponents: tuple[int, ...]) -> NDArray[np.float32]:
    """Powers of two, exact in float32: one number, or one for each element along the last axis."""
    numbers = np.ldexp(np.float32(1), np.array(exponents))
    return np.repeat(numbers, link.sizes) if link.sizes else numbers[0]


def _scale_epsilon(node: ir.Node, exponent: int) -> None:
    """(2^e x - mean) / sqrt(4^e variance + 4^e epsilon) is what it was; no digit of a float32 epsilon changes."""
    found = node.attributes.get("epsilon")
    epsilon = _DEFAULT_EPSILON if found is None else found.as_float()
    node.attributes["epsilon"] = ir.AttrFloat32("epsilon", epsilon * 4.0**exponent)
