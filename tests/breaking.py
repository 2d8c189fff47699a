"""A network that breaks on dark frames as FP16 generators do: one number is NaN, and the whole picture one colour."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
from edgeturbo.engines.bundle import ONNX, ONNX_DATA, Bundle, staging
from edgeturbo.engines.manifest import FrameLayout

# Frames whose mean is below this break it.
DARK = 64


def breaking(bundle: Bundle, *, value: str = "nan", below: int = DARK, layout: FrameLayout | None = None) -> Bundle:
    """A bundle beside ``bundle``, with its manifest: ``image = 255 - frame``, times ``nan`` or ``inf`` for dark frames.

    ``nan`` is 0 / 0 and ``inf`` 1 / 0, computed in the graph for each frame whose mean is not above ``below``.
    """
    out = bundle.root.with_name("breaking")
    with staging(out, force=False) as staged:
        _save(staged.root / ONNX, tuple(bundle.manifest.inputs[0].shape), value, below)
        staged.seal(dataclasses.replace(bundle.manifest, frame_layout=layout))
    return Bundle.open(out)


def bright(seed: int = 0, size: tuple[int, int] = (64, 48)) -> np.ndarray:
    return np.random.default_rng(seed).integers(100, 256, (size[1], size[0], 3), dtype=np.uint8)


def dark(seed: int = 0, size: tuple[int, int] = (64, 48)) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 40, (size[1], size[0], 3), dtype=np.uint8)


def _save(path: Path, picture: tuple[int, ...], value: str, below: int) -> None:
    import onnx
    from onnx import TensorProto as T
    from onnx import helper, numpy_helper

    numbers = {"white": 255, "threshold": below, "zero": 0, "one": 1, "high": 255}
    weights = [numpy_helper.from_array(np.float32(number), name) for name, number in numbers.items()]
    nodes = [
        # Not among the weights: shape inference reads it, and cannot read external data.
        helper.make_node("Constant", [], ["axes"], value_ints=[1, 2, 3]),
        helper.make_node("Cast", ["frame"], ["f"], to=T.FLOAT),
        helper.make_node("Sub", ["white", "f"], ["x"]),
        helper.make_node("ReduceMean", ["f", "axes"], ["mean"]),
        helper.make_node("Greater", ["mean", "threshold"], ["is_bright"]),
        helper.make_node("Cast", ["is_bright"], ["one_or_zero"], to=T.FLOAT),
        helper.make_node("Div", ["one_or_zero" if value == "nan" else "one", "one_or_zero"], ["factor"]),
        helper.make_node("Mul", ["x", "factor"], ["y"]),
        helper.make_node("Clip", ["y", "zero", "high"], ["z"]),
        helper.make_node("Cast", ["z"], ["image"], to=T.UINT8),
    ]
    tensors = [[helper.make_tensor_value_info(name, T.UINT8, picture)] for name in ("frame", "image")]
    graph = helper.make_graph(nodes, "breaking", *tensors, weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)
    onnx.checker.check_model(model)
    onnx.save_model(
        model, str(path), save_as_external_data=True, location=ONNX_DATA, size_threshold=0, convert_attribute=False
    )
