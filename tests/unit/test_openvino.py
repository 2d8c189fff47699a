"""OpenVINO on the CPU: what it runs, in the precision that was asked for or not at all."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

if find_spec("openvino") is None:
    pytest.skip("OpenVINO is not installed", allow_module_level=True)

from edgeturbo.engines.bundle import ONNX
from edgeturbo.engines.errors import BundleError, DeviceError, MissingComponentError, UsageError
from edgeturbo.engines.onnxruntime import OnnxRuntimeEngine
from edgeturbo.engines.openvino import PRECISIONS, OpenVinoEngine, OpenVinoOptions
from edgeturbo.engines.parity import psnr
from onnx import TensorProto, helper
from unit.openvino_network import SHAPE, build, network, python, run, save, usable


@pytest.fixture
def feeds(make_frame):
    return {"frame": make_frame()[None]}


# The contract


@pytest.mark.parametrize("precision", PRECISIONS)
def test_tells_its_tensors_and_runs_in_every_precision_that_the_cpu_has(make_bundle, feeds, precision):
    bundle = make_bundle()
    if precision not in usable(bundle.onnx()):
        pytest.skip(f"OpenVINO does not compute in {precision} on this CPU")
    with OpenVinoEngine(bundle.onnx(), OpenVinoOptions(precision=precision)) as engine:
        assert engine.backend == "openvino"
        assert engine.precision == precision
        assert (engine.inputs, engine.outputs) == (bundle.manifest.inputs, bundle.manifest.outputs)
        np.testing.assert_array_equal(engine.run(feeds)["image"], 255 - feeds["frame"])


def test_results_are_the_callers(make_bundle, make_frame):
    frames = [make_frame(seed=seed)[None] for seed in range(3)]
    frames[1].flags.writeable = False
    with OpenVinoEngine(str(make_bundle().onnx())) as engine:
        images = [engine.run({"frame": frame})["image"] for frame in frames]
        images[0] += 1
        out = {"image": np.zeros(SHAPE, np.uint8)}
        assert engine.run({"frame": frames[0]}, out)["image"] is out["image"]
    for frame, image in zip(frames, [out["image"], *images[1:]], strict=True):
        np.testing.assert_array_equal(image, 255 - frame)


def test_takes_every_input(make_bundle, make_frame):
    bundle = make_bundle(noises=("noise", "posterior_noise"))
    random = np.random.default_rng(1)
    noises = {name: random.standard_normal((1, 4, 6, 8)).astype(np.float32) for name in ("noise", "posterior_noise")}
    feeds = {"frame": make_frame()[None], **noises}
    with OnnxRuntimeEngine(bundle.onnx()) as engine:
        expected = engine.run(feeds)["image"]
    assert psnr(expected, run(bundle.onnx(), feeds)) > 60


def test_options_reach_the_network(make_bundle):
    with OpenVinoEngine(make_bundle().onnx(), OpenVinoOptions(threads=1)) as engine:
        used = {name: engine._compiled.get_property(name) for name in ("INFERENCE_NUM_THREADS", "NUM_STREAMS")}
        hint = str(engine._compiled.get_property("PERFORMANCE_HINT"))
    assert used == {"INFERENCE_NUM_THREADS": 1, "NUM_STREAMS": 1}
    assert "LATENCY" in hint


@pytest.mark.parametrize(
    ("options", "message"),
    [(OpenVinoOptions(precision="fp16"), "no such precision"), (OpenVinoOptions(threads=0), "needs a thread")],
    ids=str,
)
def test_options_that_cannot_be_meant_are_refused(options, message):
    with pytest.raises(UsageError, match=message):
        OpenVinoEngine("generator.onnx", options)


# Precision


def test_f32_is_what_onnx_runtime_computes_and_bf16_is_not(feeds, tmp_path):
    path = network(tmp_path)
    with OnnxRuntimeEngine(path) as engine:
        expected = engine.run(feeds)["image"]
    f32 = run(path, feeds)
    assert psnr(expected, f32) > 60
    if "bf16" not in usable(path):
        pytest.skip("OpenVINO does not compute in bf16 on this CPU")
    bf16 = run(path, feeds, "bf16")
    assert 30 < psnr(expected, bf16) < psnr(expected, f32)


LESS = """
import sys
from edgeturbo.engines.openvino import OpenVinoEngine, OpenVinoOptions, load_openvino
from edgeturbo.engines.errors import MissingComponentError
asked = {"INFERENCE_PRECISION_HINT": "f16"}
compiled = load_openvino().Core().compile_model(sys.argv[1], "CPU", asked)
print("OpenVINO takes", compiled.get_property("INFERENCE_PRECISION_HINT").get_type_name())
try:
    OpenVinoEngine(sys.argv[1], OpenVinoOptions(precision="f16")).open()
except MissingComponentError as error:
    print(error)
"""


def test_a_precision_that_the_cpu_lacks_is_not_replaced(tmp_path):
    # oneDNN's own switch: it does as if the CPU had no more than this.
    done = python(LESS, str(network(tmp_path)), ONEDNN_MAX_CPU_ISA="AVX512_CORE")
    assert done.returncode == 0, done.stderr
    taken = done.stdout.splitlines()[0].removeprefix("OpenVINO takes ")
    if taken == "f16":
        pytest.skip("this CPU's FP16 cannot be switched off")
    assert "does not compute in f16" in done.stdout
    assert f"{taken}, which OpenVINO would take instead" in done.stdout


# Files that OpenVINO cannot run


@pytest.mark.parametrize("damage", ["missing", "empty", "truncated", "no data"])
def test_an_onnx_file_that_cannot_be_loaded_is_a_bundle_error(make_bundle, damage):
    path = make_bundle().root / ONNX
    data = path.read_bytes()
    if damage == "no data":
        path.with_name("generator.onnx.data").unlink()
    elif damage == "missing":
        path.unlink()
    else:
        path.write_bytes({"empty": b"", "truncated": data[: len(data) // 2]}[damage])
    with pytest.raises(BundleError, match="OpenVINO cannot load") as caught:
        OpenVinoEngine(path).open()
    assert "Exception from" not in caught.value.what
    assert len(caught.value.what.splitlines()) == 1


@pytest.mark.parametrize("shape", [("N", 48, 64, 3), (1, "H", 64, 3)], ids=str)
def test_shapes_that_are_not_static_are_refused(save_graph, tmp_path, shape):
    save_graph(tmp_path / ONNX, shape)
    with pytest.raises(BundleError, match="no static shape"):
        OpenVinoEngine(tmp_path / ONNX).open()


def test_memory_that_runs_out_is_a_device_error(tmp_path):
    nodes = [
        helper.make_node("ConstantOfShape", ["shape"], ["huge"]),
        helper.make_node("ReduceMax", ["huge"], ["most"], keepdims=0),
        helper.make_node("Add", ["most", "frame"], ["image"]),
    ]
    weights = [("shape", np.array([1 << 30, 1 << 28]))]  # 2**60 bytes: more than can be addressed
    path = save(tmp_path / "huge.onnx", nodes, weights, (TensorProto.FLOAT,) * 2, (1,))
    engine = OpenVinoEngine(path)
    for _ in range(2):
        with pytest.raises(DeviceError, match="out of memory") as caught:
            engine.open()
        assert "bytes" in caught.value.got


def test_without_the_package_the_error_names_the_extra(make_bundle, monkeypatch):
    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(MissingComponentError) as caught:
        OpenVinoEngine(make_bundle().onnx()).open()
    assert caught.value.hint == 'pip install "edgeturbo[openvino]"'


# The process


def compiled_models() -> int:
    import openvino

    gc.collect()
    # Not isinstance: it asks things of other libraries for their class, and some answer with a warning.
    return sum(type(thing) is openvino.CompiledModel for thing in gc.get_objects())


@pytest.mark.usefixtures("capsys")
def test_closing_gives_everything_back_and_it_can_be_opened_again(feeds, tmp_path):
    build(network(tmp_path), tmp_path / "engine.plan")
    for path in (network(tmp_path), tmp_path / "engine.plan"):
        engine = OpenVinoEngine(path)
        with engine:
            first = engine.run(feeds)["image"]
        for _ in range(3):
            with engine:
                np.testing.assert_array_equal(engine.run(feeds)["image"], first)
                assert compiled_models() == 1
            assert compiled_models() == 0
            assert mapped(tmp_path / "engine.plan") == 0


def mapped(path: Path) -> int:
    """How often this process has the file mapped; 0 where the system does not say."""
    maps = Path("/proc/self/maps")
    return maps.read_text().count(str(path)) if maps.exists() else 0


PHONES_HOME = """
import sys
seen = []
sys.addaudithook(lambda event, _: seen.append(event) if event in ("os.fork", "socket.connect") else None)
from edgeturbo.engines.openvino import load_openvino
load_openvino()
from openvino import convert_model
seen += [name for name in sys.modules if name.startswith("openvino_telemetry")]
print(seen)
"""


def test_importing_openvino_reports_nothing(tmp_path):
    # OpenVINO's telemetry keeps still in continuous integration: these variables are how it knows.
    environment = {k: v for k, v in os.environ.items() if k not in ("CI", "TF_BUILD", "JENKINS_URL")}
    done = subprocess.run(
        [sys.executable, "-c", PHONES_HOME],
        env={**environment, "HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout.strip()) == (0, "[]"), done.stdout + done.stderr
    assert list(tmp_path.iterdir()) == []
