from __future__ import annotations

import dataclasses
import sys
from pathlib import Path

import numpy as np
import pytest
from edgeturbo.engines import select, tensorrt_rtx
from edgeturbo.engines.base import TensorSpec
from edgeturbo.engines.bundle import ONNX, Bundle, add_files
from edgeturbo.engines.errors import BundleError, DeviceError, InputError, MissingComponentError, UsageError
from edgeturbo.engines.manifest import EngineEntry
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


# Selection


def with_plan(
    bundle: Bundle, name: str = "engine.plan", *, backend: str = "tensorrt-rtx", onnx_sha256: str | None = None
) -> Bundle:
    (bundle.root / name).parent.mkdir(parents=True, exist_ok=True)
    (bundle.root / name).write_bytes(b"a plan")
    built_from = onnx_sha256 or bundle.manifest.files[ONNX].sha256
    return add_files(bundle, (name,), EngineEntry(backend, "1.7.1", ("ampere",), name, built_from, {}, (), ()))


@pytest.fixture
def no_gpu(monkeypatch):
    monkeypatch.setattr(tensorrt_rtx, "unusable_reason", lambda: "no NVIDIA driver")


@pytest.fixture
def a_gpu(monkeypatch):
    """The machine's answers are replaced, the rules that follow from them are not."""
    monkeypatch.setattr(tensorrt_rtx, "unusable_reason", lambda: None)
    monkeypatch.setattr(tensorrt_rtx, "plan_problem", lambda path: None if Path(path).is_file() else "no file")


@pytest.fixture
def no_onnxruntime(monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)


def test_auto_takes_onnxruntime_where_there_is_no_plan(make_bundle):
    choice = choose(make_bundle().root)
    assert (choice.backend, choice.plan) == ("onnxruntime", None)
    assert choice.reason == "onnxruntime on the CPU: the bundle has no tensorrt-rtx plan"
    engine = open_engine(choice)
    assert isinstance(engine, OnnxRuntimeEngine)
    with pytest.raises(UsageError, match="closed"):
        engine.run({})


@pytest.mark.usefixtures("no_gpu")
def test_auto_says_why_a_plan_was_not_taken(make_bundle):
    choice = choose(with_plan(make_bundle()).root)
    assert choice.backend == "onnxruntime"
    assert choice.reason == "onnxruntime on the CPU: tensorrt-rtx plan not usable here, no NVIDIA driver"


@pytest.mark.usefixtures("a_gpu")
def test_auto_leaves_a_plan_of_another_version(make_bundle, monkeypatch):
    monkeypatch.setattr(tensorrt_rtx, "plan_problem", lambda _: "it was built by 1.5")
    choice = choose(with_plan(make_bundle()).root)
    assert choice.reason == "onnxruntime on the CPU: tensorrt-rtx plan not usable here, it was built by 1.5"


@pytest.mark.usefixtures("a_gpu", "no_onnxruntime")
def test_auto_takes_the_plan_where_it_can_run(make_bundle):
    bundle = with_plan(with_plan(make_bundle(), "engines/rtx-1-ada/engine.plan"))
    choice = choose(bundle.root)
    assert (choice.backend, choice.plan) == ("tensorrt-rtx", bundle.root / "engine.plan")
    assert choice.reason == "tensorrt-rtx on the GPU, engine.plan: it can run here"
    assert isinstance(open_engine(choice), tensorrt_rtx.TensorRtRtxEngine)


@pytest.mark.usefixtures("no_gpu", "no_onnxruntime")
def test_auto_with_nothing_that_can_run_says_all_of_it(make_bundle):
    with pytest.raises(MissingComponentError) as caught:
        choose(with_plan(make_bundle()).root)
    assert "no NVIDIA driver" in caught.value.got
    assert "ONNX Runtime is not installed" in caught.value.got


@pytest.mark.parametrize("wanted", ["auto", "tensorrt-rtx"])
@pytest.mark.parametrize("name", ["engine.plan", "engines/rtx-1-ada/engine.plan"])
def test_a_named_plan_runs_or_an_error_says_why(make_bundle, wanted, name, monkeypatch):
    bundle = with_plan(make_bundle(), name)
    monkeypatch.setattr(tensorrt_rtx, "unusable_reason", lambda: "no NVIDIA driver")
    with pytest.raises(MissingComponentError, match="no NVIDIA driver"):
        choose(bundle.root / name, wanted)
    monkeypatch.setattr(tensorrt_rtx, "unusable_reason", lambda: None)
    assert choose(bundle.root / name, wanted).plan == bundle.root / name


@pytest.mark.usefixtures("no_gpu")
def test_the_engine_asked_for_is_never_replaced(make_bundle):
    with pytest.raises(MissingComponentError, match="no NVIDIA driver"):
        choose(with_plan(make_bundle()).root, "tensorrt-rtx")
    with pytest.raises(UsageError, match="has no tensorrt-rtx plan"):
        choose(make_bundle("other").root, "tensorrt-rtx")


@pytest.mark.usefixtures("a_gpu")
def test_naming_the_onnx_file_means_onnxruntime(make_bundle):
    bundle = with_plan(make_bundle())
    assert choose(bundle.root / ONNX).backend == "onnxruntime"
    assert choose(bundle.root, "onnxruntime").backend == "onnxruntime"


@pytest.mark.usefixtures("a_gpu")
def test_a_file_and_another_engine_contradict_each_other(make_bundle):
    bundle = with_plan(make_bundle())
    for name, wanted in (("engine.plan", "onnxruntime"), (ONNX, "tensorrt-rtx")):
        with pytest.raises(UsageError, match="was asked for"):
            choose(bundle.root / name, wanted)
        assert choose(bundle.root / name, "null").backend == "null"


@pytest.mark.usefixtures("a_gpu")
def test_a_plan_of_a_backend_that_is_not_here_is_refused(make_bundle):
    bundle = with_plan(make_bundle(), backend="tensorrt")
    with pytest.raises(MissingComponentError, match="not part of this version"):
        choose(bundle.root / "engine.plan")
    assert choose(bundle.root).backend == "onnxruntime"


@pytest.mark.parametrize("name", ["", "engine.plan"])
@pytest.mark.usefixtures("a_gpu")
def test_a_plan_built_from_another_onnx_file_is_refused(make_bundle, name):
    bundle = with_plan(make_bundle(), onnx_sha256="00")
    with pytest.raises(BundleError, match=r"another generator\.onnx"):
        choose(bundle.root / name)


@pytest.mark.usefixtures("a_gpu")
def test_what_will_be_loaded_is_verified(make_bundle):
    bundle = with_plan(make_bundle())
    choice, other = choose(bundle.root), choose(bundle.root, "onnxruntime")
    (bundle.root / "engine.plan").write_bytes(b"A plan")
    with pytest.raises(BundleError, match="changed after the export"):
        open_engine(choice)
    assert isinstance(open_engine(other), OnnxRuntimeEngine)
    (bundle.root / "engine.plan").write_bytes(b"a")
    with pytest.raises(BundleError, match="cut short"):
        choose(bundle.root)


@pytest.mark.usefixtures("a_gpu")
def test_a_plan_outside_the_bundle_is_refused(make_bundle, tmp_path):
    bundle = make_bundle()
    (tmp_path / "away.plan").write_bytes(b"a plan")
    outside = with_plan(bundle, "../away.plan")
    for path in (outside.root, tmp_path / "away.plan"):
        with pytest.raises(InputError):
            choose(path)


@pytest.mark.parametrize(
    ("wanted", "kind", "message"),
    [
        ("tensorrt", MissingComponentError, "not part of this version"),
        ("pytorch", UsageError, "checkpoint"),
        ("ONNXRuntime", UsageError, "no such engine"),
        ("", UsageError, "no such engine"),
    ],
)
def test_engines_that_are_not_here_are_refused_by_name(make_bundle, wanted, kind, message):
    with pytest.raises(kind, match=message) as caught:
        choose(make_bundle().root, wanted)
    assert caught.value.expected == ", ".join(select.WANTED)


def test_no_bundle_is_refused(tmp_path):
    (tmp_path / "engine.plan").touch()
    with pytest.raises(BundleError, match="beside or above"):
        choose(tmp_path / "engine.plan")
