from __future__ import annotations

import dataclasses
import sys

import numpy as np
import pytest
from edgeturbo.engines.base import TensorSpec
from edgeturbo.engines.bundle import ONNX
from edgeturbo.engines.errors import BundleError, DeviceError, MissingComponentError, UsageError
from edgeturbo.engines.null import NullEngine
from edgeturbo.engines.onnxruntime import LEAN, OnnxRuntimeEngine, OnnxRuntimeOptions
from edgeturbo.engines.select import choose, open_engine

FRAME = TensorSpec("frame", "uint8", (1, 48, 64, 3))
IMAGE = TensorSpec("image", "uint8", (1, 48, 64, 3))


@pytest.fixture
def engine(make_bundle):
    with OnnxRuntimeEngine(make_bundle().onnx()) as opened:
        yield opened


@pytest.fixture
def feeds(make_frame):
    return {"frame": make_frame()[None]}


# The contract, by the two backends that run anywhere


def test_onnxruntime_tells_its_tensors_and_runs(engine, feeds):
    assert (engine.inputs, engine.outputs) == ((FRAME,), (IMAGE,))
    results = engine.run(feeds)
    assert set(results) == {"image"}
    np.testing.assert_array_equal(results["image"], 255 - feeds["frame"])


@pytest.mark.parametrize(
    "options",
    [None, OnnxRuntimeOptions(threads=1), OnnxRuntimeOptions(arena=False), OnnxRuntimeOptions(optimise=False), LEAN],
    ids=str,
)
def test_every_option_gives_the_same_picture(make_bundle, feeds, options):
    with OnnxRuntimeEngine(str(make_bundle().onnx()), options=options) as engine:
        np.testing.assert_array_equal(engine.run(feeds)["image"], 255 - feeds["frame"])


def test_options_reach_the_session(make_bundle):
    from onnxruntime import GraphOptimizationLevel

    with OnnxRuntimeEngine(make_bundle().onnx(), options=dataclasses.replace(LEAN, threads=2)) as engine:
        used = engine._session.get_session_options()
    assert (used.intra_op_num_threads, used.enable_cpu_mem_arena) == (2, False)
    assert used.get_session_config_entry("session.disable_prepacking") == "1"
    assert used.graph_optimization_level == GraphOptimizationLevel.ORT_ENABLE_ALL
    with OnnxRuntimeEngine(make_bundle(force=True).onnx(), options=OnnxRuntimeOptions(optimise=False)) as engine:
        used = engine._session.get_session_options()
    assert used.graph_optimization_level == GraphOptimizationLevel.ORT_DISABLE_ALL
    with OnnxRuntimeEngine(make_bundle(force=True).onnx(), threads=1) as engine:
        used = engine._session.get_session_options()
    assert (used.intra_op_num_threads, used.enable_cpu_mem_arena) == (1, True)


@pytest.mark.parametrize("kind", ["onnxruntime", "null"])
def test_results_are_the_callers(make_bundle, feeds, kind):
    with open_engine(choose(make_bundle().root, kind)) as engine:
        first = engine.run(feeds)["image"]
        before = first.copy()
        second = engine.run({"frame": 255 - feeds["frame"]})["image"]
        np.testing.assert_array_equal(first, before)
        np.testing.assert_array_equal(second, 255 - before)
        first[:] = 7
        assert not (feeds["frame"] == 7).all()
    np.testing.assert_array_equal(second, 255 - before)  # also after the engine is gone


@pytest.mark.parametrize("kind", ["onnxruntime", "null"])
def test_out_is_written_to_and_returned(make_bundle, feeds, kind):
    out = {"image": np.full((1, 48, 64, 3), 9, np.uint8)}
    with open_engine(choose(make_bundle().root, kind)) as engine:
        expected = engine.run(feeds)["image"]
        assert engine.run(feeds, out=out)["image"] is out["image"]
    np.testing.assert_array_equal(out["image"], expected)


def test_a_closed_engine_refuses_and_can_be_opened_again(make_bundle, feeds):
    engine = OnnxRuntimeEngine(make_bundle().onnx())
    with pytest.raises(UsageError, match="is closed"):
        engine.run(feeds)
    with engine:
        engine.open()
        engine.run(feeds)
    engine.close()
    with pytest.raises(UsageError, match="is closed"):
        engine.run(feeds)
    assert engine.inputs == ()
    with engine:
        np.testing.assert_array_equal(engine.run(feeds)["image"], 255 - feeds["frame"])


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({}, "inputs do not match"),
        ({"picture": np.zeros((1, 48, 64, 3), np.uint8)}, "inputs do not match"),
        ({"frame": np.zeros((1, 48, 64, 3), np.float32)}, "does not fit"),
        ({"frame": np.zeros((48, 64, 3), np.uint8)}, "does not fit"),
        ({"frame": np.zeros((1, 64, 48, 3), np.uint8)}, "does not fit"),
        ({"frame": np.zeros((1, 48, 64, 6), np.uint8)[..., ::2]}, "not C-contiguous"),
        ({"frame": np.zeros((1, 48, 64, 3), np.uint8), "noise": np.zeros(1)}, "inputs do not match"),
    ],
    ids=["nothing", "name", "dtype", "dimensions", "turned", "strided", "too many"],
)
def test_feeds_that_do_not_fit_are_refused(engine, wrong, message):
    with pytest.raises(UsageError, match=message):
        engine.run(wrong)


def test_out_that_does_not_fit_is_refused(engine, feeds):
    for out in ({}, {"image": np.zeros((1, 48, 64, 3), np.float32)}):
        with pytest.raises(UsageError, match="output buffer"):
            engine.run(feeds, out=out)


def test_the_null_engine_answers_zeros_where_shapes_differ(feeds):
    small = TensorSpec("image", "uint8", (1, 8, 8, 3))
    with NullEngine((FRAME,), (small, dataclasses.replace(IMAGE, name="same"))) as engine:
        results = engine.run(feeds)
    assert not results["image"].any()
    assert results["image"].shape == (1, 8, 8, 3)
    np.testing.assert_array_equal(results["same"], feeds["frame"])


# Files that ONNX Runtime cannot run


@pytest.mark.parametrize("damage", ["missing", "empty", "garbage", "truncated", "no data"])
def test_a_file_that_cannot_be_loaded_is_a_bundle_error(make_bundle, damage):
    path = make_bundle().root / ONNX
    data = path.read_bytes()
    if damage == "no data":
        path.with_name("generator.onnx.data").unlink()
    elif damage == "missing":
        path.unlink()
    else:
        path.write_bytes({"empty": b"", "garbage": b"\xff" * 99, "truncated": data[: len(data) // 2]}[damage])
    with pytest.raises(BundleError, match="cannot load"):
        OnnxRuntimeEngine(path).open()


@pytest.mark.parametrize("shape", [("N", 48, 64, 3), (1, "H", 64, 3)], ids=str)
def test_shapes_that_are_not_static_are_refused(save_graph, tmp_path, shape):
    save_graph(tmp_path / ONNX, shape)
    with pytest.raises(BundleError, match="no static shape"):
        OnnxRuntimeEngine(tmp_path / ONNX).open()


def test_a_type_that_no_engine_takes_is_refused(save_graph, tmp_path):
    save_graph(tmp_path / ONNX, (1, 8, 8, 3), bits=16)
    with pytest.raises(BundleError, match="tensor\\(uint16\\)"):
        OnnxRuntimeEngine(tmp_path / ONNX).open()


def test_a_run_that_fails_is_a_device_error(tmp_path):
    import onnx
    from onnx import TensorProto, helper

    graph = helper.make_graph(
        [helper.make_node("Gather", ["table", "index"], ["y"])],  # the index comes with the data
        "gather",
        [helper.make_tensor_value_info("index", TensorProto.INT64, (1,))],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, (1,))],
        [helper.make_tensor("table", TensorProto.FLOAT, (2,), [1.0, 2.0])],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9), tmp_path / "g.onnx")
    with OnnxRuntimeEngine(tmp_path / "g.onnx") as engine:
        assert engine.run({"index": np.array([1])})["y"].tolist() == [2.0]
        with pytest.raises(DeviceError, match="failed to run"):
            engine.run({"index": np.array([5])})


def test_without_the_package_the_error_names_the_extra(make_bundle, monkeypatch):
    bundle = make_bundle()
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    for attempt in (OnnxRuntimeEngine(bundle.onnx()).open, lambda: choose(bundle.root, "onnxruntime")):
        with pytest.raises(MissingComponentError) as caught:
            attempt()
        assert caught.value.hint == 'pip install "edgeturbo[cpu]"'
