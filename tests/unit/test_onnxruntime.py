"""What is ONNX Runtime's alone: tensors at fixed addresses, memory that runs out, and CUDA where there is none."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from edgeturbo.engines import _ort_cuda
from edgeturbo.engines._ort_errors import cuda_error
from edgeturbo.engines.errors import BundleError, DeviceError, EdgeTurboError, MissingComponentError, UsageError
from edgeturbo.engines.onnxruntime import OnnxRuntimeEngine, OnnxRuntimeOptions, cuda_problem
from onnx import TensorProto, helper, numpy_helper
from unit.fake_driver import compile_driver

BOUND = OnnxRuntimeOptions(binding=True)
ON_CUDA = OnnxRuntimeOptions(device="cuda")

without_cuda = pytest.mark.skipif(cuda_problem() is None, reason="ONNX Runtime can use CUDA here")


def save(path: Path, nodes, weights=()) -> Path:
    """A graph from ``x`` to ``y``, both of one float."""
    border = [helper.make_tensor_value_info(name, TensorProto.FLOAT, (1,)) for name in "xy"]
    tensors = [numpy_helper.from_array(value, name) for name, value in weights]
    graph = helper.make_graph(nodes, "graph", border[:1], border[1:], tensors)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9), path)
    return path


# Tensors at fixed addresses, on the CPU as on CUDA


def test_a_binding_follows_its_inputs_and_gives_results_away(make_bundle, make_frame):
    frames = [make_frame(seed=seed)[None] for seed in range(3)]
    with OnnxRuntimeEngine(make_bundle().onnx(), options=BOUND) as engine:
        assert engine._binding is not None
        images = [engine.run({"frame": frame})["image"] for frame in frames]
        images[0] += 1  # ours: nothing of the engine's changes
        again = engine.run({"frame": frames[0]})["image"]
    np.testing.assert_array_equal(again, 255 - frames[0])
    for frame, image in zip(frames[1:], images[1:], strict=True):
        np.testing.assert_array_equal(image, 255 - frame)


def test_a_binding_has_one_address_for_each_tensor(make_bundle, make_frame):
    with OnnxRuntimeEngine(make_bundle().onnx(), options=BOUND) as engine:
        values = [*engine._binding._inputs.values(), *engine._binding._outputs.values()]
        before = [value.data_ptr() for value in values]
        for seed in range(3):
            engine.run({"frame": make_frame(seed=seed)[None]})
        assert [value.data_ptr() for value in values] == before


def test_a_binding_writes_into_the_callers_array(make_bundle, make_frame):
    frame = make_frame()[None]
    frame.flags.writeable = False
    out = {"image": np.zeros_like(frame)}
    with OnnxRuntimeEngine(make_bundle().onnx(), options=BOUND) as engine:
        assert engine.run({"frame": frame}, out)["image"] is out["image"]
    np.testing.assert_array_equal(out["image"], 255 - frame)


def test_a_binding_takes_every_input(make_bundle, make_frame):
    bundle = make_bundle(noises=("noise", "posterior_noise"))
    random = np.random.default_rng(1)
    noises = {name: random.standard_normal((1, 4, 6, 8)).astype(np.float32) for name in ("noise", "posterior_noise")}
    feeds = {"frame": make_frame()[None], **noises}
    with OnnxRuntimeEngine(bundle.onnx()) as plain, OnnxRuntimeEngine(bundle.onnx(), options=BOUND) as bound:
        expected = plain.run(feeds)["image"]
        np.testing.assert_array_equal(bound.run(feeds)["image"], expected)
        other = bound.run({**feeds, "noise": feeds["noise"] + 1})["image"]
    assert (other != expected).any()


# Nothing of a closed engine remains


def sessions() -> int:
    gc.collect()
    # Not isinstance: it asks things of other libraries for their class, and some answer with a warning.
    return sum(type(thing) is onnxruntime.InferenceSession for thing in gc.get_objects())


def test_closing_gives_the_session_back_and_it_can_be_opened_again(make_bundle, make_frame):
    frame = make_frame()[None]
    engine = OnnxRuntimeEngine(make_bundle().onnx(), options=BOUND)
    before = sessions()
    for _ in range(3):
        with engine:
            np.testing.assert_array_equal(engine.run({"frame": frame})["image"], 255 - frame)
            assert sessions() == before + 1
        assert sessions() == before


def test_an_engine_that_does_not_open_keeps_nothing(save_graph, tmp_path):
    save_graph(tmp_path / "g.onnx", ("N", 8, 8, 3))  # refused after the session is there
    engine, before = OnnxRuntimeEngine(tmp_path / "g.onnx"), sessions()
    with pytest.raises(BundleError, match="no static shape"):
        engine.open()
    assert sessions() == before
    assert engine.inputs == ()


@pytest.mark.parametrize("binding", [False, True], ids=["plain", "binding"])
@pytest.mark.parametrize("arena", [True, False], ids=["arena", "no arena"])
def test_memory_that_runs_out_is_told_in_bytes(tmp_path, arena, binding):
    nodes = [
        helper.make_node("ConstantOfShape", ["shape"], ["huge"]),
        helper.make_node("ReduceMax", ["huge"], ["most"], keepdims=0),
        helper.make_node("Add", ["most", "x"], ["y"]),
    ]
    path = save(
        tmp_path / "huge.onnx", nodes, [("shape", np.array([1 << 30, 1 << 28]))]
    )  # 2**60 bytes: more than can be addressed
    options = OnnxRuntimeOptions(optimise=False, arena=arena, binding=binding)
    with OnnxRuntimeEngine(path, options=options) as engine:
        for _ in range(2):
            with pytest.raises(DeviceError, match="out of memory: ONNX Runtime failed to run") as caught:
                engine.run({"x": np.zeros(1, np.float32)})
    assert caught.value.expected == ("1,152,921,504,606,846,976 bytes more" if arena else None)
    assert "bytes" in caught.value.got


def test_after_a_run_that_failed_the_engine_runs_on_and_opens_again(tmp_path):
    nodes = [
        helper.make_node("Cast", ["x"], ["index"], to=TensorProto.INT64),
        helper.make_node("Gather", ["table", "index"], ["y"]),
    ]
    path = save(tmp_path / "g.onnx", nodes, [("table", np.array([1, 2], np.float32))])
    engine = OnnxRuntimeEngine(path, options=BOUND)
    for _ in range(2):
        with engine:
            with pytest.raises(DeviceError, match="failed to run"):
                engine.run({"x": np.full(1, 5, np.float32)})
            assert engine.run({"x": np.ones(1, np.float32)})["y"].tolist() == [2.0]


# CUDA where there is none


def test_the_device_gives_the_engine_its_name(make_bundle):
    assert OnnxRuntimeEngine("g.onnx").backend == "onnxruntime"
    assert OnnxRuntimeEngine("g.onnx", options=ON_CUDA).backend == "onnxruntime-cuda"
    assert OnnxRuntimeEngine.backend == "onnxruntime"
    with pytest.raises(UsageError, match="no such device") as caught:
        OnnxRuntimeEngine(make_bundle().onnx(), options=OnnxRuntimeOptions(device="CUDA:0"))
    assert (caught.value.expected, caught.value.got) == ("cpu or cuda", "CUDA:0")


@without_cuda
def test_cuda_that_is_not_there_is_never_replaced_by_the_cpu(make_bundle):
    engine = OnnxRuntimeEngine(make_bundle().onnx(), options=ON_CUDA)
    for _ in range(2):
        with pytest.raises(MissingComponentError) as caught:
            engine.open()
    assert cuda_problem() in caught.value.what
    assert "--engine onnxruntime" in caught.value.hint


@pytest.mark.skipif(_ort_cuda.PROVIDER in onnxruntime.get_available_providers(), reason="this is onnxruntime-gpu")
def test_the_package_for_the_cpu_is_named():
    problem = cuda_problem()
    assert onnxruntime.__version__ in problem
    assert 'pip install "edgeturbo[cuda]"' in problem


def test_without_the_package_there_is_no_cuda(monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    assert "not installed" in cuda_problem()
    assert 'pip install "edgeturbo[cuda]"' in cuda_problem()


def test_a_session_that_fell_back_is_refused(make_bundle):
    session = onnxruntime.InferenceSession(str(make_bundle().onnx()), providers=["CPUExecutionProvider"])
    with pytest.raises(MissingComponentError, match="did not take its CUDA provider") as caught:
        _ort_cuda.refuse_other_provider(session, "libcudnn.so.9 is missing")
    assert caught.value.got == "CPUExecutionProvider; libcudnn.so.9 is missing"


def test_a_node_left_to_the_cpu_is_refused(make_bundle):
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.add_session_config_entry("session.disable_cpu_ep_fallback", "1")
    with pytest.raises(Exception, match="fallback") as caught:  # what is said when a provider does not take all
        onnxruntime.InferenceSession(str(make_bundle().onnx()), options, providers=[])
    error = cuda_error(caught.value, "ONNX Runtime cannot load g.onnx")
    assert isinstance(error, BundleError)
    assert "would leave some nodes to the CPU" in error.what


FAILED = "CUDA failure {} ; GPU=0 ; hostname=host ; file=cuda_call.cc ; line=1 ; expr=cudaStreamSynchronize(stream);"


@pytest.mark.parametrize(
    ("text", "kind", "says"),
    [
        (FAILED.format("2: out of memory"), DeviceError, "out of memory: running g.onnx"),
        ("Failed to allocate memory for requested buffer of size 4096", DeviceError, "4,096 bytes more"),
        ("Available memory of 1 is smaller than requested bytes of 4096", DeviceError, "4,096 bytes more"),
        (FAILED.format("35: CUDA driver version is insufficient"), MissingComponentError, "driver is too old"),
        (FAILED.format("100: no CUDA-capable device is detected"), MissingComponentError, "there is no GPU"),
        (FAILED.format("700: an illegal memory access"), DeviceError, "start the program again"),
        ("CUDNN failure 5000: CUDNN_STATUS_EXECUTION_FAILED", DeviceError, "the GPU failed"),
        ("CUBLAS failure 13: CUBLAS_STATUS_EXECUTION_FAILED", DeviceError, "the GPU failed"),
        ("CUDA Error: invalid argument kernel.cu 12", DeviceError, "the GPU failed"),
        ("This session cannot use the graph capture feature as requested", BundleError, "cuda_graph=False"),
        ("Non-zero status code returned while running Gather node", None, ""),
    ],
)
def test_what_cuda_says_becomes_a_typed_error(text, kind, says):
    error = cuda_error(RuntimeError(text), "running g.onnx")
    assert type(error) is (kind or type(None))
    assert says in str(error)


PROBLEM = """
import types
from edgeturbo.engines._ort_cuda import PROVIDER, provider_problem
runtime = types.SimpleNamespace(get_available_providers=lambda: [PROVIDER], __version__="1.31.1", cuda_version="{}")
print(provider_problem(runtime))
"""


@pytest.mark.parametrize(("built_for", "says"), [("13.0", "runs CUDA 12.6"), ("12.8", "None"), ("", "None")])
def test_a_driver_that_is_too_old_is_named_with_both_versions(tmp_path, built_for, says):
    done = subprocess.run(
        [sys.executable, "-c", PROBLEM.format(built_for)],
        env={**os.environ, "LD_LIBRARY_PATH": str(compile_driver(tmp_path))},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert says in done.stdout
    assert says == "None" or f"built for CUDA {built_for}" in done.stdout


def test_every_cuda_error_is_one_of_ours():
    error = cuda_error(MemoryError(), "running g.onnx")
    assert isinstance(error, EdgeTurboError)
    assert "free" in error.got
