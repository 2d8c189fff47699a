"""What can be known of a plan without a GPU. Running one is tested in ``tests/gpu``."""

from __future__ import annotations

import logging
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from edgeturbo.engines.build import BuildRequest, build_plan
from edgeturbo.engines.cuda import driver_problem
from edgeturbo.engines.errors import BundleError, DeviceError, InputError, MissingComponentError
from edgeturbo.engines.tensorrt_rtx import TensorRtRtxEngine, deserialize, plan_problem, read_header, unusable_reason

onnx = pytest.importorskip("onnx", reason="the tests make their network with onnx")
rtx = pytest.importorskip("tensorrt_rtx", reason="the tests build a plan with tensorrt_rtx")

without_driver = pytest.mark.skipif(driver_problem() is None, reason="this machine has an NVIDIA driver")


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A real plan for sm_89, of a network that hands its frame through FP16."""
    from onnx import TensorProto, helper

    folder = tmp_path_factory.mktemp("good")
    nodes = [
        helper.make_node("Cast", ["frame"], ["half"], to=TensorProto.FLOAT16),
        helper.make_node("Floor", ["half"], ["whole"]),
        helper.make_node("Cast", ["whole"], ["image"], to=TensorProto.UINT8),
    ]
    border = [helper.make_tensor_value_info(name, TensorProto.UINT8, [1, 8, 8, 3]) for name in ("frame", "image")]
    graph = helper.make_graph(nodes, "generator", border[:1], border[1:])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)
    onnx.save(model, str(folder / "generator.onnx"))
    build_plan(BuildRequest("tensorrt-rtx", folder / "generator.onnx", folder / "engine.plan", ("sm_89",), "5e" * 32))
    return (folder / "engine.plan").read_bytes()


@pytest.fixture
def plan(good: bytes, tmp_path: Path) -> Path:
    path = tmp_path / "engine.plan"
    path.write_bytes(good)
    return path


def python(code: str, *arguments: str, **environment: str) -> str:
    """What another Python prints."""
    command = [sys.executable, "-W", "error", "-c", code, *arguments]
    environment = {**os.environ, **environment}
    return subprocess.run(command, check=True, capture_output=True, text=True, env=environment).stdout


def test_the_header_tells_size_and_version(plan: Path, good: bytes) -> None:
    header = read_header(plan)
    assert header.nbytes == len(good)
    assert header.version is not None
    assert ".".join(map(str, header.version)) == rtx.__version__
    assert plan_problem(plan) is None


@pytest.mark.parametrize("content", [b"", b"vtrt", b"version https://git-lfs.github.com/spec/v1\n" * 9, bytes(9000)])
def test_refuses_what_is_no_plan(plan: Path, content: bytes, caplog: pytest.LogCaptureFixture) -> None:
    plan.write_bytes(content)
    with caplog.at_level(logging.DEBUG), pytest.raises(BundleError, match="is not a TensorRT for RTX plan") as raised:
        TensorRtRtxEngine(plan).open()
    assert f"{len(content):,} bytes" in str(raised.value.got)
    assert caplog.records == [], "the vendor's library was not asked"


@pytest.mark.parametrize("change", [-1, -1000, 1])
def test_refuses_a_plan_of_another_size(plan: Path, good: bytes, change: int, caplog: pytest.LogCaptureFixture) -> None:
    plan.write_bytes(good[:change] if change < 0 else good + bytes(change))
    with caplog.at_level(logging.DEBUG), pytest.raises(BundleError, match="damaged or was cut short") as raised:
        TensorRtRtxEngine(plan).open()
    assert f"{len(good):,} bytes" in str(raised.value.expected)
    assert f"{len(good) + change:,} bytes" in str(raised.value.got)
    assert caplog.records == [], "the vendor's library was not asked"


def test_refuses_a_plan_of_another_version(plan: Path, good: bytes) -> None:
    major, minor = rtx.__version__.split(".")[:2]
    plan.write_bytes(good[:25] + bytes([int(minor) + 1]) + good[26:])
    with pytest.raises(BundleError, match="another version of TensorRT for RTX") as raised:
        TensorRtRtxEngine(plan).open()
    assert f"{major}.{int(minor) + 1}." in str(raised.value.got)
    assert rtx.__version__ in str(raised.value.expected)
    assert "turbo-export" in str(raised.value.hint)


def test_leaves_an_unknown_header_format_to_the_vendor(plan: Path, good: bytes) -> None:
    plan.write_bytes(good[:8] + b"\x09" + good[9:-1])
    assert read_header(plan).version is None
    assert plan_problem(plan) is None


def test_plan_problem_is_one_sentence(plan: Path, good: bytes) -> None:
    plan.write_bytes(good[:-1])
    problem = plan_problem(plan)
    assert problem is not None
    assert "cut short: expected" in problem
    assert "\n" not in problem
    with pytest.raises(InputError, match="cannot read"):
        plan_problem(plan.with_name("absent.plan"))


@without_driver
def test_a_good_plan_without_a_driver(
    plan: Path, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(MissingComponentError) as raised:
        TensorRtRtxEngine(plan).open()
    assert raised.value.what == f"engine.plan cannot run here: {driver_problem()}"
    assert "--engine onnxruntime" in str(raised.value.hint)
    assert unusable_reason() == driver_problem()
    assert capfd.readouterr() == ("", ""), "the vendor's library printed nothing"
    assert caplog.records == [], "a missing driver is no error of the check's"


@without_driver
def test_the_vendor_speaks_through_logging(
    plan: Path, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(DeviceError, match="could not be deserialised") as raised:
        deserialize(plan)
    assert "CUDA driver version is insufficient" in str(raised.value.got)
    assert {record.name for record in caplog.records} == {"edgeturbo.engines.tensorrt_rtx"}
    assert capfd.readouterr() == ("", "")


MISSING = """
import sys
class Block:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] == sys.argv[2]:
            raise ImportError(f"blocked: {name}")
sys.meta_path.insert(0, Block())
from pathlib import Path
from edgeturbo.engines.cuda import require_bindings
from edgeturbo.engines.errors import EdgeTurboError
from edgeturbo.engines.tensorrt_rtx import TensorRtRtxEngine, plan_problem, unusable_reason
plan = Path(sys.argv[1])
print(unusable_reason(), plan_problem(plan), sep="|")
for attempt in (TensorRtRtxEngine(plan).open, require_bindings):
    try:
        attempt()
    except EdgeTurboError as error:
        print(type(error).__name__, error.what, error.hint, sep="|")
"""


def test_without_the_package(plan: Path, good: bytes) -> None:
    lines = python(MISSING, str(plan), "tensorrt_rtx").splitlines()
    missing = "the tensorrt_rtx package cannot be imported: blocked: tensorrt_rtx"
    assert lines[0] == f'{missing} (pip install "edgeturbo[rtx]")|None'
    assert lines[1] == f'MissingComponentError|{missing}|pip install "edgeturbo[rtx]"'
    plan.write_bytes(good[:-1])
    first = python(MISSING, str(plan), "tensorrt_rtx").splitlines()[0]
    assert "damaged or was cut short" in first, "what the header tells needs no package"


def test_without_cuda_python(plan: Path) -> None:
    last = python(MISSING, str(plan), "cuda").splitlines()[-1]
    assert last.startswith("MissingComponentError|the cuda-python package cannot be imported: blocked: cuda")
    assert last.endswith('|pip install "edgeturbo[rtx]"')


@pytest.mark.skipif(shutil.which("cc") is None, reason="needs a C compiler to make a driver that reports an error")
def test_a_driver_without_a_gpu_is_named(tmp_path: Path) -> None:
    source = tmp_path / "driver.c"
    source.write_text(
        "int cuInit(unsigned f) { return 100; }\n"
        'int cuGetErrorName(int c, const char **n) { *n = "CUDA_ERROR_NO_DEVICE"; return 0; }\n'
    )
    subprocess.run(["cc", "-shared", "-fPIC", "-o", tmp_path / "libcuda.so.1", source], check=True)
    code = "from edgeturbo.engines.cuda import driver_problem; print(driver_problem())"
    said = python(code, LD_LIBRARY_PATH=str(tmp_path)).strip()
    assert said == "no usable NVIDIA GPU (cuInit: CUDA_ERROR_NO_DEVICE (100))"
