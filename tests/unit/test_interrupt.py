"""A run that would take long is broken off from another thread, and the engine goes on."""

from __future__ import annotations

import threading
import time

import numpy as np
import pytest
from edgeturbo.engines.errors import DeviceError
from edgeturbo.engines.onnxruntime import OnnxRuntimeEngine
from edgeturbo.engines.openvino import OpenVinoEngine

SIDE, PRODUCTS = 1024, 50


@pytest.fixture(scope="module")
def slow(tmp_path_factory):
    """Products of large matrices, one after another: seconds on any CPU."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    path = tmp_path_factory.mktemp("slow") / "slow.onnx"
    turn = np.linalg.qr(np.random.default_rng(0).normal(size=(SIDE, SIDE)))[0].astype(np.float32)
    nodes = [helper.make_node("Cast", ["frame"], ["x0"], to=TensorProto.FLOAT)]
    nodes += [helper.make_node("MatMul", [f"x{i}", "turn"], [f"x{i + 1}"]) for i in range(PRODUCTS)]
    nodes.append(helper.make_node("Cast", [f"x{PRODUCTS}"], ["image"], to=TensorProto.UINT8))
    border = [helper.make_tensor_value_info(name, TensorProto.UINT8, (SIDE, SIDE)) for name in ("frame", "image")]
    graph = helper.make_graph(nodes, "slow", border[:1], border[1:], [numpy_helper.from_array(turn, "turn")])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9), str(path))
    return path


@pytest.mark.parametrize("kind", [OnnxRuntimeEngine, OpenVinoEngine])
def test_a_run_in_progress_is_broken_off(slow, kind):
    feeds = {"frame": np.ones((SIDE, SIDE), np.uint8)}
    with kind(slow) as engine:
        started = time.monotonic()
        engine.run(feeds)
        whole = time.monotonic() - started
        threading.Timer(whole * 0.2, engine.interrupt).start()
        started = time.monotonic()
        with pytest.raises(DeviceError):
            engine.run(feeds)
        assert time.monotonic() - started < whole * 5  # a hang limit
        engine.interrupt()
        assert engine.run(feeds)["image"].shape == (SIDE, SIDE)


def test_interrupting_a_closed_engine_does_nothing(slow):
    OnnxRuntimeEngine(slow).interrupt()
