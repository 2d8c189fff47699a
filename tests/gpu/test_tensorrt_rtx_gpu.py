"""Builds a plan, runs it on this machine's GPU and compares it with numpy, bit for bit."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from edgeturbo.engines.base import TensorSpec
from edgeturbo.engines.build import RTX_TARGETS, BuildRequest, build_plan
from edgeturbo.engines.cuda import DeviceBuffer, PinnedArray, Stream, driver_problem
from edgeturbo.engines.errors import DeviceError
from edgeturbo.engines.tensorrt_rtx import TensorRtRtxEngine, device_refusal, unusable_reason
from numpy.typing import NDArray

onnx = pytest.importorskip("onnx", reason="the tests make their network with onnx")

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(unusable_reason() is not None, reason=driver_problem() or str(unusable_reason())),
]

Frame = NDArray[np.uint8]
# Multiples of a quarter whose products and sums FP16 holds exactly: the GPU must agree with numpy to the bit.
KERNEL = np.array([[0, 0.25, 0], [0.25, 0.5, 0.25], [0, 0.25, 0]], dtype=np.float16)
SHAPE = (1, 16, 24, 3)


@pytest.fixture(scope="module")
def plan(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """uint8 frame -> FP16 depthwise convolution -> clip, floor -> uint8 image, for every target there is."""
    from onnx import TensorProto, helper, numpy_helper

    folder = tmp_path_factory.mktemp("plan")
    nodes = [
        helper.make_node("Cast", ["frame"], ["half"], to=TensorProto.FLOAT16),
        helper.make_node("Transpose", ["half"], ["planes"], perm=[0, 3, 1, 2]),
        helper.make_node("Conv", ["planes", "kernel"], ["sums"], pads=[1] * 4, group=3),
        helper.make_node("Clip", ["sums", "low", "high"], ["clipped"]),
        helper.make_node("Floor", ["clipped"], ["whole"]),
        helper.make_node("Transpose", ["whole"], ["last"], perm=[0, 2, 3, 1]),
        helper.make_node("Cast", ["last"], ["image"], to=TensorProto.UINT8),
    ]
    constants = [
        numpy_helper.from_array(np.array(value, np.float16), name) for name, value in (("low", 0), ("high", 255))
    ]
    constants.append(numpy_helper.from_array(np.tile(KERNEL, (3, 1, 1, 1)), "kernel"))
    border = [helper.make_tensor_value_info(name, TensorProto.UINT8, SHAPE) for name in ("frame", "image")]
    graph = helper.make_graph(nodes, "generator", border[:1], border[1:], constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)
    onnx.save(model, str(folder / "generator.onnx"))
    request = BuildRequest("tensorrt-rtx", folder / "generator.onnx", folder / "engine.plan", RTX_TARGETS, "5e" * 32)
    entry = build_plan(request)
    refusal = device_refusal(request.plan)
    if refusal is not None:
        pytest.skip(f"TensorRT for RTX does not serve this GPU: {refusal}")
    assert "deserialised by the runtime" in entry.checked
    return request.plan


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


def test_runs_what_numpy_computes(plan: Path) -> None:
    with TensorRtRtxEngine(plan) as engine:
        assert engine.inputs == (TensorSpec("frame", "uint8", SHAPE),)
        assert engine.outputs == (TensorSpec("image", "uint8", SHAPE),)
        results = [(frame, engine.run({"frame": frame})["image"]) for frame in frames(4)]
    for frame, image in results:
        np.testing.assert_array_equal(image, expected(frame))


def test_writes_into_the_callers_array(plan: Path) -> None:
    (frame,) = frames(1)
    out = {"image": np.zeros(SHAPE, np.uint8)}
    with TensorRtRtxEngine(plan) as engine:
        assert engine.run({"frame": frame}, out)["image"] is out["image"]
    np.testing.assert_array_equal(out["image"], expected(frame))


def test_opens_again_after_closing(plan: Path) -> None:
    (frame,) = frames(1)
    engine = TensorRtRtxEngine(plan)
    for _ in range(3):
        with engine:
            np.testing.assert_array_equal(engine.run({"frame": frame})["image"], expected(frame))


def test_copies_to_the_gpu_and_back() -> None:
    source, target = PinnedArray((5, 7), "float32"), PinnedArray((5, 7), "float32")
    device, stream = DeviceBuffer(source.array.nbytes), Stream()
    np.copyto(source.array, np.arange(35, dtype=np.float32).reshape(5, 7))
    stream.upload(source, device)
    stream.download(device, target)
    stream.synchronize()
    np.testing.assert_array_equal(target.array, np.arange(35, dtype=np.float32).reshape(5, 7))
    for resource in (stream, device, source, target):
        resource.free()
        resource.free()


def test_says_how_much_memory_is_lacking() -> None:
    with pytest.raises(DeviceError, match="out of memory") as raised:
        DeviceBuffer(1 << 50)
    assert "1,125,899,906,842,624 bytes" in str(raised.value.expected)
    assert "bytes free of" in str(raised.value.got)
