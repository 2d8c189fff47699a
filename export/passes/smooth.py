"""SmoothQuant: what a few channels of a linear layer's input have too much of moves into its weight.

G. Xiao et al., "SmoothQuant: accurate and efficient post-training quantization for large language models" (ICML 2023),
equation 4: channel j of the input is divided by ``s_j = max|X_j|**a / max|W_j|**(1 - a)``, and row j of the weight is
multiplied by it. In real numbers nothing changes; in eight bits the input's one scale is no longer set by its worst
channel. The division is made part of the normalisation in front where there is one, else it is a Mul of its own.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray
from onnx_ir.passes import InPlacePass, PassResult, PreconditionError

from ..quantise.sites import Site, sites
from .edit import forget_unused

Floats = NDArray[np.float32]

STRENGTH = 0.5  # the paper's a; section 5.1: 0.5 suits most models

_NORM = "LayerNormalization"


@dataclass
class Smooth(InPlacePass):
    """Smooths the matrix products named in ``chosen``.

    ``maxima``: for each of their inputs, by name, the largest magnitude of each channel over the calibration frames.
    ``folded`` and ``explicit``, filled by the call: the inputs whose division a LayerNormalization took over, and those
    that got a Mul. Requires: a maximum for every channel of every input. Weights are computed when the graph is saved.
    """

    chosen: Collection[str]
    maxima: Mapping[str, Floats]
    strength: float = STRENGTH
    folded: list[str] = field(default_factory=list)
    explicit: list[str] = field(default_factory=list)

    def requires(self, model: ir.Model) -> None:
        groups = smoothable(model.graph, self.chosen)
        missing = [str(value.name) for value in groups if value.name not in self.maxima]
        if missing:
            raise PreconditionError(f"{len(missing)} inputs have no maxima: {missing[:10]}")

    def call(self, model: ir.Model) -> PassResult:
        groups = smoothable(model.graph, self.chosen)
        for value, group in groups.items():
            divisors = self._divisors(value, group)
            norm = _own_norm(value, group)
            if norm is None:
                _divide(model, value, group, divisors)
                self.explicit.append(str(value.name))
            else:
                for index in (1, 2):
                    _rescale(model, norm, index, np.float32(1) / divisors)
                self.folded.append(str(value.name))
            for weight in dict.fromkeys(site.weight for site in group):
                _multiply(model, weight, [site.node for site in group if site.weight is weight], divisors)
        forget_unused(model)
        return PassResult(model, modified=bool(groups))

    def _divisors(self, value: ir.Value, group: list[Site]) -> Floats:
        """s_j of equation 4, over all weights that multiply this input; 1 where either side is all zeros."""
        activation = np.asarray(self.maxima[str(value.name)], np.float32)
        rows = [_rows(_array(site.weight)) for site in group]
        weight = np.max(np.stack(rows), axis=0)
        with np.errstate(divide="ignore", invalid="ignore"):
            divisors = activation**self.strength / weight ** (1 - self.strength)
        return np.where((activation > 0) & (weight > 0) & np.isfinite(divisors), divisors, 1.0).astype(np.float32)


def smoothable(graph: ir.Graph, chosen: Collection[str]) -> dict[ir.Value, list[Site]]:
    """The inputs of the matrix products named in ``chosen``, each with those products.

    A weight that products of different inputs share is left out: it cannot be divided by two vectors at once.
    """
    found = [site for site in sites(graph) if site.node.op_type == "MatMul" and site.name in chosen]
    groups: dict[ir.Value, list[Site]] = {}
    for site in found:
        if all(user.inputs[0] is site.activation for user, _ in site.weight.uses()):
            groups.setdefault(site.activation, []).append(site)
    return groups


def _own_norm(value: ir.Value, group: list[Site]) -> ir.Node | None:
    """The LayerNormalization that makes ``value`` for this group alone, its scale and bias constants; else None."""
    producer = value.producer()
    users = {user for user, _ in value.uses()}
    if producer is None or producer.op_type != _NORM or users != {site.node for site in group}:
        return None
    constant = [given is not None and given.const_value is not None for given in producer.inputs[1:]]
    return producer if len(constant) == 2 and all(constant) and not value.is_graph_output() else None


def _rescale(model: ir.Model, norm: ir.Node, index: int, factors: Floats) -> None:
    old = norm.inputs[index]
    if old is None:
        return
    array = (_array(old).astype(np.float32) * factors).astype(_array(old).dtype)
    norm.replace_input_with(index, _weight(model, f"{norm.name}:{index}.smooth", ir.tensor(array)))


def _divide(model: ir.Model, value: ir.Value, group: list[Site], divisors: Floats) -> None:
    kind = np.float16 if value.dtype == ir.DataType.FLOAT16 else np.float32
    factors = _weight(model, f"{value.name}/smooth:1", ir.tensor((1 / divisors).astype(kind)))
    node = ir.node("Mul", [value, factors], name=f"{value.name}/smooth")
    output, producer = node.outputs[0], value.producer()
    output.name, output.shape, output.type = node.name, value.shape, value.type
    if producer is None:
        model.graph.insert_before(group[0].node, node)
    else:
        model.graph.insert_after(producer, node)
    for site in group:
        site.node.replace_input_with(0, output)


def _multiply(model: ir.Model, weight: ir.Value, nodes: list[ir.Node], divisors: Floats) -> None:
    tensor, name = weight.const_value, f"{weight.name}.smooth"
    if tensor is None:
        raise PreconditionError(f"the weight {weight.name} has no value")

    def scaled() -> ir.TensorProtocol:
        array = tensor.numpy()
        return ir.tensor((array.astype(np.float32) * divisors[:, None]).astype(array.dtype), name=name)

    lazy = ir.LazyTensor(scaled, dtype=tensor.dtype, shape=ir.Shape(tensor.numpy().shape), name=name)
    made = _weight(model, name, lazy)
    for node in nodes:
        node.replace_input_with(1, made)


def _weight(model: ir.Model, name: str, tensor: Any) -> ir.Value:
    made = ir.Value(name=name, shape=ir.Shape(tensor.shape), type=ir.TensorType(tensor.dtype), const_value=tensor)
    model.graph.register_initializer(made)
    return made


def _array(value: ir.Value) -> NDArray[Any]:
    if value.const_value is None:
        raise PreconditionError(f"the weight {value.name} has no value")
    return np.asarray(value.const_value.numpy())


def _rows(weight: NDArray[Any]) -> Floats:
    """The largest magnitude in each row, of [in, out]."""
    return np.asarray(np.maximum(weight.max(axis=1), -weight.min(axis=1)), np.float32)
