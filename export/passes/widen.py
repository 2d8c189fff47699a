"""Single nodes of an FP16 graph taken back to FP32: islands no larger than they must be."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from .edit import forget_unused, free_name
from .half import typed_inputs

_HALF, _FLOAT = ir.DataType.FLOAT16, ir.DataType.FLOAT


class Widening:
    """Makes nodes of ``model`` compute in FP32, one after the other; casts stand at their borders, once per value.

    What leaves the island passes a multiplication by 1 in front of its cast: a place where a power of two can go, if
    what takes it allows one (``drop_idle`` removes those that stayed 1). ``originals``: see ``Rescale``.
    ``copies``: FP16 tensors that repeat another, by name: what the casts at the borders make.
    """

    def __init__(self, model: ir.Model, originals: dict[str, NDArray[np.float32]]) -> None:
        self._model = model
        self._originals = originals
        self._up: dict[ir.Value, ir.Value] = {}
        self._weights: dict[ir.Value, ir.Value] = {}
        self.copies: dict[str, str] = {}
        self.borders: list[ir.Node] = []

    def widen(self, node: ir.Node) -> None:
        """Let ``node`` compute in FP32."""
        for index in typed_inputs(node):
            value = node.inputs[index]
            if value is not None and value.dtype == _HALF:
                wide = self._wide_weight(value) if value.is_initializer() else self._wide(node, value)
                node.replace_input_with(index, wide)
        for output in node.outputs:
            if output.dtype == _HALF:
                output.dtype = _FLOAT
                self._border(node, output)

    def kept(self) -> list[ir.Node]:
        """The multiplications that a power of two was put into."""
        return [node for node in self.borders if node.graph is not None and _factor(node) != 1.0]

    def drop_idle(self) -> None:
        """Remove the multiplications that nothing was put into."""
        for node in self.borders:
            if node.graph is not None and _factor(node) == 1.0 and (source := node.inputs[0]) is not None:
                ir.convenience.replace_all_uses_with(node.outputs[0], source)
                self._model.graph.remove(node, safe=True)
        forget_unused(self._model)

    def _wide_weight(self, weight: ir.Value) -> ir.Value:
        if weight not in self._weights:
            name = f"{weight.name}.fp32"
            tensor, original = weight.const_value, self._originals.get(str(weight.name))
            if tensor is None:
                raise ValueError(f"weight {weight.name} has no value")
            array = tensor.numpy().astype(np.float32) if original is None else original
            twin = ir.Value(
                name=name, shape=weight.shape, type=ir.TensorType(_FLOAT), const_value=ir.tensor(array, name=name)
            )
            self._model.graph.register_initializer(twin)
            self._weights[weight] = twin
        return self._weights[weight]

    def _wide(self, node: ir.Node, value: ir.Value) -> ir.Value:
        """``value`` in FP32: what a border narrowed, as it was before; anything else by a cast."""
        maker = value.producer()
        if maker is not None and maker.op_type == "Cast" and (source := maker.inputs[0]) is not None:
            border = source.producer()
            if border in self.borders and border is not None and border.inputs[0] is not None:
                return border.inputs[0]
            if source.dtype == _FLOAT:
                return source
        if value not in self._up:
            cast = ir.node("Cast", [value], attributes={"to": int(_FLOAT)}, name=self._free(f"{value.name}/to_fp32"))
            cast.outputs[0].name, cast.outputs[0].dtype, cast.outputs[0].shape = cast.name, _FLOAT, value.shape
            if maker is None:
                self._model.graph.insert_before(node, cast)
            else:
                self._model.graph.insert_after(maker, cast)
            self._up[value] = cast.outputs[0]
        return self._up[value]

    def _border(self, node: ir.Node, output: ir.Value) -> None:
        """Between an island's output and those who took it in FP16: times 1, and a cast."""
        uses = [use for use in output.uses() if not _is_cast(self._model, use[0], output)]
        if not uses:
            return
        name = self._free(f"{output.name}/scaled")
        one = ir.Value(name=f"{name}:1", shape=ir.Shape([]), type=ir.TensorType(_FLOAT),
                       const_value=ir.tensor(np.array(1.0, np.float32), name=f"{name}:1"))  # fmt: skip
        self._model.graph.register_initializer(one)
        product = ir.node("Mul", [output, one], name=name)
        narrowed = ir.node("Cast", [product.outputs[0]], attributes={"to": int(_HALF)},
                           name=self._free(f"{output.name}/to_fp16"))  # fmt: skip
        for made, kind in ((product, _FLOAT), (narrowed, _HALF)):
            made.outputs[0].name, made.outputs[0].dtype, made.outputs[0].shape = made.name, kind, output.shape
        self._model.graph.insert_after(node, [product, narrowed])
        for user, index in uses:
            user.replace_input_with(index, narrowed.outputs[0])
        self.borders.append(product)
        self.copies[str(narrowed.name)] = str(output.name)

    def _free(self, name: str) -> str:
        return free_name({node.name for node in self._model.graph}, name)


def _factor(border: ir.Node) -> float:
    factor = border.inputs[1]
    if factor is None or factor.const_value is None:
        raise ValueError(f"{border.name} has no factor")
    return float(factor.const_value.numpy().item())


def _is_cast(model: ir.Model, user: ir.Node, output: ir.Value) -> bool:
    """Whether ``user`` is a Cast, which takes FP32 as well; one to FP32 has nothing left to do, and goes."""
    if user.op_type != "Cast":
        return False
    if user.outputs[0].dtype == _FLOAT:
        ir.convenience.replace_all_uses_with(user.outputs[0], output)
        model.graph.remove(user, safe=True)
    return True
