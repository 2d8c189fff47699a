"""Explicit quantisation: QuantizeLinear and DequantizeLinear around products, as TensorRT reads them.

TensorRT has no other kind from 11 on (implicit INT8, by ranges beside the graph, went with weak typing), and the same
graph runs on ONNX Runtime and OpenVINO. Around each chosen product stand a pair for its activation, one scale for the
whole tensor, and a DequantizeLinear for its weight, a scale for each output channel. Weights are stored in eight bits.

A value that several products take has one pair: two would be computed twice, and could differ. Sums of residuals and
concatenations have none. Behind every one of them stands a normalisation, which computes in FP16, so that a pair there
would save no conversion and round the residual stream, which all later blocks add to; a concatenation's parts need no
common scale, because it is quantised as a whole where a convolution takes it.

In FP16 a quantised convolution's bias is a sum of its own behind it. ONNX Runtime (1.31, WeightBiasQuantization) would
else round it to multiples of the activation's scale times the weight's, a product that FP16 has few or no digits for:
pictures of 34 dB became 13 dB without a word. TensorRT adds a constant behind a convolution in its epilogue.
FP8 is for FP16 graphs: in FP32 ones ONNX Runtime 1.31 may make QLinearConv nodes of it, which it then refuses to load.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray
from onnx_ir.passes import InPlacePass, PassResult, PostconditionError, PreconditionError

from ..quantise.formats import Format, quantised, scales_of
from ..quantise.sites import Site, sites

Floats = NDArray[np.floating]


@dataclass
class Quantise(InPlacePass):
    """Quantises the products named in ``chosen``.

    ``thresholds``: for each of their activations, by name, the magnitude that becomes the format's largest; None
    leaves activations as they are, so that only the weights shrink. ``stored`` False keeps the weights as they are and
    quantises them when the graph runs: the same numbers, and a graph whose weights' file can stay the old one.

    Requires: a graph in FP16 or FP32, opset 19 or later (scales in FP16), not quantised yet; each name in ``chosen`` a
    product with a weight, each of their activations with a threshold. Ensures: they compute on dequantised values, and
    no value is quantised twice.
    """

    form: Format
    chosen: Collection[str]
    thresholds: Mapping[str, float] | None
    stored: bool = True
    _zeros: dict[tuple[int, ...], ir.Value] = field(default_factory=dict)

    def requires(self, model: ir.Model) -> None:
        if any(node.op_type == "QuantizeLinear" for node in model.graph):
            raise PreconditionError("the graph is quantised already")
        if model.opset_imports.get("", 0) < 19:
            raise PreconditionError("opset 19 is the first in which scales may be FP16")
        found = {site.name: site for site in sites(model.graph)}
        unknown = [name for name in self.chosen if name not in found]
        if unknown:
            raise PreconditionError(f"{len(unknown)} are no products with weights: {unknown[:10]}")
        taken = sorted({str(found[name].activation.name) for name in self.chosen})
        missing = [value for value in taken if self.thresholds is not None and not self.thresholds.get(value, 0.0) > 0]
        if missing:
            raise PreconditionError(f"{len(missing)} activations have no threshold above zero: {missing[:10]}")

    def call(self, model: ir.Model) -> PassResult:
        self._zeros.clear()
        pairs: dict[ir.Value, ir.Value] = {}
        quantised_here = [site for site in sites(model.graph) if site.name in self.chosen]
        for site in quantised_here:
            if site.weight not in pairs:
                pairs[site.weight] = self._weight(model, site)
            site.node.replace_input_with(1, pairs[site.weight])
            if self.thresholds is not None:
                if site.activation not in pairs:
                    pairs[site.activation] = self._activation(model, site)
                site.node.replace_input_with(0, pairs[site.activation])
        for site in quantised_here if self.thresholds is not None else ():
            _bias_apart(model, site)
        for value in pairs:
            if value.is_initializer() and not value.uses():
                del model.graph.initializers[str(value.name)]
        return PassResult(model, modified=bool(pairs))

    def ensures(self, model: ir.Model) -> None:
        for node in model.graph:
            if node.name in self.chosen:
                self._check(node)
        taken = [str(node.inputs[0].name) for node in model.graph
                 if node.op_type == "QuantizeLinear" and node.inputs[0] is not None]  # fmt: skip
        twice = sorted({name for name in taken if taken.count(name) > 1})
        if twice:
            raise PostconditionError(f"{len(twice)} values are quantised twice: {twice[:10]}")

    def _check(self, node: ir.Node) -> None:
        for index in (1,) if self.thresholds is None else (0, 1):
            value = node.inputs[index]
            producer = value.producer() if value is not None else None
            if producer is None or producer.op_type != "DequantizeLinear":
                raise PostconditionError(f"input {index} of {node.name} is not quantised")

    def _activation(self, model: ir.Model, site: Site) -> ir.Value:
        value, thresholds = site.activation, self.thresholds or {}
        scale = self._constant(
            model, f"{value.name}/scale", scales_of(np.asarray(thresholds[str(value.name)]), self.form, _float(value))
        )
        inner = _node(model, "QuantizeLinear", [value, scale, self._zero(model, ())], f"{value.name}/quantised", site)
        inner.dtype = self.form.onnx_type
        outer = _node(model, "DequantizeLinear", [inner, scale, self._zero(model, ())], f"{value.name}/rounded", site)
        outer.type = value.type
        return outer

    def _weight(self, model: ir.Model, site: Site) -> ir.Value:
        """Its scales are found now; its eight-bit values are made when the graph is saved, one weight at a time."""
        value, tensor = site.weight, site.weight.const_value
        if tensor is None:
            raise PreconditionError(f"the weight {value.name} has no value")
        axis, form, name = site.axis, self.form, f"{value.name}.{self.form.name}"
        scales = scales_of(_largest(tensor.numpy(), axis), form, _float(value))
        sizes = tensor.numpy().shape
        shape = [1] * len(sizes)
        shape[axis] = -1
        scale = self._constant(model, f"{name}.scale", scales)
        if self.stored:
            lazy = ir.LazyTensor(
                lambda: ir.tensor(quantised(tensor.numpy(), scales.reshape(shape), form), name=name),
                dtype=form.onnx_type, shape=ir.Shape(sizes), name=name,
            )  # fmt: skip
            inner = ir.Value(name=name, shape=value.shape, type=ir.TensorType(form.onnx_type), const_value=lazy)
            model.graph.register_initializer(inner)
        else:
            zero = self._zero(model, scales.shape)
            inner = _node(model, "QuantizeLinear", [value, scale, zero], f"{name}/quantised", site, axis=axis)
            inner.dtype = form.onnx_type
        outer = _node(model, "DequantizeLinear", [inner, scale], f"{name}/rounded", site, axis=axis)
        outer.type = value.type
        return outer

    def _zero(self, model: ir.Model, shape: tuple[int, ...]) -> ir.Value:
        """A zero point, which says to QuantizeLinear the type to round to (before opset 21 nothing else does)."""
        if shape not in self._zeros:
            name = "/".join([f"{self.form.name}_zero", *map(str, shape)])
            self._zeros[shape] = self._constant(model, name, np.zeros(shape, self.form.dtype))
        return self._zeros[shape]

    def _constant(self, model: ir.Model, name: str, array: NDArray[np.generic]) -> ir.Value:
        tensor = ir.tensor(array, name=name)
        value = ir.Value(name=name, shape=ir.Shape(array.shape), type=ir.TensorType(tensor.dtype), const_value=tensor)
        model.graph.register_initializer(value)
        return value


def _bias_apart(model: ir.Model, site: Site) -> None:
    """Make the bias of an FP16 convolution an Add behind it; the sum has the convolution's output's name."""
    node = site.node
    bias = node.inputs[2] if len(node.inputs) > 2 else None
    if not site.is_convolution or bias is None or bias.const_value is None or _float(bias) is not np.float16:
        return
    array, name = bias.const_value.numpy().reshape(1, -1, 1, 1), f"{bias.name}.apart"
    row = ir.Value(
        name=name, shape=ir.Shape(array.shape), type=ir.TensorType(ir.DataType.FLOAT16),
        const_value=ir.tensor(array, name=name),
    )  # fmt: skip
    model.graph.register_initializer(row)
    result = node.outputs[0]
    add = ir.node("Add", [result, row], name=f"{node.name}/bias")
    output = add.outputs[0]
    output.shape, output.type = result.shape, result.type
    ir.convenience.replace_all_uses_with(result, output, replace_graph_outputs=True)
    add.replace_input_with(0, result)
    output.name, result.name = result.name, f"{node.name}/product"
    node.resize_inputs(2)
    model.graph.insert_after(node, add)
    if not bias.uses():
        del model.graph.initializers[str(bias.name)]


def _largest(weight: Floats, axis: int) -> Floats:
    """The largest magnitude of each output channel."""
    wide = weight.astype(np.float32)  # numpy compares FP16 by way of FP32, one number at a time
    others = tuple(index for index in range(weight.ndim) if index != axis)
    return np.asarray(np.maximum(wide.max(axis=others), -wide.min(axis=others)))


def _float(value: ir.Value) -> type[np.floating]:
    return np.float16 if value.dtype == ir.DataType.FLOAT16 else np.float32


def _node(
    model: ir.Model, operator: str, inputs: list[ir.Value], name: str, site: Site, axis: int | None = None
) -> ir.Value:
    """A node of ``operator`` with the first input's shape, behind that input's producer; returns its output."""
    attributes = {} if axis is None else {"axis": axis}
    made = ir.node(operator, inputs, attributes=attributes, name=name)
    output, producer = made.outputs[0], inputs[0].producer()
    output.name, output.shape = name, inputs[0].shape
    if producer is None:
        model.graph.insert_before(site.node, made)
    else:
        model.graph.insert_after(producer, made)
    return output
