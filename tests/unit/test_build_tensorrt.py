"""How TensorRT proper is told to build, version by version, by a stand-in for it and for the CUDA driver.

Everything of ours is real and runs in the processes that it runs in. What TensorRT would make of it, only a GPU shows.
"""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from unit import fake_trt_builder as fake
from unit.fake_driver import compile_driver

WORKER = ["-m", "edgeturbo.engines._build_worker"]
MIB = 1 << 20
SHA256 = "5e" * 32

BUILD = """
import json, sys
from pathlib import Path
from edgeturbo.engines._schema import encode
from edgeturbo.engines.build import BuildRequest, build_plan
from edgeturbo.engines.errors import EdgeTurboError
options = json.loads(sys.argv[1])
for name in ("onnx", "plan", "timing_cache", "plan_root"):
    if name in options:
        options[name] = Path(options[name])
for name in ("targets", "fp32_islands"):
    if name in options:
        options[name] = tuple(options[name])
try:
    print(json.dumps(encode(build_plan(BuildRequest(**options)))))
except EdgeTurboError as error:
    sys.exit(f"{type(error).__name__}: {error}")
"""

# name, metadata, type, outputs. As onnx-tensorrt 8.6 makes them of a halved generator.
NETWORK = [
    ["frame_in/Cast_0", "[ONNX Layer: frame_in/Cast_0]", "CAST", ["FLOAT"]],
    ["frame_in/Mul_1", "[ONNX Layer: frame_in/Mul_1]", "ELEMENTWISE", ["FLOAT"]],
    ["frame_in/Mul_1/to_fp16", "[ONNX Layer: frame_in/Mul_1/to_fp16]", "CAST", ["HALF"]],
    ["unet/Conv_0", "[ONNX Layer: unet/Conv_0]", "CONVOLUTION", ["HALF"]],
    ["x0/Add_1", "[ONNX Layer: x0/Add_1 | a property]", "ELEMENTWISE", ["FLOAT"]],
    ["x0/Add_1_2", "", "ELEMENTWISE", ["FLOAT"]],  # a helper of x0/Add_1
    ["(Unnamed Layer* 12) [Shuffle]", "[ONNX Layer: x0/Add_1]", "ELEMENTWISE", ["FLOAT"]],  # another
    ["x0/Add_10", "[ONNX Layer: x0/Add_10]", "ELEMENTWISE", ["HALF"]],
    ["x0/Add_11", "", "ELEMENTWISE", ["HALF"]],
    ["x0/Add_1/to_fp16", "", "ELEMENTWISE", ["HALF"]],
    ["x0/Shape_3", "[ONNX Layer: x0/Shape_3]", "ELEMENTWISE", ["INT32"]],
    ["image_out/Cast_4", "[ONNX Layer: image_out/Cast_4]", "CAST", ["UINT8"]],
]
ISLANDS = ["frame_in/Cast_0", "frame_in/Mul_1", "x0/Add_1", "x0/Shape_3"]
PINNED = ["frame_in/Mul_1", "x0/Add_1", "x0/Add_1_2", "(Unnamed Layer* 12) [Shuffle]"]


@dataclass
class Bench:
    """A folder with a generator, the stand-ins, and what they write down."""

    root: Path
    environment: dict[str, str]

    @property
    def onnx(self) -> Path:
        return self.root / "generator.onnx"

    def as_version(self, version: str, **more: str) -> Bench:
        self.environment[fake.VERSION] = version
        self.environment.update(more)
        return self

    def told(self) -> dict[str, Any]:
        return json.loads((self.root / "told.json").read_text())

    def work(self, *flags: str) -> tuple[list[dict[str, Any]], str]:
        """Run the builder's process; its messages, and its log."""
        command = [sys.executable, *WORKER, "--backend", "tensorrt", "--onnx", str(self.onnx)]
        command += ["--plan", str(self.root / "engine.plan"), "--target", "sm_87", *flags]
        done = subprocess.run(command, env=self.environment, capture_output=True, text=True, check=False)
        return [json.loads(line) for line in done.stdout.splitlines()], done.stderr

    def build(self, **options: Any) -> tuple[dict[str, Any], str]:
        """The entry that ``build_plan`` returns, or the error in words, in a process of its own."""
        plan = self.root / "engines" / "tensorrt-10.3.0-sm_87" / "engine.plan"
        request = {"backend": "tensorrt", "onnx": self.onnx, "plan": plan, "targets": ["sm_87"], "onnx_sha256": SHA256}
        text = json.dumps(request | options, default=str)
        command = [sys.executable, "-c", BUILD, text]
        done = subprocess.run(command, env=self.environment, capture_output=True, text=True, check=False)
        return json.loads(done.stdout or "{}"), done.stderr


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    fake.install(tmp_path / "packages")
    driver = compile_driver(tmp_path / "driver", "Orin", "87")
    root = tmp_path / "bundle"
    root.mkdir()
    (root / "generator.onnx").write_bytes(b"a generator")
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(tmp_path / "packages"), os.environ.get("PYTHONPATH", "")]).strip(os.pathsep),
        "LD_LIBRARY_PATH": str(driver),
        fake.RECORD: str(root / "told.json"),
        fake.LAYERS: json.dumps(NETWORK),
    }
    return Bench(root, environment)


def islands() -> list[str]:
    return [word for island in ISLANDS for word in ("--fp32-island", island)]


LIMITS = ["--workspace-bytes", str(1024 * MIB), "--tactic-memory-bytes", str(4096 * MIB), "--optimization-level", "5"]


@pytest.mark.parametrize("version", fake.VERSIONS)
def test_each_version_in_its_own_words(bench: Bench, version: str) -> None:
    messages, log = bench.as_version(version).work(*LIMITS, *islands())

    assert messages[-1]["event"] == "built", log
    assert messages[-1]["version"] == version
    assert "deserialised by the runtime" in messages[-1]["checked"]
    assert (bench.root / "engine.plan").read_bytes() == b"a plan of the stand-in"
    told = bench.told()
    weak = version.startswith("8.")
    assert told["network"] == ["EXPLICIT_BATCH" if weak else "STRONGLY_TYPED"]
    assert told["pools"] == {"WORKSPACE": 1024 * MIB, "TACTIC_DRAM": 4096 * MIB}
    assert told["level"] == 5
    assert told["plugins"]
    assert told["cleared"] == ["TF32"]
    assert told["set"] == (["FP16", "OBEY_PRECISION_CONSTRAINTS"] if weak else [])
    assert bool(told.get("pinned")) == weak
    phases = [message["phase"] for message in messages[:-1]]
    expected = f"building; TensorRT {version} does not say how far it is" if weak else "Building Engine"
    assert phases[0] == "reading generator.onnx"
    assert expected in phases
    assert phases[-2:] == ["writing the plan", "checking the plan"]


def test_the_islands_of_a_weakly_typed_network_are_pinned(bench: Bench) -> None:
    _, log = bench.as_version("8.6.1").work(*islands(), "--fp32-island", "gone/Node_9")
    assert bench.told()["pinned"] == {name: ["FLOAT", ["FLOAT"]] for name in PINNED}
    assert "3 of 5 FP32 islands are pinned to FP32" in log
    assert "2 FP32 islands match no float layer of the network and are not pinned: x0/Shape_3, gone/Node_9" in log


def test_an_fp32_bundle_gets_no_fp16(bench: Bench) -> None:
    bench.as_version("8.6.1").work(*islands(), "--precision", "fp32")
    assert bench.told()["set"] == []
    assert bench.told()["cleared"] == ["TF32"]
    assert bench.told()["pinned"] == {}


def test_the_builders_own_limits_are_left_alone(bench: Bench) -> None:
    bench.as_version("10.3.0").work()
    assert bench.told()["pools"] == {}
    assert bench.told()["level"] == 3


@pytest.mark.parametrize("version", ["10.16.1", "11.1.0"])
def test_attention_may_be_decomposed(bench: Bench, version: str) -> None:
    layers = json.dumps([["a", "", "ATTENTION_INPUT", ["HALF"]], *NETWORK])
    messages, _ = bench.as_version(version, **{fake.LAYERS: layers}).work()
    assert messages[-1]["event"] == "built"
    assert bench.told()["decomposable"] is True


@pytest.mark.parametrize(
    ("version", "node"), [("8.6.1", "node 7: No importer"), ("10.3.0", "node 'unet/Gelu_7' (Gelu): No importer")]
)
def test_a_node_that_cannot_be_parsed(bench: Bench, version: str, node: str) -> None:
    messages, _ = bench.as_version(version, **{fake.REFUSE: "parse"}).work()
    assert messages[-1]["event"] == "failed"
    assert messages[-1]["error"] == "BuildError"
    assert node in messages[-1]["got"]


@pytest.mark.parametrize(
    ("refused", "error", "says"),
    [
        ("builder", "DeviceError", "could not make a builder"),
        ("build", "BuildError", "TensorRT could not build generator.onnx"),
        ("deserialize", "BuildError", "does not take the plan it has just built"),
    ],
)
def test_what_the_vendor_refuses_is_said(bench: Bench, refused: str, error: str, says: str) -> None:
    messages, _ = bench.as_version("10.16.1", **{fake.REFUSE: refused}).work()
    assert (messages[-1]["event"], messages[-1]["error"]) == ("failed", error)
    assert says in messages[-1]["what"]
    if refused == "build":
        assert "Could not find any implementation for node unet/Conv_1" in messages[-1]["got"]


def test_an_entry_says_what_the_plan_is_bound_to(bench: Bench) -> None:
    entry, error = bench.as_version("10.3.0").build(
        workspace_bytes=1024 * MIB, tactic_memory_bytes=4096 * MIB, plan_root=bench.root
    )
    assert error == ""
    assert entry["plan"] == "engines/tensorrt-10.3.0-sm_87/engine.plan"
    assert (entry["backend"], entry["version"], entry["targets"]) == ("tensorrt", "10.3.0", ["sm_87"])
    assert entry["options"] == {"workspace_bytes": str(1024 * MIB), "tactic_memory_bytes": str(4096 * MIB)}
    assert (entry["built_on"]["gpu"], entry["built_on"]["sm"]) == ("Orin", "sm_87")
    assert entry["built_on"]["driver"]
    assert entry["parity"] is None
    folder = bench.root / "engines/tensorrt-10.3.0-sm_87"
    assert {path.name for path in folder.iterdir()} == {"engine.plan", "build.log", "reproduce.sh"}


def test_a_plan_is_built_for_this_device_alone(bench: Bench) -> None:
    _, error = bench.as_version("10.3.0").build(targets=["sm_110"])
    assert "UsageError: TensorRT builds a plan on the device that runs it, and here is sm_87 (Orin)" in error
    assert "turbo-build there" in error
    bench.environment["LD_LIBRARY_PATH"] = ""
    _, error = bench.build()
    assert "MissingComponentError: TensorRT builds a plan on the device that runs it" in error
    assert not (bench.root / "engines").exists()


def test_a_script_that_comes_to_another_device_says_so(bench: Bench, tmp_path: Path) -> None:
    bench.environment["LD_LIBRARY_PATH"] = str(compile_driver(tmp_path / "thor", "Thor", "110"))
    messages, _ = bench.as_version("10.3.0").work()
    assert messages[-1]["error"] == "UsageError"
    assert "here is sm_110 (Thor)" in messages[-1]["what"]


def test_a_failed_build_leaves_its_log_and_no_plan(bench: Bench) -> None:
    cache = bench.root / "caches" / "timings"
    _, error = bench.as_version("10.3.0", **{fake.REFUSE: "build"}).build(timing_cache=cache)
    assert "BuildError: TensorRT could not build generator.onnx" in error
    folder = bench.root / "engines/tensorrt-10.3.0-sm_87"
    assert [path.name for path in folder.iterdir()] == ["build-failed.log"]
    assert not cache.parent.exists()


def test_a_timing_cache_is_read_and_written(bench: Bench) -> None:
    cache = bench.root / "caches" / "timings"
    bench.as_version("10.3.0")
    assert bench.build(timing_cache=cache)[1] == ""
    assert cache.read_text() == "orin:timed now", "a new one"
    cache.write_text("orin:earlier")
    assert bench.build(timing_cache=cache)[1] == ""
    assert cache.read_text() == "orin:earlier,timed now"
    assert [path.name for path in cache.parent.iterdir()] == ["timings"]


def test_a_timing_cache_of_another_gpu_is_refused_and_kept(bench: Bench) -> None:
    cache = bench.root / "timings"
    cache.write_text("thor:earlier")
    _, error = bench.as_version("10.3.0").build(timing_cache=cache)
    assert f"UsageError: {cache} is not a timing cache of this GPU and TensorRT 10.3.0" in error
    assert cache.read_text() == "thor:earlier"
    assert {path.name for path in bench.root.iterdir()} >= {"timings", "engines"}
    assert not list(bench.root.rglob("*.partial"))


def script_of(bench: Bench) -> str:
    return (bench.root / "engines/tensorrt-10.3.0-sm_87/reproduce.sh").read_text()


def vendor_words(script: str) -> list[str]:
    """The words of the line that begins with the vendor's tool."""
    (line,) = (line for line in script.splitlines() if line.startswith("#   trtexec"))
    return shlex.split(line.removeprefix("#"))


def test_the_script_builds_again_and_tells_trtexec(bench: Bench) -> None:
    cache = bench.root / "timings"
    _, error = bench.as_version("10.3.0").build(
        workspace_bytes=1024 * MIB,
        tactic_memory_bytes=4096 * MIB,
        optimization_level=3,
        timing_cache=cache,
        precision="fp32",
        fp32_islands=ISLANDS,
    )
    assert error == ""
    assert "fp32" not in script_of(bench), "the graph says that to a strongly typed network"
    assert vendor_words(script_of(bench)) == [
        "trtexec", "--onnx=../../generator.onnx", "--saveEngine=reproduced.plan", "--stronglyTyped", "--noTF32",
        "--memPoolSize=workspace:1024", "--builderOptimizationLevel=3", "--timingCacheFile=../../timings",
        "--skipInference",
    ]  # fmt: skip
    assert "no option for TACTIC_DRAM, 4294967296 bytes here" in script_of(bench)

    folder = bench.root / "engines/tensorrt-10.3.0-sm_87"
    (bench.root / "told.json").unlink()
    environment = {**bench.environment, "PYTHON": sys.executable}
    subprocess.run([folder / "reproduce.sh"], check=True, env=environment, capture_output=True)
    assert (folder / "reproduced.plan").read_bytes() == (folder / "engine.plan").read_bytes()
    assert bench.told()["pools"] == {"WORKSPACE": 1024 * MIB, "TACTIC_DRAM": 4096 * MIB}
    assert cache.read_text() == "orin:timed now", "reproducing reads the cache and leaves it alone"


def test_the_script_of_a_lowered_generator_asks_for_it(bench: Bench, tmp_path: Path) -> None:
    lowered = tmp_path / "lowered" / "generator.onnx"
    lowered.parent.mkdir()
    lowered.write_bytes(b"a lowered generator")
    entry, error = bench.as_version("8.6.1").build(onnx=lowered, plan_root=bench.root, fp32_islands=ISLANDS)
    assert error == ""
    assert entry["plan"] == "engines/tensorrt-10.3.0-sm_87/engine.plan"
    words = vendor_words(script_of(bench))
    assert {"--fp16", "--noTF32", "--precisionConstraints=obey"} <= set(words)
    pinned = ",".join(f"{island}:fp32" for island in ISLANDS)
    assert f"--layerPrecisions={pinned}" in words
    assert f"--layerOutputTypes={pinned}" in words

    script = bench.root / "engines/tensorrt-10.3.0-sm_87/reproduce.sh"
    environment = {**bench.environment, "PYTHON": sys.executable}
    done = subprocess.run([script], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert "set ONNX to the path of the lowered generator" in done.stderr
    subprocess.run([script], env={**environment, "ONNX": str(lowered)}, check=True, capture_output=True)
    assert script.with_name("reproduced.plan").is_file()
