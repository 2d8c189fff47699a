"""Builds are real: tensorrt_rtx compiles tiny networks here, which needs no GPU and takes seconds."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from edgeturbo.engines import device
from edgeturbo.engines._build_job import Job
from edgeturbo.engines._build_trt import builder_config
from edgeturbo.engines.build import BuildProgress, BuildRequest, build_plan
from edgeturbo.engines.errors import BuildError, DiskFullError, InputError, MissingComponentError, UsageError
from edgeturbo.engines.manifest import EngineEntry
from edgeturbo.engines.reuse import here, reusable
from edgeturbo.engines.tensorrt_rtx import plan_problem
from edgeturbo.engines.vendor import TENSORRT_RTX

onnx = pytest.importorskip("onnx", reason="the tests make their networks with onnx")
rtx = pytest.importorskip("tensorrt_rtx", reason="the tests build plans with tensorrt_rtx")

SHA256 = "5e" * 32
EARLIER = b"an earlier plan"
# A build that a test interrupts must last: this many layers take a few seconds.
MANY_LAYERS = 700


def save_network(path: Path, operator: str = "Conv", layers: int = 1) -> Path:
    """``frame`` uint8 [1,16,16,3] -> FP16 convolutions -> ``image`` uint8, its weights beside it as external data."""
    from onnx import TensorProto, helper, numpy_helper

    random = np.random.default_rng(0)
    # Weights that are all different and not small, so that the builder cannot share its work between the layers.
    weights = [(random.standard_normal((3, 3, 3, 3)) / 5).astype(np.float16) for _ in range(layers)]
    nodes = [
        helper.make_node("Cast", ["frame"], ["half"], to=TensorProto.FLOAT16),
        helper.make_node("Transpose", ["half"], ["x0"], perm=[0, 3, 1, 2]),
    ]
    for index in range(layers):
        inner = [f"x{index}", f"w{index}"]
        nodes.append(helper.make_node(operator, inner, [f"c{index}"], name=f"layer{index}", pads=[1] * 4))
        nodes.append(helper.make_node("Sigmoid" if layers > 1 else "Relu", [f"c{index}"], [f"x{index + 1}"]))
    nodes += [
        helper.make_node("Clip", [f"x{layers}", "low", "high"], ["clipped"]),
        helper.make_node("Floor", ["clipped"], ["whole"]),
        helper.make_node("Transpose", ["whole"], ["last"], perm=[0, 2, 3, 1]),
        helper.make_node("Cast", ["last"], ["image"], to=TensorProto.UINT8),
    ]
    constants = [
        numpy_helper.from_array(np.array(value, np.float16), name) for name, value in (("low", 0), ("high", 255))
    ]
    constants += [numpy_helper.from_array(weight, f"w{index}") for index, weight in enumerate(weights)]
    border = [helper.make_tensor_value_info(name, TensorProto.UINT8, [1, 16, 16, 3]) for name in ("frame", "image")]
    graph = helper.make_graph(nodes, "generator", border[:1], border[1:], constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)
    path.parent.mkdir(parents=True, exist_ok=True)
    onnx.save(model, str(path), save_as_external_data=True, location=f"{path.name}.data", size_threshold=0)
    return path


@pytest.fixture
def generator(tmp_path: Path) -> Path:
    return save_network(tmp_path / "generator.onnx")


def request(generator: Path, *targets: str, plan: str = "engine.plan", **options: int) -> BuildRequest:
    targets = targets or ("sm_89",)
    return BuildRequest("tensorrt-rtx", generator, generator.parent / plan, targets, SHA256, **options)


def with_earlier_plan(generator: Path) -> Path:
    plan = generator.with_name("engine.plan")
    plan.write_bytes(EARLIER)
    generator.with_name("build.log").write_text("an earlier log")
    return plan


def assert_only_the_earlier_plan(plan: Path, *also: str) -> None:
    assert plan.read_bytes() == EARLIER
    assert plan.with_name("build.log").read_text() == "an earlier log"
    names = {path.name for path in plan.parent.iterdir()}
    assert names == {"generator.onnx", "generator.onnx.data", "engine.plan", "build.log", *also}


def workers_of(folder: Path) -> list[int]:
    """The builder processes whose command line names a file in ``folder``."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            command = (entry / "cmdline").read_bytes()
        except OSError:
            continue
        if b"_build_worker" in command and str(folder).encode() in command:
            found.append(int(entry.name))
    return found


def with_startup_code(monkeypatch: pytest.MonkeyPatch, folder: Path, code: str) -> None:
    """Make every Python that starts from now on run ``code`` first."""
    folder.mkdir()
    (folder / "sitecustomize.py").write_text(code)
    monkeypatch.setenv("PYTHONPATH", str(folder))


def test_one_plan_serves_all_targets(generator: Path) -> None:
    entry = build_plan(request(generator, "sm_89", "sm_120", plan="engines/rtx/engine.plan", optimization_level=2))

    plan = generator.parent / "engines/rtx/engine.plan"
    assert b"accelerators={sm89 sm120 }" in plan.read_bytes()
    assert plan_problem(plan) is None
    assert entry == EngineEntry(
        backend="tensorrt-rtx",
        version=entry.version,
        targets=("sm_89", "sm_120"),
        plan="engines/rtx/engine.plan",
        onnx_sha256=SHA256,
        options={"optimization_level": "2"},
        checked=entry.checked,
        unchecked=entry.unchecked,
    )
    assert entry.version == rtx.__version__
    assert f"{plan.stat().st_size:,} bytes" in entry.checked[0]
    assert "no MALFORMED_ENGINE bit" in entry.checked[1]
    assert "numerical parity" in entry.unchecked[0]
    assert {path.name for path in plan.parent.iterdir()} == {"engine.plan", "build.log", "reproduce.sh"}
    assert "Engine generation completed" in plan.with_name("build.log").read_text()


def test_an_openvino_plan_is_built_like_the_others(generator: Path) -> None:
    pytest.importorskip("openvino", reason="builds a plan with openvino")
    plan = generator.parent / "engines/ov/engine.plan"
    asked = BuildRequest("openvino", generator, plan, ("cpu",), SHA256, precision="f32")
    entry = build_plan(asked)
    assert entry.options == {"precision": "f32", "cpu": device.cpu()}
    assert entry.built_on is None
    assert reusable(entry, SHA256, here(), asked.options)[0]
    assert {path.name for path in plan.parent.iterdir()} == {"engine.plan", "build.log", "reproduce.sh"}


def test_options_reach_the_builder(generator: Path) -> None:
    entry = build_plan(request(generator, workspace_bytes=1 << 28, optimization_level=0))
    assert entry.options == {"workspace_bytes": "268435456", "optimization_level": "0"}
    script = generator.with_name("reproduce.sh").read_text()
    assert "--workspace-bytes 268435456" in script
    assert "--optimization-level 0" in script
    with pytest.raises(BuildError, match="within workspace limit"):
        build_plan(request(generator, workspace_bytes=1 << 20))

    # Plans of TensorRT for RTX 1.7 do not show their optimization level, so look at what the builder is told.
    job = Job("tensorrt-rtx", generator, generator, ("sm_86",), optimization_level=1)
    config = builder_config(TENSORRT_RTX, rtx.Builder(TENSORRT_RTX.logger()), job)
    assert config.builder_optimization_level == 1
    assert not config.get_flag(rtx.BuilderFlag.TF32)


def test_progress_arrives_and_ends(generator: Path) -> None:
    heard: list[BuildProgress] = []
    build_plan(request(generator), heard.append)

    fractions = [progress.fraction for progress in heard]
    assert fractions == sorted(fractions)
    assert heard[0].phase == "reading generator.onnx"
    assert {"Building engine", "writing the plan", "checking the plan"} <= {progress.phase for progress in heard}
    assert heard[-1].phase == "built"
    assert heard[-1].fraction == 1.0
    assert heard[-1].peak_rss_bytes is not None
    assert heard[-1].peak_rss_bytes > 50_000_000


def test_reproduce_script_rebuilds_in_a_moved_folder(tmp_path: Path) -> None:
    generator = save_network(tmp_path / "bundle" / "generator.onnx")
    build_plan(request(generator, "sm_89", "sm_120", plan="engines/rtx/engine.plan"))
    moved = tmp_path / "it's moved"
    shutil.move(tmp_path / "bundle", moved)
    folder = moved / "engines/rtx"
    before = (folder / "engine.plan").read_bytes()

    script = folder / "reproduce.sh"
    environment = {**os.environ, "PYTHON": sys.executable}
    subprocess.run([script], check=True, cwd=tmp_path, env=environment, capture_output=True)
    subprocess.run([script, "again.plan"], check=True, cwd="/", env=environment, capture_output=True)

    assert (folder / "engine.plan").read_bytes() == before
    assert plan_problem(folder / "again.plan") is None
    assert b"accelerators={sm89 sm120 }" in (folder / "reproduced.plan").read_bytes()


@pytest.mark.parametrize(
    ("targets", "message"),
    [
        (("sm_88",), "no target 'sm_88'"),
        (("8.9",), "sm_75, sm_80, sm_86, sm_89, sm_120, sm_121"),
        (("sm_89", "sm_120", "sm_89"), "target sm_89 is named more than once"),
        (("sm_89", "sm_87"), "does not support sm_87 (Jetson Orin); this device needs TensorRT"),
        (("sm_90",), "does not support sm_90 (Hopper); this device needs TensorRT"),
        (("sm_110",), "does not support sm_110 (Jetson Thor); this device needs TensorRT"),
    ],
)
def test_refuses_targets_before_it_starts(generator: Path, targets: tuple[str, ...], message: str) -> None:
    heard: list[BuildProgress] = []
    with pytest.raises(UsageError) as raised:
        build_plan(request(generator, *targets), heard.append)
    assert message in str(raised.value)
    assert heard == []
    assert {path.name for path in generator.parent.iterdir()} == {"generator.onnx", "generator.onnx.data"}


def test_refuses_what_cannot_be_meant(generator: Path) -> None:
    plan = generator.with_name("engine.plan")
    with pytest.raises(UsageError, match="needs a target"):
        build_plan(BuildRequest("tensorrt-rtx", generator, plan, (), SHA256))
    with pytest.raises(UsageError, match="optimization level"):
        build_plan(request(generator, optimization_level=6))
    with pytest.raises(UsageError, match="workspace"):
        build_plan(request(generator, workspace_bytes=0))
    with pytest.raises(InputError, match=r"absent\.onnx does not exist"):
        build_plan(request(generator.with_name("absent.onnx")))
    assert not plan.exists()


def test_names_the_node_it_cannot_parse(tmp_path: Path) -> None:
    generator = save_network(tmp_path / "generator.onnx", operator="NoSuchOperator")
    plan = with_earlier_plan(generator)
    with pytest.raises(BuildError) as raised:
        build_plan(request(generator))
    assert "node 'layer0' (NoSuchOperator)" in str(raised.value)
    assert "While parsing node number 2" in str(raised.value.got), "the log's last lines are in the error"
    assert str(tmp_path / "build-failed.log") in str(raised.value.hint)
    assert "NoSuchOperator" in (tmp_path / "build-failed.log").read_text()
    assert_only_the_earlier_plan(plan, "build-failed.log")


def test_a_file_that_is_no_onnx(tmp_path: Path) -> None:
    generator = tmp_path / "generator.onnx"
    generator.write_bytes(b"not a network")
    with pytest.raises(BuildError, match=r"cannot parse generator\.onnx"):
        build_plan(request(generator))


def test_a_killed_builder_means_memory(tmp_path: Path) -> None:
    generator = save_network(tmp_path / "generator.onnx", layers=MANY_LAYERS)
    plan = with_earlier_plan(generator)

    def kill(progress: BuildProgress) -> None:
        if progress.phase == "Building engine":
            for worker in workers_of(tmp_path):
                os.kill(worker, signal.SIGKILL)

    with pytest.raises(BuildError) as raised:
        build_plan(request(generator), kill)
    assert "killed by SIGKILL: out of memory is likely" in str(raised.value)
    assert "this machine has" in str(raised.value.got)
    assert "the builder had held" in str(raised.value.got)
    assert_only_the_earlier_plan(plan, "build-failed.log")


def test_a_builder_that_ends_without_a_word(generator: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    code = "import os, sys\nsys.stderr.write('last words')\nsys.stderr.flush()\nos._exit(7)"
    with_startup_code(monkeypatch, generator.parent / "startup", code)
    with pytest.raises(BuildError, match="ended with exit code 7") as raised:
        build_plan(request(generator))
    assert "last words" in str(raised.value.got)


def test_a_missing_package_names_what_to_install(generator: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    code = """
import sys
class Block:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] == "tensorrt_rtx":
            raise ImportError("blocked: tensorrt_rtx")
sys.meta_path.insert(0, Block())
"""
    with_startup_code(monkeypatch, generator.parent / "startup", code)
    with pytest.raises(MissingComponentError) as raised:
        build_plan(request(generator))
    assert raised.value.hint == 'pip install "edgeturbo[rtx]"'
    assert not generator.with_name("engine.plan").exists()


CHILD = """
import sys
from pathlib import Path
from edgeturbo.engines.build import BuildRequest, build_plan
if sys.argv[2] == "small files only":
    import resource
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
generator = Path(sys.argv[1])
request = BuildRequest("tensorrt-rtx", generator, generator.with_name("engine.plan"), ("sm_89",), "5e" * 32)
build_plan(request, lambda progress: print(progress.phase, flush=True))
"""


def test_interrupt_ends_the_builder_and_leaves_nothing(tmp_path: Path) -> None:
    generator = save_network(tmp_path / "generator.onnx", layers=MANY_LAYERS)
    plan = with_earlier_plan(generator)
    command = [sys.executable, "-c", CHILD, str(generator), "any size"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        for line in child.stdout:
            if line.strip() == "Building engine":
                break
        workers = workers_of(tmp_path)
        child.send_signal(signal.SIGINT)
        sent = time.monotonic()
        _, complaint = child.communicate()
        seconds = time.monotonic() - sent
    assert len(workers) == 1, "the build was under way when it was interrupted"
    assert "KeyboardInterrupt" in complaint
    assert seconds < 5, "ended, not killed after a wait"
    assert workers_of(tmp_path) == []
    assert_only_the_earlier_plan(plan)


def test_a_full_disk_leaves_the_earlier_plan(generator: Path) -> None:
    plan = with_earlier_plan(generator)
    command = [sys.executable, "-c", CHILD, str(generator), "small files only"]
    child = subprocess.run(command, capture_output=True, text=True, check=False)
    assert DiskFullError.__name__ in child.stderr
    assert f"no space left to write {plan}\n" in child.stderr
    assert_only_the_earlier_plan(plan, "build-failed.log")


def test_the_builder_stops_when_nobody_listens(tmp_path: Path) -> None:
    generator = save_network(tmp_path / "generator.onnx", layers=MANY_LAYERS)
    plan = tmp_path / "engine.plan"
    command = [sys.executable, "-m", "edgeturbo.engines._build_worker", "--backend", "tensorrt-rtx"]
    command += ["--onnx", str(generator), "--plan", str(plan), "--target", "sm_89"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as worker:
        assert worker.stdout is not None
        assert b"reading" in worker.stdout.readline()
        worker.stdout.close()
        assert worker.wait(60) != 0
    assert not plan.exists()
