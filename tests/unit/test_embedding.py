"""examples/cpp/translate_ppm.cpp, compiled and run against a simulated GPU (tests/cpp says what that is).

No package index ships TensorRT's C++ headers (NVIDIA's installation guide: "No C++ development headers" with pip), so
the declarations in tests/cpp stand in for them: they prove the program's own logic and nothing about the real library.
Where the headers are, name their folders, and the program is also compiled with them::

    EDGETURBO_TENSORRT_INCLUDE=/usr/include/aarch64-linux-gnu pytest tests/unit/test_embedding.py

Several folders are parted by ``:``; ``EDGETURBO_CUDA_INCLUDE`` names the CUDA toolkit's (/usr/local/cuda/include).
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from importlib import import_module
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import typer

ROOT = Path(__file__).resolve().parents[2]
PROGRAM = ROOT / "examples/cpp/translate_ppm.cpp"
SIMULATION = ROOT / "tests/cpp"
GUIDES = [ROOT / "docs/embedding.md", ROOT / "docs/jetson.md"]

COMPILER = os.environ.get("CXX") or shutil.which("g++") or shutil.which("clang++")
CUDA_INCLUDE = Path(os.environ.get("EDGETURBO_CUDA_INCLUDE", "/usr/local/cuda/include"))
TENSORRT_INCLUDES = [path for path in os.environ.get("EDGETURBO_TENSORRT_INCLUDE", "").split(os.pathsep) if path]
COMMANDS = ["turbo-export", "turbo-build", "turbo-run", "turbo-bench", "turbo-inspect"]
STRICT = ["-std=c++17", "-Wall", "-Wextra", "-Wpedantic", "-Werror"]

PLAN = "simulated plan\nframe uint8 in 1 2 3 3\nimage uint8 out 1 2 3 3\n"
PIXELS = np.arange(18, dtype=np.uint8).reshape(2, 3, 3)
CUDA_CALLS = [
    "cudaMalloc", "cudaMallocHost", "cudaMemcpyAsync", "cudaStreamCreate", "cudaStreamSynchronize",
    "cudaStreamBeginCapture", "cudaGraphLaunch", "cudaEventCreate", "cudaEventRecord", "cudaEventElapsedTime",
    "cudaSetDevice",
]  # fmt: skip
TENSORRT_CALLS = [
    "initLibNvInferPlugins", "createInferRuntime", "createExecutionContext", "setTensorAddress", "enqueueV3",
]  # fmt: skip

needs_compiler = pytest.mark.skipif(COMPILER is None, reason="no C++ compiler (g++, clang++ or $CXX)")


class Done(NamedTuple):
    code: int
    out: str
    err: str


def compile_with(*arguments: str | Path) -> None:
    done = subprocess.run([COMPILER, *STRICT, *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module", params=["TensorRT 10 and 11", "TensorRT 8.6"])
def binary(request, tmp_path_factory):
    """The program with 64-bit sizes in ``Dims``, as TensorRT has had them since 10, and with 8.6's 32-bit ones."""
    path = tmp_path_factory.mktemp("cpp") / "translate_ppm"
    dims = ["-DEDGETURBO_DIMS_32"] if request.param == "TensorRT 8.6" else []
    compile_with(*dims, "-I", SIMULATION, PROGRAM, SIMULATION / "simulated_gpu.cpp", "-o", path)
    return path


@pytest.fixture
def run(binary, tmp_path):
    """Runs the program beside p.plan and in.ppm; leaks and broken rules of the simulated GPU fail the test."""
    (tmp_path / "p.plan").write_text(PLAN)
    (tmp_path / "in.ppm").write_bytes(ppm(PIXELS))

    def call(*arguments: str, fail: str = "") -> Done:
        done = subprocess.run(
            [binary, *(arguments or ("p.plan", "in.ppm", "out.ppm"))],
            cwd=tmp_path, env={**os.environ, "SIMULATE": fail}, capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode not in {98, 99}, done.stderr
        assert not list(tmp_path.glob("*.part"))
        return Done(done.returncode, done.stdout, done.stderr)

    return call


def ppm(pixels, header: str = "P6\n{width} {height}\n255\n") -> bytes:
    height, width, _ = pixels.shape
    return header.format(width=width, height=height).encode() + pixels.tobytes()


@needs_compiler
def test_a_picture_goes_in_and_the_plans_image_comes_out(run, tmp_path):
    (tmp_path / "in.ppm").write_bytes(ppm(PIXELS, "P6\n# a comment\n{width} # another\n{height}\n255\n"))
    assert run() == (0, "", "")
    assert (tmp_path / "out.ppm").read_bytes() == ppm(255 - PIXELS)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.ppm", "out.ppm", "p.plan"]


@needs_compiler
def test_an_image_has_the_size_that_the_plan_gives_it(run, tmp_path):
    (tmp_path / "p.plan").write_text(PLAN.replace("image uint8 out 1 2 3 3", "image uint8 out 1 1 6 3"))
    assert run().code == 0
    assert (tmp_path / "out.ppm").read_bytes() == ppm(255 - PIXELS.reshape(1, 6, 3))


@needs_compiler
@pytest.mark.parametrize(
    ("fail", "reason"),
    [
        ("", ""),
        ("capture", "cannot be captured"),
        ("cudaStreamEndCapture=901", "simulated error 901"),
        ("cudaGraphInstantiateWithFlags=900", "simulated error 900"),
    ],
    ids=["captured", "network refuses", "capture fails", "instantiation fails"],
)
def test_the_network_is_timed_alone_and_without_a_cuda_graph_only_if_it_must(run, tmp_path, fail, reason):
    done = run("p.plan", "in.ppm", "out.ppm", "--time", "4", fail=fail)
    assert done.code == 0
    assert (tmp_path / "out.ppm").read_bytes() == ppm(255 - PIXELS)
    result = json.loads(done.out)
    assert done.out.count("\n") == 1
    # The simulated network's n-th run takes n ms and copies 100: two runs came before, and no copy is counted.
    expected = {f"p{percent}": round(np.percentile([3, 4, 5, 6], percent), 3) for percent in (50, 95, 99)}
    assert result.pop("engine_ms") == expected
    frame = result.pop("frame_ms")
    assert 0 < frame["p50"] <= frame["p95"] <= frame["p99"]
    assert result.pop("tensorrt") in {"8.6.1", "10.16.1"}
    assert result == {"device": "sm_87", "cuda_graph": not fail, "runs": 4}
    assert reason in done.err
    assert bool(done.err) == bool(fail)


@needs_compiler
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("p.plan in.ppm", "usage:"),
        ("p.plan in.ppm out.ppm more.ppm", "usage:"),
        ("p.plan in.ppm out.ppm --tmie 3", "no such option, or one without its value: --tmie"),
        ("p.plan in.ppm out.ppm --time", "without its value: --time"),
        ("p.plan in.ppm out.ppm --noise", "without its value: --noise"),
        ("p.plan in.ppm out.ppm --time 0", "from 1 on, got '0'"),
        ("p.plan in.ppm out.ppm --time 3x", "from 1 on, got '3x'"),
        ("p.plan in.ppm out.ppm --noise n.bin", "takes no noise"),
    ],
)
def test_wrong_use_is_told(run, tmp_path, arguments, message):
    done = run(*arguments.split())
    assert (done.code, done.out) == (2, "")
    assert message in done.err
    assert not (tmp_path / "out.ppm").exists()


@needs_compiler
@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "cannot read in.ppm"),
        (b"", "not a binary PPM"),
        (b"P5\n3 2\n255\n" + bytes(6), "not a binary PPM"),
        (b"P6\n3 2\n65535\n" + bytes(36), "not a binary PPM (P6) of 8 bits"),
        (b"P6\n3", "not a binary PPM"),
        (b"P6\nx y\n255\n" + bytes(18), "not a binary PPM"),
        (b"P6\n4 2\n255\n" + bytes(24), "in.ppm is 4x2, the plan takes 3x2"),
        (b"P6\n2 3\n255\n" + bytes(18), "in.ppm is 2x3, the plan takes 3x2"),
        (b"P6\n3 -2\n255\n" + bytes(18), "in.ppm is 3x-2, the plan takes 3x2"),
        (b"P6\n3 2\n255\n" + bytes(17), "has 28 bytes, its header asks for 29"),
        (b"P6\n3 2\n255\n" + bytes(19), "has 30 bytes, its header asks for 29"),
    ],
    ids=["missing", "empty", "grey", "16 bits", "cut", "letters", "size", "turned", "negative", "short", "long"],
)
def test_a_picture_that_is_not_the_plans_is_refused(run, tmp_path, content, message):
    (tmp_path / "in.ppm").unlink()
    if content is not None:
        (tmp_path / "in.ppm").write_bytes(content)
    done = run()
    assert done.code == 3
    assert message in done.err
    assert not (tmp_path / "out.ppm").exists()


@needs_compiler
@pytest.mark.parametrize(
    ("plan", "message"),
    [
        (None, "cannot read p.plan"),
        ("<folder>", "cannot read p.plan"),
        ("not a plan", "deserializeCudaEngine(bytes.data(), bytes.size()) failed"),
        (PLAN.replace("frame", "input"), "does not know what the plan's tensor input [1,2,3,3] is for"),
        (PLAN.replace("image", "output"), "does not know what the plan's tensor output [1,2,3,3] is for"),
        (PLAN.replace("image uint8", "image float32"), "does not know what the plan's tensor image [1,2,3,3] is for"),
        ("simulated plan\nimage uint8 out 1 2 3 3\n", "uint8 'frame' in, uint8 'image' out"),
        ("simulated plan\nframe uint8 in 1 2 3 3\n", "uint8 'frame' in, uint8 'image' out"),
        (PLAN.replace("frame uint8", "frame float16"), "frame [1,2,3,3] is neither uint8 nor float32"),
        (PLAN.replace("in 1 2", "in 1 -1"), "frame [1,-1,3,3] has no fixed shape"),
    ],
    ids=[
        "missing",
        "folder",
        "damaged",
        "no frame",
        "no image",
        "float",
        "output only",
        "input only",
        "fp16",
        "dynamic",
    ],
)
def test_a_plan_that_this_program_cannot_feed_is_refused(run, tmp_path, plan, message):
    (tmp_path / "p.plan").unlink()
    if plan == "<folder>":
        (tmp_path / "p.plan").mkdir()
    elif plan is not None:
        (tmp_path / "p.plan").write_text(plan)
    done = run()
    assert done.code == 3
    assert message in done.err
    assert not (tmp_path / "out.ppm").exists()


@needs_compiler
def test_tensorrts_own_words_are_shown_but_not_its_chatter(run, tmp_path):
    (tmp_path / "p.plan").write_text("not a plan")
    err = run().err
    assert "TensorRT: the plan was built by another version" in err
    assert "information" not in err


@needs_compiler
def test_noise_is_fed_in_the_plans_order_and_in_its_size_only(run, tmp_path):
    names = "noise float32 in 1 4 1 1\nposterior_noise float32 in 1 2 1 1\n"
    (tmp_path / "p.plan").write_text(PLAN.replace("image", names + "image"))
    missing = run()
    assert missing.code == 2
    assert "--noise FILE of float32 for noise [1,4,1,1] posterior_noise [1,2,1,1]" in missing.err
    np.array([10, 0, 0, 0, 20, 0], np.float32).tofile(tmp_path / "noise.bin")
    assert run("p.plan", "in.ppm", "--noise", "noise.bin", "out.ppm") == (0, "", "")
    assert (tmp_path / "out.ppm").read_bytes() == ppm(255 - PIXELS - 10 - 2 * 20)
    (tmp_path / "noise.bin").write_bytes(bytes(25))
    wrong = run("p.plan", "in.ppm", "out.ppm", "--noise", "noise.bin")
    assert wrong.code == 3
    assert "noise.bin has 25 bytes, the plan's noise takes 24" in wrong.err


@needs_compiler
def test_a_plan_of_camera_bytes_takes_and_gives_raw_files(run, tmp_path):
    (tmp_path / "p.plan").write_text("simulated plan\nframe uint8 in 1 6 4\nimage uint8 out 1 6 4\n")
    nv12 = np.arange(24, dtype=np.uint8)
    nv12.tofile(tmp_path / "frame.nv12")
    assert run("p.plan", "frame.nv12", "image.nv12").code == 0
    assert (tmp_path / "image.nv12").read_bytes() == (255 - nv12).tobytes()
    refused = run("p.plan", "in.ppm", "image.nv12")
    assert refused.code == 3
    assert "in.ppm has 29 bytes, the plan's frame [1,6,4] takes 24" in refused.err


@needs_compiler
@pytest.mark.parametrize("call", [*CUDA_CALLS, *TENSORRT_CALLS])
def test_a_failing_call_is_named_with_its_line_and_leaves_nothing_behind(run, tmp_path, call):
    (tmp_path / "out.ppm").write_bytes(b"the earlier picture")
    done = run("p.plan", "in.ppm", "out.ppm", "--time", "1", fail=f"{call}=2")
    assert done.code == 6
    assert re.search(rf"translate_ppm\.cpp:\d+: .*\b{call}\(", done.err), done.err
    if call in CUDA_CALLS:
        assert "simulated error 2" in done.err
    assert (tmp_path / "out.ppm").read_bytes() == b"the earlier picture"


@needs_compiler
@pytest.mark.parametrize("code", [35, 100], ids=["driver too old", "no GPU"])
def test_a_machine_without_an_nvidia_gpu_is_a_missing_component(run, code):
    assert run(fail=f"cudaSetDevice={code}").code == 4


@needs_compiler
def test_a_place_that_cannot_be_written_is_told_and_left_clean(run, tmp_path):
    (tmp_path / "out.ppm").mkdir()
    assert run().code == 6
    missing = run("p.plan", "in.ppm", "nowhere/out.ppm")
    assert missing.code == 6
    assert "cannot write nowhere/out.ppm" in missing.err


@needs_compiler
@pytest.mark.skipif(
    not (CUDA_INCLUDE / "cuda_runtime_api.h").exists(),
    reason=f"no CUDA toolkit in {CUDA_INCLUDE} (EDGETURBO_CUDA_INCLUDE)",
)
def test_program_and_simulation_compile_with_the_cuda_toolkits_own_header():
    for source in (PROGRAM, SIMULATION / "simulated_gpu.cpp"):
        compile_with("-fsyntax-only", "-isystem", CUDA_INCLUDE, "-I", SIMULATION, source)


@needs_compiler
@pytest.mark.skipif(not TENSORRT_INCLUDES, reason="TensorRT's C++ headers: EDGETURBO_TENSORRT_INCLUDE names no folder")
@pytest.mark.parametrize("include", TENSORRT_INCLUDES or ["unset"])
def test_the_program_compiles_with_tensorrts_own_headers(include):
    assert (Path(include) / "NvInfer.h").exists(), f"EDGETURBO_TENSORRT_INCLUDE: no NvInfer.h in {include}"
    compile_with("-fsyntax-only", "-isystem", include, "-isystem", CUDA_INCLUDE, PROGRAM)


def test_what_the_guide_shows_of_the_program_is_in_the_program():
    shown = re.findall(r"^```cpp\n(.*?)^```$", GUIDES[0].read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    program = PROGRAM.read_text(encoding="utf-8")
    assert len(shown) == 2
    for excerpt in shown:
        assert excerpt in program


def parameters_of(command: str) -> list[str]:
    """What Typer makes of a command's signature: options with their dashes, arguments without."""
    program = import_module(f"edgeturbo.cli.{command.removeprefix('turbo-')}")
    app = typer.Typer(add_completion=False)
    app.command()(getattr(program, command.removeprefix("turbo-")))
    return [name for parameter in typer.main.get_command(app).params for name in parameter.opts]


@pytest.mark.parametrize("guide", GUIDES, ids=lambda path: path.stem)
def test_the_options_that_the_guides_name_exist(guide):
    command = re.compile(r"(turbo-\w+|translate_ppm\b)([^\n`]*)")
    declared = {name: set(parameters_of(name)) for name in COMMANDS}
    declared["translate_ppm"] = set(re.findall(r"--[a-z-]+", PROGRAM.read_text(encoding="utf-8")))
    used = [
        (name, option)
        for name, rest in command.findall(guide.read_text(encoding="utf-8"))
        for option in re.findall(r"(?<!\S)--[a-z][a-z-]*", rest.partition("#")[0])
    ]
    assert used
    assert [(name, option) for name, option in used if option not in declared[name]] == []


@pytest.mark.parametrize("guide", GUIDES, ids=lambda path: path.stem)
def test_the_guides_links_lead_somewhere(guide):
    text = re.sub(r"^```.*?^```$|`[^`\n]*`", "", guide.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    for target in re.findall(r"\]\(((?!https?:)[^)]+)\)", text):
        path, _, anchor = target.partition("#")
        there = (guide.parent / path).resolve() if path else guide
        assert there.exists(), target
        headings = re.findall(r"^#+ (.+)$", there.read_text(encoding="utf-8"), re.MULTILINE) if anchor else []
        slugs = {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}
        assert not anchor or anchor in slugs, target
    named = set(re.findall(r"\]\[([\w-]+)\]", text))
    assert named == set(re.findall(r"^\[([\w-]+)\]: https://", text, re.MULTILINE))
