"""Which engine runs a bundle. The machine's answers are replaced, the rules that follow from them are not."""

from __future__ import annotations

import sys

import pytest
from edgeturbo.engines import onnxruntime, reuse, select, tensorrt, tensorrt_rtx
from edgeturbo.engines.bundle import ONNX, Bundle, add_files
from edgeturbo.engines.device import Gpu
from edgeturbo.engines.errors import BundleError, InputError, MissingComponentError, UsageError
from edgeturbo.engines.manifest import BuiltOn, EngineEntry
from edgeturbo.engines.onnxruntime import OnnxRuntimeEngine
from edgeturbo.engines.reuse import Here
from edgeturbo.engines.select import choose, open_engine

NO_DRIVER = "no NVIDIA driver"
RTX_4090 = Gpu("NVIDIA GeForce RTX 4090", "sm_89", "570.1", 24 << 30)


def with_plan(bundle: Bundle, name: str = "engine.plan", *, backend: str = "tensorrt-rtx", **fields: object) -> Bundle:
    (bundle.root / name).parent.mkdir(parents=True, exist_ok=True)
    (bundle.root / name).write_bytes(b"a plan")
    built_on = BuiltOn(RTX_4090.name, RTX_4090.sm, "560.0") if backend == "tensorrt" else None
    known = {
        "backend": backend, "version": "1.7.1", "targets": ("sm_89",), "plan": name, "options": {}, "checked": (),
        "onnx_sha256": bundle.manifest.files[ONNX].sha256, "unchecked": (), "built_on": built_on,
    }  # fmt: skip
    return add_files(bundle, (name,), EngineEntry(**(known | fields)))


@pytest.fixture(autouse=True)
def cpu_only(monkeypatch):
    """No GPU, and of the CPU's engines ONNX Runtime alone, whatever this machine has."""
    for module in (tensorrt, tensorrt_rtx):
        monkeypatch.setattr(module, "unusable_reason", lambda: NO_DRIVER)
        monkeypatch.setattr(module, "plan_problem", lambda _: None)
    monkeypatch.setattr(onnxruntime, "cuda_problem", lambda: "no CUDA provider")
    monkeypatch.setattr(reuse, "here", lambda: Here({}, None))
    monkeypatch.setitem(sys.modules, "openvino", None)


@pytest.fixture
def a_gpu(monkeypatch):
    for module in (tensorrt, tensorrt_rtx):
        monkeypatch.setattr(module, "unusable_reason", lambda: None)
    versions = {"tensorrt": "1.7.1", "tensorrt-rtx": "1.7.1", "openvino": None}
    monkeypatch.setattr(reuse, "here", lambda: Here(versions, RTX_4090))


@pytest.fixture
def openvino(monkeypatch):
    monkeypatch.delitem(sys.modules, "openvino", raising=False)
    pytest.importorskip("openvino", reason="the choice of OpenVINO needs it")


@pytest.fixture
def no_onnxruntime(monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)


# A folder: the first that can run here


def test_without_a_plan_the_cpu_runs_it(make_bundle):
    choice = choose(make_bundle().root)
    assert (choice.backend, choice.plan, choice.precision) == ("onnxruntime", None, None)
    assert choice.reason == "onnxruntime on the CPU: the bundle has no plan for a GPU"
    engine = open_engine(choice)
    assert isinstance(engine, OnnxRuntimeEngine)
    with pytest.raises(UsageError, match="closed"):
        engine.run({})


def test_it_says_why_each_plan_was_not_taken(make_bundle):
    bundle = with_plan(with_plan(make_bundle()), "engines/t/engine.plan", backend="tensorrt")
    assert choose(bundle.root).reason == (
        f"onnxruntime on the CPU: engines/t/engine.plan (tensorrt) cannot run here, {NO_DRIVER}; "
        f"engine.plan (tensorrt-rtx) cannot run here, {NO_DRIVER}"
    )


@pytest.mark.usefixtures("a_gpu", "no_onnxruntime")
def test_a_plan_that_can_run_is_taken_and_tensorrts_first(make_bundle):
    rtx = with_plan(make_bundle())
    choice = choose(rtx.root)
    assert (choice.backend, choice.plan) == ("tensorrt-rtx", rtx.root / "engine.plan")
    assert choice.reason == "tensorrt-rtx on the GPU, engine.plan: it can run here"
    assert isinstance(open_engine(choice), tensorrt_rtx.TensorRtRtxEngine)
    both = with_plan(rtx, "engines/t/engine.plan", backend="tensorrt")
    assert isinstance(open_engine(choose(both.root)), tensorrt.TensorRtEngine)


@pytest.mark.usefixtures("a_gpu")
@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"version": "1.5.0"}, "built with TensorRT for RTX 1.5.0 for sm_89; here is TensorRT for RTX 1.7.1 on sm_89"),
        ({"targets": ("sm_120",)}, "for sm_120; here is TensorRT for RTX 1.7.1 on sm_89 (NVIDIA GeForce RTX 4090)"),
    ],
)
def test_a_plan_for_something_else_is_left_with_both_sides_named(make_bundle, fields, said):
    bundle = with_plan(make_bundle(), **fields)
    assert said in choose(bundle.root).reason
    with pytest.raises(MissingComponentError) as caught:
        choose(bundle.root / "engine.plan")
    assert said in caught.value.what
    assert caught.value.hint.startswith(f"turbo-build {bundle.root} --engine tensorrt-rtx --force")


@pytest.mark.usefixtures("a_gpu")
def test_a_plan_whose_header_is_wrong_is_left(make_bundle, monkeypatch):
    monkeypatch.setattr(tensorrt_rtx, "plan_problem", lambda path: f"{path.name} is no plan")
    assert "engine.plan is no plan" in choose(with_plan(make_bundle()).root).reason


@pytest.mark.usefixtures("a_gpu")
def test_of_several_plans_the_one_that_fits_is_taken(make_bundle):
    bundle = with_plan(with_plan(make_bundle(), targets=("sm_120",)), "engines/r/engine.plan")
    for wanted in ("auto", "tensorrt-rtx"):
        assert choose(bundle.root, wanted).plan == bundle.root / "engines/r/engine.plan"


def test_onnxruntime_on_cuda_comes_before_the_cpu(make_bundle, monkeypatch):
    monkeypatch.setattr(onnxruntime, "cuda_problem", lambda: None)
    choice = choose(make_bundle().root)
    assert choice.backend == "onnxruntime-cuda"
    assert open_engine(choice).backend == "onnxruntime-cuda"


@pytest.mark.usefixtures("openvino")
def test_openvino_comes_before_onnxruntime_on_the_cpu_and_says_its_precision(make_bundle):
    choice = choose(make_bundle().root)
    assert (choice.backend, choice.precision) == ("openvino", "f32")
    assert choice.reason == "openvino on the CPU in f32: the bundle has no plan for a GPU"
    assert choose(make_bundle("b").root, "openvino", "bf16").precision == "bf16"


@pytest.mark.usefixtures("no_onnxruntime")
def test_with_nothing_that_can_run_it_says_all_of_it(make_bundle):
    with pytest.raises(MissingComponentError) as caught:
        choose(with_plan(make_bundle()).root)
    assert NO_DRIVER in caught.value.got
    assert "neither ONNX Runtime nor OpenVINO is installed" in caught.value.got


# What is named is meant


@pytest.mark.parametrize("wanted", ["auto", "tensorrt-rtx"])
@pytest.mark.parametrize("name", ["engine.plan", "engines/rtx-1-ada/engine.plan"])
def test_a_named_plan_runs_or_an_error_says_why(make_bundle, wanted, name, request):
    bundle = with_plan(make_bundle(), name)
    with pytest.raises(MissingComponentError, match=NO_DRIVER):
        choose(bundle.root / name, wanted)
    request.getfixturevalue("a_gpu")
    assert choose(bundle.root / name, wanted).plan == bundle.root / name


def test_the_engine_asked_for_is_never_replaced(make_bundle):
    with pytest.raises(MissingComponentError, match=NO_DRIVER):
        choose(with_plan(make_bundle()).root, "tensorrt-rtx")
    for backend in ("tensorrt-rtx", "tensorrt"):
        with pytest.raises(UsageError, match=f"has no {backend} plan") as caught:
            choose(make_bundle("other", force=True).root, backend)
        assert f"--engine {backend}" in caught.value.hint
    with pytest.raises(MissingComponentError, match="no CUDA provider"):
        choose(make_bundle("other", force=True).root, "onnxruntime-cuda")
    with pytest.raises(MissingComponentError, match="OpenVINO is not installed"):
        choose(make_bundle("other", force=True).root, "openvino")


@pytest.mark.usefixtures("a_gpu")
def test_naming_the_onnx_file_means_onnxruntime(make_bundle):
    bundle = with_plan(make_bundle())
    assert choose(bundle.root / ONNX).backend == "onnxruntime"
    assert choose(bundle.root, "onnxruntime").backend == "onnxruntime"


@pytest.mark.usefixtures("a_gpu")
def test_a_file_and_another_engine_contradict_each_other(make_bundle):
    bundle = with_plan(make_bundle())
    for name, wanted in (("engine.plan", "onnxruntime"), ("engine.plan", "tensorrt"), (ONNX, "tensorrt-rtx")):
        with pytest.raises(UsageError, match="was asked for"):
            choose(bundle.root / name, wanted)
        assert choose(bundle.root / name, "null").backend == "null"


def test_a_precision_is_for_openvino_alone(make_bundle):
    for wanted in ("auto", "onnxruntime", "tensorrt"):
        with pytest.raises(UsageError, match="only openvino") as caught:
            choose(make_bundle("b", force=True).root, wanted, "bf16")
        assert caught.value.hint == "--engine openvino --precision bf16"


# Bundles that lie


@pytest.mark.usefixtures("a_gpu")
def test_a_plan_of_an_unknown_backend_is_refused(make_bundle):
    bundle = with_plan(make_bundle(), backend="tensorrt-9000")
    with pytest.raises(MissingComponentError, match="tensorrt-9000"):
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
    ("wanted", "message"), [("pytorch", "checkpoint"), ("ONNXRuntime", "no such engine"), ("", "no such engine")]
)
def test_engines_that_are_not_here_are_refused_by_name(make_bundle, wanted, message):
    with pytest.raises(UsageError, match=message) as caught:
        choose(make_bundle().root, wanted)
    assert caught.value.expected == ", ".join(select.WANTED)


def test_no_bundle_is_refused(tmp_path):
    (tmp_path / "engine.plan").touch()
    with pytest.raises(BundleError, match="beside or above"):
        choose(tmp_path / "engine.plan")
