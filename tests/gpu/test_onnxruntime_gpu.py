"""ONNX Runtime's CUDA provider on this machine's GPU, against numpy, bit for bit. Not run where it was written."""

from __future__ import annotations

import threading
from pathlib import Path

import numpy as np
import pytest
from edgeturbo.engines.base import TensorSpec
from edgeturbo.engines.errors import BundleError, DeviceError
from edgeturbo.engines.onnxruntime import OnnxRuntimeEngine, OnnxRuntimeOptions, cuda_problem

onnx = pytest.importorskip("onnx", reason="the tests make their network with onnx")

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(cuda_problem() is not None, reason=str(cuda_problem())),
]

SHAPE = (1, 16, 24, 3)
GRAPH = OnnxRuntimeOptions(device="cuda")
NO_GRAPH = OnnxRuntimeOptions(device="cuda", cuda_graph=False)


def save(path: Path, nodes, weights=(), dtype: int | None = None, shape=SHAPE) -> Path:
    from onnx import TensorProto, helper, numpy_helper

    kind = dtype or TensorProto.UINT8
    border = [helper.make_tensor_value_info(name, kind, shape) for name in ("frame", "image")]
    tensors = [numpy_helper.from_array(value, name) for name, value in weights]
    graph = helper.make_graph(nodes, "generator", border[:1], border[1:], tensors)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9), str(path))
    return path


@pytest.fixture(scope="module")
def generator(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``255 - frame``, by a 1x1 convolution in FP16, which holds every whole number up to 2,048."""
    from onnx import TensorProto, helper

    node = helper.make_node
    nodes = [
        node("Cast", ["frame"], ["half"], to=TensorProto.FLOAT16),
        node("Transpose", ["half"], ["planes"], perm=[0, 3, 1, 2]),
        node("Conv", ["planes", "kernel", "white"], ["inverse"]),
        node("Transpose", ["inverse"], ["last"], perm=[0, 2, 3, 1]),
        node("Cast", ["last"], ["image"], to=TensorProto.UINT8),
    ]
    kernel = -np.eye(3, dtype=np.float16).reshape(3, 3, 1, 1)
    weights = [("kernel", kernel), ("white", np.full(3, 255, np.float16))]
    return save(tmp_path_factory.mktemp("generator") / "generator.onnx", nodes, weights)


def frames(count: int) -> list[np.ndarray]:
    random = np.random.default_rng(0)
    return [random.integers(0, 256, SHAPE, dtype=np.uint8) for _ in range(count)]


@pytest.mark.parametrize("options", [GRAPH, NO_GRAPH], ids=["graph", "no graph"])
def test_runs_what_numpy_computes_frame_after_frame(generator, options):
    with OnnxRuntimeEngine(generator, options=options) as engine:
        assert engine.backend == "onnxruntime-cuda"
        assert engine.inputs == (TensorSpec("frame", "uint8", SHAPE),)
        assert engine.outputs == (TensorSpec("image", "uint8", SHAPE),)
        results = [(frame, engine.run({"frame": frame})["image"]) for frame in frames(5)]
        out = {"image": np.zeros(SHAPE, np.uint8)}
        assert engine.run({"frame": results[0][0]}, out)["image"] is out["image"]
    for frame, image in [*results, (results[0][0], out["image"])]:
        np.testing.assert_array_equal(image, 255 - frame)


@pytest.mark.parametrize("options", [GRAPH, NO_GRAPH], ids=["graph", "no graph"])
def test_opens_again_after_closing(generator, options):
    (frame,) = frames(1)
    engine = OnnxRuntimeEngine(generator, options=options)
    for _ in range(3):
        with engine:
            np.testing.assert_array_equal(engine.run({"frame": frame})["image"], 255 - frame)


def test_runs_in_a_thread_that_did_not_open_it(generator):
    """A captured graph belongs to the thread that captured it."""
    results: list[np.ndarray] = []
    with OnnxRuntimeEngine(generator, options=GRAPH) as engine:
        thread = threading.Thread(
            target=lambda: results.extend(engine.run({"frame": frame})["image"] for frame in frames(3))
        )
        thread.start()
        thread.join()
    for frame, image in zip(frames(3), results, strict=True):
        np.testing.assert_array_equal(image, 255 - frame)


def test_memory_that_runs_out_is_told_and_the_gpu_stays_usable(generator, tmp_path):
    from onnx import TensorProto, helper

    nodes = [
        helper.make_node("ConstantOfShape", ["shape"], ["huge"]),
        helper.make_node("ReduceMax", ["huge"], ["most"], keepdims=0),
        helper.make_node("Add", ["most", "frame"], ["image"]),
    ]
    weights = [("shape", np.array([1 << 30, 1 << 28]))]  # 2**60 bytes: more than can be addressed
    path = save(tmp_path / "huge.onnx", nodes, weights, TensorProto.FLOAT, (1,))
    with pytest.raises(DeviceError, match="out of memory") as caught, OnnxRuntimeEngine(path, options=NO_GRAPH) as huge:
        huge.run({"frame": np.zeros(1, np.float32)})
    assert "bytes" in str(caught.value.expected)
    with OnnxRuntimeEngine(generator, options=GRAPH) as engine:
        (frame,) = frames(1)
        np.testing.assert_array_equal(engine.run({"frame": frame})["image"], 255 - frame)


def test_a_node_that_cuda_has_not_is_refused(tmp_path):
    from onnx import TensorProto, helper

    # No determinant among the CUDA provider's kernels (ONNX Runtime's OperatorKernels.md).
    nodes = [helper.make_node("Det", ["frame"], ["one"]), helper.make_node("Add", ["one", "frame"], ["image"])]
    path = save(tmp_path / "det.onnx", nodes, (), TensorProto.FLOAT, (2, 2))
    with pytest.raises(BundleError, match="would leave some nodes to the CPU"):
        OnnxRuntimeEngine(path, options=NO_GRAPH).open()
