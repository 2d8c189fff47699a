"""What the sources ask of TensorRT's Python interface is there, in each version that may run the code that asks.

``tests/tensorrt_api/names.json`` holds the names of five versions' bindings, read from their extension modules (which
cannot be imported without NVIDIA's libraries; ``collect.py`` says how): a name that is there, not in which class it
is. Of TensorRT for RTX the installed package itself is asked.
"""

from __future__ import annotations

import ast
import inspect
import json
import platform
import re
import shutil
import subprocess
from functools import cache
from pathlib import Path

import pytest
from tensorrt_api import collect, usage

ROOT = Path(__file__).resolve().parents[2]
NAMES = ROOT / "tests/tensorrt_api/names.json"

EVERY = "every version"
# The modules that talk to the vendors' libraries, and the versions that may run each as a whole.
MODULES = {
    "_build_trt": EVERY,
    "_build_trt_islands": EVERY,
    "_buffer_set": EVERY,
    "_plan_engine": EVERY,
    "tensorrt": "tensorrt",
    "tensorrt_rtx": "tensorrt_rtx",
    "vendor": EVERY,
}


@cache
def names_of_tensorrt() -> dict[str, frozenset[str]]:
    found = json.loads(NAMES.read_text(encoding="utf-8"))
    return {
        version: frozenset(name for name, known in found["names"].items() if known[index] == "+")
        for index, version in enumerate(found["versions"])
    }


@cache
def names_of_rtx() -> frozenset[str]:
    """The attributes of the installed package and of its classes, and the keywords that its docstrings name."""
    trt = pytest.importorskip("tensorrt_rtx", reason="tensorrt_rtx cannot be imported", exc_type=ImportError)
    names: set[str] = set()
    waiting, seen = [trt], set()
    while waiting:
        owner = waiting.pop()
        seen.add(owner)
        for name, value in inspect.getmembers(owner):
            names.add(name)
            if inspect.isclass(value) and value not in seen and value.__module__.startswith("tensorrt_rtx"):
                waiting.append(value)
            elif callable(value):
                names.update(re.findall(r"(\w+): ", str(value.__doc__).partition("\n")[0]))
    return frozenset(names)


def api() -> dict[str, frozenset[str]]:
    return {**names_of_tensorrt(), usage.RTX: names_of_rtx()}


def trees(folder: Path = ROOT / "engines") -> dict[str, ast.Module]:
    return {name: ast.parse((folder / f"{name}.py").read_text(encoding="utf-8")) for name in MODULES}


@cache
def others() -> dict[str, ast.Module]:
    """The rest of the package."""
    ours = {ROOT / "engines" / f"{name}.py" for name in MODULES}
    paths = [
        path
        for path in ROOT.glob("*/**/*.py")
        if path.parts[len(ROOT.parts)] in ("engines", "runtime", "export", "cli", "benchmarks")
    ]
    return {str(path): ast.parse(path.read_text(encoding="utf-8")) for path in {*paths, *ROOT.glob("*.py")} - ours}


def bases() -> dict[str, frozenset[str]]:
    rtx = frozenset({usage.RTX})
    kinds = {EVERY: frozenset(api()), "tensorrt": frozenset(api()) - rtx, "tensorrt_rtx": rtx}
    return {module: kinds[kind] for module, kind in MODULES.items()}


def complaints(modules: dict[str, ast.Module], rest: dict[str, ast.Module]) -> list[str]:
    known = api()
    used, asked = usage.uses(modules, bases(), known, rest)
    lacking = [
        (use, [version for version, names in known.items() if version in use.versions and use.name not in names])
        for use in used
    ]
    return [
        *(f"{use.module}.py:{use.line}: '{use.name}' is not in {', '.join(lacks)}" for use, lacks in lacking if lacks),
        *(
            f"{use.module}.py:{use.line}: asks for '{use.name}', which no version has"
            for use in asked
            if not any(use.name in names for names in known.values())
        ),
    ]


def test_every_name_we_use_is_in_every_version_that_may_run_the_code():
    assert complaints(trees(), others()) == []


def test_the_uses_are_really_found():
    used, asked = usage.uses(trees(), bases(), api(), others())
    by_name = {(use.module, use.name): use.versions for use in used}
    every, rtx = frozenset(api()), frozenset({usage.RTX})
    old = frozenset({"8.6.1"})
    expected = {
        ("_build_trt", "build_serialized_network"): every,
        ("_build_trt", "EXPLICIT_BATCH"): old,
        ("_build_trt", "num_compute_capabilities"): rtx,
        ("_build_trt", "ignore_mismatch"): every,
        ("_build_trt", "phase_start"): every - old,
        ("_build_trt_islands", "OBEY_PRECISION_CONSTRAINTS"): old,
        ("_build_trt_islands", "set_output_type"): old,
        ("_buffer_set", "execute_async_v3"): every,
        ("_buffer_set", "device_memory_size"): old,
        ("_plan_engine", "deserialize_cuda_engine"): every,
        ("tensorrt", "USER_MANAGED"): every - old - rtx,
        ("tensorrt_rtx", "MALFORMED_ENGINE"): rtx,
        ("vendor", "INTERNAL_ERROR"): every,
    }
    assert {key: by_name.get(key) for key in expected} == expected
    assert {use.module for use in used} == set(MODULES)
    assert {"STRONGLY_TYPED", "progress_monitor"} <= {use.name for use in asked}


def test_no_other_module_takes_hold_of_the_vendors_libraries():
    foreign = {
        path
        for path, tree in others().items()
        for node in ast.walk(tree)
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and (node.func.attr, ast.unparse(node.func.value))
        in {("load", "TENSORRT"), ("load", "TENSORRT_RTX"), ("load", "vendor")}
    }
    assert foreign == set()


BROKEN = [
    ("config.tactic_sources_typo = 1", "'tactic_sources_typo' is not in 8.6.1, 10.3.0, 10.13.3.9, 10.16.1.11, 11.4"),
    ("config.set_flag(trt.BuilderFlag.FP16)", "'FP16' is not in 11.4.0.106, tensorrt_rtx"),
    ("if config: config.set_flag(trt.BuilderFlag.FP16)", "'FP16' is not in 11.4.0.106, tensorrt_rtx"),
    ("flags = trt.BuilderFlag\n    config.set_flag(flags.FP16)", "'FP16' is not in 11.4.0.106, tensorrt_rtx"),
    ("for flag in [trt.BuilderFlag]: config.set_flag(flag.FP16)", "'FP16' is not in 11.4.0.106, tensorrt_rtx"),
    ("getattr(trt.BuilderFlag, 'FP16')", "'FP16' is not in 11.4.0.106, tensorrt_rtx"),
    ("if not hasattr(trt.BuilderFlag, 'FP16'): print(trt.BuilderFlag.FP16)", "'FP16' is not in 11.4.0.106"),
    ("if hasattr(trt, 'Builder'): print(trt.BuilderFlag.FP16)", "'FP16' is not in 11.4.0.106, tensorrt_rtx"),
    ("hasattr(trt.BuilderFlag, 'FP16') or trt.BuilderFlag.FP16", "'FP16' is not in 11.4.0.106, tensorrt_rtx"),
    ("if hasattr(config, 'progres_monitor'): print(1)", "asks for 'progres_monitor', which no version has"),
    ("getattr(config, 'progres_monitor', None)", "asks for 'progres_monitor', which no version has"),
    ("config.set_timing_cache(cache, ignore_mismatches=False)", "'ignore_mismatches' is not in"),
    ("_given(trt)", "'PREFER_PRECISION_CONSTRAINTS' is not in 11.4.0.106, tensorrt_rtx"),
    ("made().num_compute_capabilites", "'num_compute_capabilites' is not in"),
    ("class Mine(trt.ILogger):\n        def lgo(self) -> None: ...", "'lgo' is not in 8.6.1"),
    ("if vendor is TENSORRT: config.num_compute_capabilities = 1", "'num_compute_capabilities' is not in 8.6.1, "),
    ("print(getattr(config, '_'.join(x)))", "'<'_'.join(x)>' is not in"),
]  # fmt: skip
SOUND = [
    "if hasattr(trt.BuilderFlag, 'FP16'): print(trt.BuilderFlag.FP16)",
    "if not hasattr(trt.BuilderFlag, 'FP16'): return\n    print(trt.BuilderFlag.FP16)",
    "print(trt.BuilderFlag.FP16 if hasattr(trt.BuilderFlag, 'FP16') else 0)",
    "hasattr(trt.BuilderFlag, 'FP16') and trt.BuilderFlag.FP16",
    "not hasattr(trt.BuilderFlag, 'FP16') or trt.BuilderFlag.FP16",
    "if typed(trt) and config: print(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED)",
    "print(trt.BuilderFlag.FP16 if not typed(trt) else trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED)",
    "kind = getattr(trt.LayerType, 'ATTENTION_INPUT', None)\n    if kind is not None: print(trt.IAttentionInputLayer)",
    "kind = getattr(trt.LayerType, 'ATTENTION_INPUT', None)\n    if kind is None: return\n    trt.IAttentionInputLayer",
    "name = 'node_name' if hasattr(config, 'node_name') else 'node'\n    getattr(config, name)",
    "if vendor is TENSORRT_RTX: config.num_compute_capabilities = 1",
    "if not typed(trt): _given(trt)",
    "try:\n        print(trt.BuilderFlag.FP16)\n    except AttributeError: return",
    "print(config.name.split('.'), trt.__version__.partition('.'), len(x).bit_length(), x.anything)",
]
SAMPLE = """
def typed(trt: Any) -> bool:
    return hasattr(trt.NetworkDefinitionCreationFlag, "STRONGLY_TYPED")

def made() -> Any:
    ...

def _given(trt: Any) -> None:
    print(trt.BuilderFlag.PREFER_PRECISION_CONSTRAINTS)

def build(vendor: Vendor, trt: Any, config: Any, x: str) -> None:
    if not typed(trt):
        _given(trt)
    {}
"""


def sample_complaints(code: str) -> list[str]:
    return complaints({"_build_trt": ast.parse(SAMPLE.format(code))}, {})


@pytest.mark.parametrize(("code", "complaint"), BROKEN)
def test_a_name_that_some_version_lacks_is_found(code, complaint):
    (found,) = sample_complaints(code)
    assert complaint in found


@pytest.mark.parametrize("code", SOUND)
def test_a_name_that_is_asked_for_first_is_left_alone(code):
    assert sample_complaints(code) == []


@pytest.mark.parametrize("module", MODULES)
def test_a_slip_in_any_of_the_modules_is_found(module):
    modules = trees()
    modules[module].body += ast.parse("def slip(config: Any) -> None:\n    config.tactic_sources_typo = 1").body
    (found,) = complaints(modules, others())
    assert found.startswith(f"{module}.py:2: 'tactic_sources_typo' is not in")


@pytest.mark.parametrize(
    ("name", "versions"),
    [
        ("build_serialized_network", "+++++"),
        ("FP16", "++++-"),
        ("EXPLICIT_BATCH", "++++-"),
        ("OBEY_PRECISION_CONSTRAINTS", "++++-"),
        ("STRONGLY_TYPED", "-++++"),
        ("device_memory_size", "++++-"),
        ("device_memory_size_v2", "-++++"),
        ("tiling_optimization_level", "--+++"),
        ("IAttentionInputLayer", "---++"),
        ("max_workspace_size", "+----"),
    ],
)
def test_the_collected_names_agree_with_the_release_notes(name, versions):
    # TensorRT's release notes and its bindings' sources (github.com/NVIDIA/TensorRT, python/src/infer) by version.
    assert json.loads(NAMES.read_text(encoding="utf-8"))["names"][name] == versions


def test_the_collected_file_is_what_the_collector_writes():
    content = NAMES.read_text(encoding="utf-8")
    found = json.loads(content)
    assert found["versions"] == ["8.6.1", "10.3.0", "10.13.3.9", "10.16.1.11", "11.4.0.106"]
    assert all(len(known) == len(found["versions"]) for known in found["names"].values())
    assert list(found["names"]) == sorted(found["names"])
    assert len(content) < 150_000


C_SOURCE = """
static const char stray[] __attribute__((used)) = "nobody_points_here";
const char* const table[] = {"in_a_table", "N8nvinfer15ILayerE"};
const char* pick(int n) { return n ? "picked_first" : "picked_second"; }
"""


@pytest.mark.skipif(platform.machine() != "x86_64" or shutil.which("cc") is None, reason="needs cc on x86-64")
def test_the_collector_finds_the_names_that_code_points_to(tmp_path):
    (tmp_path / "names.c").write_text(C_SOURCE)
    library = tmp_path / "names.so"
    subprocess.run(["cc", "-O1", "-fPIC", "-shared", "-o", library, tmp_path / "names.c"], check=True)
    names = collect.names_in_extension(library.read_bytes())
    assert {"in_a_table", "picked_first", "picked_second"} <= names
    assert not {"nobody_points_here", "first", "N8nvinfer15ILayerE"} & names
