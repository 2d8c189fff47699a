"""The package as a whole: what is in the wheel, what an import costs, and the rules that its code keeps."""

from __future__ import annotations

import ast
import inspect
import re
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import edgeturbo
import pytest
from edgeturbo.engines import errors

ROOT = Path(edgeturbo.__file__).resolve().parent
# 3.11 has tomllib, 3.10 has not: these few lines are read by what they look like.
PYPROJECT = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
PACKAGES = re.findall(r'"(edgeturbo[\w.]*)"', PYPROJECT.partition("\npackages = [")[2].partition("]")[0])

HEAVY = frozenset(
    {"av", "cuda", "cv2", "diffusers", "gi", "huggingface_hub", "onnx", "onnx_ir", "onnxruntime", "onnxscript",
     "openvino", "peft", "prometheus_client", "safetensors", "tensorrt", "tensorrt_rtx", "torch", "transformers"}
)  # fmt: skip
# These subclass torch's and onnx-ir's own classes, so they cannot be imported without them.
EXCEPTIONS = re.compile(
    r"edgeturbo\.export\.(generator|reference|oracle|passes\.\w+|demo\.(network|train|checkpoint)\w*)"
)

MAX_FILE_LINES, MAX_FUNCTION_LINES = 400, 60


def sources() -> dict[str, Path]:
    """Every module of the package by its name."""
    found = {}
    for package in PACKAGES:
        folder = ROOT.joinpath(*package.split(".")[1:])
        for path in sorted(folder.glob("*.py")):
            found[package if path.stem == "__init__" else f"{package}.{path.stem}"] = path
    return found


SOURCES = sources()
TREES = {name: ast.parse(path.read_text(encoding="utf-8")) for name, path in SOURCES.items()}


def is_exception(module: str) -> bool:
    return EXCEPTIONS.fullmatch(module) is not None


def module_level_imports(module: str) -> set[str]:
    """What is imported when ``module`` is: absolute names, those under TYPE_CHECKING and in functions left out."""
    package = module if SOURCES[module].name == "__init__.py" else module.rpartition(".")[0]
    imported: set[str] = set()
    waiting: list[ast.AST] = list(TREES[module].body)
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.Import):
            imported.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            source = ".".join([*above, *([node.module] if node.module else [])])
            imported.add(source)
            imported.update(f"{source}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test):
            waiting.extend(node.orelse)
        elif not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            waiting.extend(ast.iter_child_nodes(node))
    return imported


def python(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)


def test_every_folder_with_code_is_in_the_wheel_and_nothing_else():
    hidden = {"tests", "build", "dist"}
    folders = {
        path.parent.relative_to(ROOT)
        for path in ROOT.rglob("__init__.py")
        if not any(part in hidden or part.startswith((".", "_")) for part in path.relative_to(ROOT).parts[:-1])
    }
    found = {".".join(["edgeturbo", *folder.parts]) for folder in folders}
    assert sorted(found) == sorted(PACKAGES)
    with_code = {path.parent for path in SOURCES.values()}
    assert with_code == {ROOT / folder for folder in folders}


def test_the_versions_agree():
    declared = re.search(r'^version = "([^"]+)"', PYPROJECT, re.MULTILINE)
    assert declared is not None
    assert edgeturbo.__version__ == declared[1]


BLOCKED = """
import sys
HEAVY = {heavy!r}

class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in HEAVY:
            raise ImportError(f"{{name}} is blocked")

sys.meta_path.insert(0, Blocker())
import importlib
for module in {modules!r}:
    try:
        importlib.import_module(module)
    except ImportError as error:
        print(module, error)
"""


def test_every_module_imports_without_any_heavy_library():
    light = [module for module in SOURCES if not is_exception(module)]
    done = python(BLOCKED.format(heavy=set(HEAVY), modules=light))
    assert (done.returncode, done.stdout) == (0, ""), done.stdout + done.stderr
    assert len(light) > 30


def test_the_named_exceptions_are_the_heavy_modules_and_nobody_else_imports_them():
    heavy = {
        module for module in SOURCES if any(name.partition(".")[0] in HEAVY for name in module_level_imports(module))
    }
    assert heavy <= {module for module in SOURCES if is_exception(module)}
    assert "edgeturbo.export.generator" in heavy
    for module in SOURCES:
        taken = {name for name in module_level_imports(module) if is_exception(name)}
        assert not taken or is_exception(module), f"{module} imports {taken} at module level"


def test_the_error_trees_drawing_is_the_error_tree():
    row = re.compile(r"^ {4}(?P<indent>[│ ]*)(?:[├└]── )?(?P<name>\w+Error)(?: +(?P<code>\d))?(?:  |$)", re.MULTILINE)
    drawn: dict[str, tuple[str | None, int]] = {}
    path: list[str] = []
    for match in row.finditer(inspect.getdoc(errors)):
        depth = 0 if not path else len(match["indent"]) // 4 + 1
        path = [*path[:depth], match["name"]]
        inherited = drawn[path[-2]][1] if depth else 1
        drawn[match["name"]] = (path[-2] if depth else None, int(match["code"] or inherited))
    root = errors.EdgeTurboError
    defined = {
        name: (None if kind is root else kind.__base__.__name__, kind.exit_code)
        for name, kind in vars(errors).items()
        if isinstance(kind, type) and issubclass(kind, root)
    }
    assert drawn == defined
    # Only the five kinds below the root, and the root itself, say a code of their own.
    assert {kind.__name__ for kind in [root, *root.__subclasses__()]} == {
        name for name in defined if "exit_code" in vars(getattr(errors, name))
    }


def test_an_error_says_what_failed_what_was_expected_and_what_to_try():
    error = errors.UsageError("it failed", expected="a", got="b", hint="--c")
    assert str(error) == "it failed\n  expected: a\n  got: b\n  try: --c"
    assert str(errors.UsageError("it failed")) == "it failed"


@pytest.mark.parametrize("command", ["turbo-export", "turbo-build", "turbo-run", "turbo-bench", "turbo-inspect"])
def test_the_commands_are_installed_and_answer(command):
    (entry,) = metadata.entry_points(group="console_scripts", name=command)
    done = subprocess.run(
        [Path(sys.executable).with_name(command), "--help"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert entry.value == f"edgeturbo.cli.{command.removeprefix('turbo-')}:main"
    assert "--help" in done.stdout


def test_help_needs_no_heavy_library():
    done = python(
        BLOCKED.format(heavy=set(HEAVY), modules=["edgeturbo.cli.run"])
        + "\nsys.argv = ['turbo-run', '--help']\nsys.modules['edgeturbo.cli.run'].main()"
    )
    assert done.returncode == 0, done.stderr


def test_public_names_are_there():
    for name in edgeturbo.__all__:
        assert getattr(edgeturbo, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'nobody'"):
        _ = edgeturbo.nobody


@pytest.mark.parametrize("module", SOURCES)
def test_library_code_neither_prints_nor_asserts(module):
    for node in ast.walk(TREES[module]):
        assert not isinstance(node, ast.Assert), f"{SOURCES[module]}:{node.lineno} asserts"
        called = isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id
        assert called != "print", f"{SOURCES[module]}:{node.lineno} prints"


@pytest.mark.parametrize("module", SOURCES)
def test_files_and_functions_are_short_enough_to_read(module):
    lines = len(SOURCES[module].read_text(encoding="utf-8").splitlines())
    assert lines <= MAX_FILE_LINES, f"{SOURCES[module]} has {lines} lines"
    for node in ast.walk(TREES[module]):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            length = node.end_lineno - node.lineno + 1
            assert length <= MAX_FUNCTION_LINES, f"{SOURCES[module]}: {node.name} has {length} lines"


@pytest.mark.parametrize("module", SOURCES)
def test_imports_inside_the_package_are_relative(module):
    absolute = {
        name
        for node in ast.walk(TREES[module])
        if isinstance(node, ast.Import | ast.ImportFrom) and not getattr(node, "level", 0)
        for name in ([node.module] if isinstance(node, ast.ImportFrom) else [alias.name for alias in node.names])
    }
    assert not {name for name in absolute if name.partition(".")[0] == "edgeturbo"}


@pytest.mark.parametrize("module", [module for module in SOURCES if module.startswith("edgeturbo.runtime")])
def test_no_stream_asks_the_clock_on_the_wall(module):
    """It may jump: by NTP, by hand, at a leap second. A monotonic one does not."""
    asked = [
        f"{node.value.id}.{node.attr}"
        for node in ast.walk(TREES[module])
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name)
    ]
    assert not {"time.time", "time.time_ns", "datetime.now", "datetime.utcnow", "time.localtime"} & set(asked)
