"""A small generator and its plans, for the tests beside this file."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from edgeturbo.engines import tensorrt, tensorrt_rtx
from edgeturbo.engines._plan_engine import PlanEngine, PlanOptions
from edgeturbo.engines.build import RTX_TARGETS, BuildRequest, build_plan, resolve_targets
from numpy.typing import NDArray

Frame = NDArray[np.uint8]
# Multiples of a quarter whose products and sums FP16 holds exactly: the GPU must agree with numpy to the bit.
KERNEL = np.array([[0, 0.25, 0], [0.25, 0.5, 0.25], [0, 0.25, 0]], dtype=np.float16)
SHAPE = (1, 160, 240, 3)
MODULES = {"tensorrt": tensorrt, "tensorrt-rtx": tensorrt_rtx}
KINDS: dict[str, Callable[..., PlanEngine]] = {
    "tensorrt": tensorrt.TensorRtEngine,
    "tensorrt-rtx": tensorrt_rtx.TensorRtRtxEngine,
}


@dataclass(frozen=True)
class Plan:
    backend: str
    path: Path

    def engine(self, **options: object) -> PlanEngine:
        return KINDS[self.backend](self.path, PlanOptions(**options))  # type: ignore[arg-type]


def expected(frame: Frame) -> Frame:
    padded = np.pad(frame.astype(np.float32), ((0, 0), (1, 1), (1, 1), (0, 0)))
    height, width = SHAPE[1:3]
    sums = sum(
        KERNEL[row, column].astype(np.float32) * padded[:, row : row + height, column : column + width]
        for row in range(3)
        for column in range(3)
    )
    return np.floor(np.clip(sums, 0, 255)).astype(np.uint8)


def frames(count: int) -> list[Frame]:
    random = np.random.default_rng(0)
    return [random.integers(0, 256, SHAPE, dtype=np.uint8) for _ in range(count)]


def build(backend: str, folder: Path) -> Plan:
    """uint8 frame -> FP16 depthwise convolution -> clip, floor -> uint8 image. Skips where it cannot run."""
    reason = MODULES[backend].unusable_reason()
    if reason is not None:
        pytest.skip(f"{backend}: {reason}")
    write_onnx(folder / "generator.onnx")
    targets = resolve_targets(backend, RTX_TARGETS if backend == "tensorrt-rtx" else ())
    request = BuildRequest(backend, folder / "generator.onnx", folder / "engine.plan", targets, "5e" * 32)
    entry = build_plan(request)
    if backend == "tensorrt-rtx" and (refusal := tensorrt_rtx.device_refusal(request.plan)) is not None:
        pytest.skip(f"TensorRT for RTX does not serve this GPU: {refusal}")
    assert "deserialised by the runtime" in entry.checked
    return Plan(backend, request.plan)


def write_onnx(path: Path) -> None:
    onnx = pytest.importorskip("onnx", reason="the tests make their network with onnx")
    helper, proto = onnx.helper, onnx.TensorProto
    nodes = [
        helper.make_node("Cast", ["frame"], ["half"], to=proto.FLOAT16),
        helper.make_node("Transpose", ["half"], ["planes"], perm=[0, 3, 1, 2]),
        helper.make_node("Conv", ["planes", "kernel"], ["sums"], pads=[1] * 4, group=3),
        helper.make_node("Clip", ["sums", "low", "high"], ["clipped"]),
        helper.make_node("Floor", ["clipped"], ["whole"]),
        helper.make_node("Transpose", ["whole"], ["last"], perm=[0, 2, 3, 1]),
        helper.make_node("Cast", ["last"], ["image"], to=proto.UINT8),
    ]
    values = {"low": np.float16(0), "high": np.float16(255), "kernel": np.tile(KERNEL, (3, 1, 1, 1))}
    constants = [onnx.numpy_helper.from_array(np.asarray(value), name) for name, value in values.items()]
    border = [helper.make_tensor_value_info(name, proto.UINT8, SHAPE) for name in ("frame", "image")]
    graph = helper.make_graph(nodes, "generator", border[:1], border[1:], constants)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9), str(path))
