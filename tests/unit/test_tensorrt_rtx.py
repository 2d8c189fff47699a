"""What can be known of a plan without a GPU. Running one is tested in ``tests/gpu``."""

from __future__ import annotations

import logging
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from edgeturbo.engines.build import BuildRequest, build_plan
from edgeturbo.engines.cuda import driver_problem
from edgeturbo.engines.errors import (
    BundleError,
    DeviceError,
    DiskFullError,
    EdgeTurboError,
    InputError,
    MissingComponentError,
)
from edgeturbo.engines.tensorrt_rtx import TensorRtRtxEngine, deserialize, plan_problem, read_header, unusable_reason
from fakes.machine import Machine, check, frames
from fakes.tensorrt import CudaGraphStrategy, Diagnostics, Runtime, RuntimeCache

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
    assert "turbo-build BUNDLE --engine tensorrt-rtx --force" in str(raised.value.hint)


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
    assert "|pip install cuda-python" in last


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


# What follows runs on a simulated library and GPU: tests/fakes says what that shows.


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Machine:
    return Machine(monkeypatch, tmp_path, "rtx")


@pytest.mark.parametrize("graph", [True, False])
def test_leaves_cuda_graphs_to_the_library(machine: Machine, graph: bool) -> None:
    with machine.engine(cuda_graph=graph) as engine:
        facts = engine.facts
        check(engine.run(frames(1)[0]), frames(1)[0])
        assert facts.cuda_graph == ("library" if graph else "none")
        assert ("WHOLE_GRAPH_CAPTURE" if graph else "not asked for") in str(facts.cuda_graph_reason)
        assert facts.runtime_cache is None
    wanted = CudaGraphStrategy.WHOLE_GRAPH_CAPTURE if graph else CudaGraphStrategy.DISABLED
    assert machine.behaviour.strategies == [wanted]
    assert machine.cuda.calls["cudaStreamBeginCapture"] == 0


def test_keeps_compiled_kernels_where_asked(machine: Machine, tmp_path: Path) -> None:
    cache = tmp_path / "engine.plan.cache"
    with machine.engine() as engine:
        assert engine.facts.runtime_cache is None
    assert not list(tmp_path.glob("*cache*")), "only a caller who asks gets a file"
    written = set()
    for state in ("new", "loaded"):
        with machine.engine(runtime_cache=cache) as engine:
            assert engine.facts.runtime_cache == state
            assert cache.read_bytes() == RuntimeCache.content
            written.add((cache.stat().st_ino, cache.stat().st_mtime_ns))
        assert machine.left() == {}
    assert len(written) == 1, "the same content is not written again"
    assert [path.name for path in tmp_path.glob("*cache*")] == ["engine.plan.cache"]


@pytest.mark.parametrize("content", [b"of another GPU", b""])
def test_a_cache_of_another_machine_starts_anew(machine: Machine, tmp_path: Path, content: bytes) -> None:
    cache = tmp_path / "engine.plan.cache"
    cache.write_bytes(content)
    with machine.engine(runtime_cache=cache) as engine:
        assert engine.facts.runtime_cache == "new"
    assert cache.read_bytes() == RuntimeCache.content


def test_a_cache_that_the_library_does_not_take_is_an_error(machine: Machine, tmp_path: Path) -> None:
    machine.behaviour.refuses_cache = True
    engine = machine.engine(runtime_cache=tmp_path / "cache")
    with pytest.raises(DeviceError, match="takes no runtime cache") as raised:
        engine.open()
    assert raised.value.got
    assert machine.left() == {}, "with the error and its traceback still held"


def test_a_cache_that_cannot_be_read_or_written_is_an_error(machine: Machine, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot read"):
        machine.engine(runtime_cache=tmp_path).open()
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="cannot read"):
        machine.engine(runtime_cache=tmp_path / "file" / "cache").open()
    assert machine.left() == {}
    gone = machine.engine(runtime_cache=tmp_path / "file.cache")
    with replacing_fails(tmp_path), pytest.raises(DiskFullError, match="no space left"):
        gone.open()
    assert machine.left() == {}
    with gone:
        check(gone.run(frames(1)[0]), frames(1)[0])


@contextmanager
def replacing_fails(folder: Path) -> Iterator[None]:
    """A disk that is full: files of ``folder`` may not grow past a few bytes."""
    resource = pytest.importorskip("resource", reason="needs a limit on the size of files")
    earlier = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, earlier)
        assert not list(folder.glob("*.partial"))


@pytest.mark.parametrize(
    ("bit", "kind", "words"),
    [
        ("UNSUPPORTED_CC", BundleError, "turbo-build BUNDLE --engine tensorrt-rtx --force --target sm_NN"),
        ("OLD_CUDA_DRIVER", MissingComponentError, "newer NVIDIA driver"),
        ("INSUFFICIENT_GPU_MEMORY", DeviceError, "more GPU memory"),
        ("CUDA_ERROR", DeviceError, "CUDA failed"),
    ],
)
def test_the_librarys_diagnosis_becomes_an_error(
    machine: Machine, monkeypatch: pytest.MonkeyPatch, bit: str, kind: type[EdgeTurboError], words: str
) -> None:
    monkeypatch.setattr(Runtime, "get_engine_validity", lambda *_: (0, Diagnostics[bit]))
    with pytest.raises(kind) as raised:
        machine.engine().open()
    assert words in str(raised.value)
    assert machine.left() == {}


def test_a_refusal_says_what_to_type(machine: Machine) -> None:
    machine.write_plan(problem="Archive is corrupt")
    with pytest.raises(BundleError, match="was refused by TensorRT for RTX") as raised:
        machine.engine().open()
    assert "Archive is corrupt" in str(raised.value.got)
    assert raised.value.hint == "turbo-build BUNDLE --engine tensorrt-rtx --force"
