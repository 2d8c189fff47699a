"""A small network that shows in which precision it was computed, and what the tests of OpenVINO do with it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
from edgeturbo.engines import _build_openvino
from edgeturbo.engines._build_job import Job, Progress
from edgeturbo.engines.errors import MissingComponentError
from edgeturbo.engines.openvino import DEFAULT_PRECISION, PRECISIONS, OpenVinoEngine, OpenVinoOptions
from onnx import TensorProto, helper, numpy_helper

SHAPE = (1, 48, 64, 3)


def save(path: Path, nodes, weights=(), kinds=(TensorProto.UINT8,) * 2, shape=SHAPE) -> Path:
    border = [helper.make_tensor_value_info(n, k, shape) for n, k in zip(("frame", "image"), kinds, strict=True)]
    tensors = [numpy_helper.from_array(value, name) for name, value in weights]
    graph = helper.make_graph(nodes, "graph", border[:1], border[1:], tensors)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9), path)
    return path


def network(folder: Path, seed: int = 0, name: str = "generator.onnx") -> Path:
    """Two convolutions in FP16 with weights by ``seed``: precisions differ in it, and show."""
    random = np.random.default_rng(seed)
    kernels = [random.standard_normal(shape).astype(np.float16) / 4 for shape in ((16, 3, 3, 3), (3, 16, 3, 3))]
    weights = [("scale", np.float16(1 / 255)), ("k0", kernels[0]), ("k1", kernels[1]), ("white", np.float16(255))]
    node = helper.make_node
    nodes = [
        node("Cast", ["frame"], ["half"], to=TensorProto.FLOAT16),
        node("Mul", ["half", "scale"], ["unit"]),
        node("Transpose", ["unit"], ["planes"], perm=[0, 3, 1, 2]),
        node("Conv", ["planes", "k0"], ["c0"], pads=[1] * 4),
        node("Sigmoid", ["c0"], ["s0"]),
        node("Conv", ["s0", "k1"], ["c1"], pads=[1] * 4),
        node("Sigmoid", ["c1"], ["s1"]),
        node("Mul", ["s1", "white"], ["levels"]),
        node("Transpose", ["levels"], ["last"], perm=[0, 2, 3, 1]),
        node("Cast", ["last"], ["image"], to=TensorProto.UINT8),
    ]
    return save(folder / name, nodes, weights)


def run(path: Path, feeds, precision: str = DEFAULT_PRECISION):
    with OpenVinoEngine(path, OpenVinoOptions(precision=precision)) as engine:
        return engine.run(feeds)["image"]


def usable(path: Path) -> tuple[str, ...]:
    """The precisions that this CPU has."""
    found = []
    for precision in PRECISIONS:
        try:
            with OpenVinoEngine(path, OpenVinoOptions(precision=precision)):
                found.append(precision)
        except MissingComponentError:
            continue
    return tuple(found)


def build(onnx_path: Path, plan: Path, precision: str = DEFAULT_PRECISION) -> dict:
    return _build_openvino.build(Job("openvino", onnx_path, plan, ("cpu",), precision=precision), Progress())


def python(code: str, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-W", "error", "-c", code, *arguments],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
    )
