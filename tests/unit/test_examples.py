"""The examples: the GStreamer element runs in a real pipeline; the ROS node uses only what edgeturbo has."""

from __future__ import annotations

import ast
import importlib
import inspect
import os
import shutil
import site
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree as ET

import edgeturbo
import numpy as np
import pytest
from edgeturbo.engines.errors import EdgeTurboError
from edgeturbo.runtime.channel import LatestSlot
from edgeturbo.runtime.stats import StreamStats
from edgeturbo.runtime.translator import Translator

ROOT = Path(edgeturbo.__file__).parent
GSTREAMER = ROOT / "examples" / "gstreamer"
ELEMENT = GSTREAMER / "python" / "turbotranslate.py"
ROS = ROOT / "examples" / "ros2"
NODE = ROS / "turbo_node.py"

HANG = 120.0
FRAMES, WIDTH, HEIGHT = 4, 62, 50  # rows of 186 bytes, which GStreamer fills up to 188

# The same pipeline without GStreamer's loader of Python plugins.
PROGRAM = """
import sys
import turbotranslate
from gi.repository import Gst
Gst.Element.register(None, *turbotranslate.__gstelementfactory__)
pipeline = Gst.parse_launch(sys.argv[1])
pipeline.set_state(Gst.State.PLAYING)
message = pipeline.get_bus().timed_pop_filtered(60 * Gst.SECOND, Gst.MessageType.EOS | Gst.MessageType.ERROR)
pipeline.set_state(Gst.State.NULL)
if message is None or message.type == Gst.MessageType.ERROR:
    sys.exit("ERROR: " + (str(message.parse_error()) if message else "nothing happened"))
"""


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """In which the system's interpreter finds edgeturbo, and what it needs, among our packages."""
    python = shutil.which("python3", path="/usr/bin:/usr/local/bin")
    if python is None or shutil.which("gst-launch-1.0") is None:
        pytest.skip("no gst-launch-1.0 (gstreamer1.0-tools) or no python3 of the system's")
    packages = tmp_path / "packages"
    packages.mkdir()
    (packages / "edgeturbo").symlink_to(ROOT)
    chosen = {
        **os.environ,
        # The loader's interpreter takes the libraries of the first python3 on the path for its own.
        "PATH": os.pathsep.join([str(Path(python).parent), os.environ["PATH"]]),
        "GST_PLUGIN_PATH": str(GSTREAMER),
        "GST_REGISTRY": str(tmp_path / "registry.bin"),
        "PYTHONPATH": os.pathsep.join([str(packages), *site.getsitepackages()]),
        "EDGETURBO_TEST_PYTHON": python,
    }
    wanted = "import gi, numpy, onnxruntime; gi.require_version('GstVideo', '1.0'); import gi.repository.GstVideo"
    tried = subprocess.run(
        [python, "-c", wanted], env=chosen, capture_output=True, text=True, check=False, timeout=HANG
    )
    if tried.returncode:
        reason = (tried.stderr.strip().splitlines() or ["no reason"])[-1]
        pytest.skip(f"{python} cannot use GStreamer and our packages together: {reason}")
    return chosen


def launch(how: str, pipeline: str, environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    if how == "loader":
        inspected = subprocess.run(
            ["gst-inspect-1.0", "python"], env=environment, capture_output=True, check=False, timeout=HANG
        )
        if inspected.returncode:
            pytest.skip("GStreamer has no loader of Python plugins (gstreamer1.0-python3-plugin-loader)")
        command = ["gst-launch-1.0", "-q", *pipeline.split()]
    else:
        command = [environment["EDGETURBO_TEST_PYTHON"], "-c", PROGRAM, pipeline]
        environment = {**environment, "PYTHONPATH": f"{ELEMENT.parent}{os.pathsep}{environment['PYTHONPATH']}"}
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=HANG)


@pytest.mark.parametrize("how", ["loader", "program"])
def test_the_gstreamer_element_translates_every_frame_at_its_own_size(how, environment, make_bundle, tmp_path):
    bundle, out = make_bundle(), tmp_path / "out.rgb"
    red = f"videotestsrc num-buffers={FRAMES} pattern=red ! video/x-raw,width={WIDTH},height={HEIGHT} ! videoconvert"
    done = launch(
        how, f"{red} ! turbotranslate engine={bundle.root} backend=onnxruntime ! filesink location={out}", environment
    )
    assert done.returncode == 0, done.stderr
    rows = np.fromfile(out, np.uint8).reshape(FRAMES, HEIGHT, -1)
    assert rows.shape[2] == 188
    pixels = rows[..., : WIDTH * 3].reshape(FRAMES, HEIGHT, WIDTH, 3)
    assert (pixels == (0, 255, 255)).all()


@pytest.mark.parametrize("how", ["loader", "program"])
def test_the_gstreamer_element_says_what_is_wrong_with_its_bundle(how, environment, tmp_path):
    nowhere = tmp_path / "nowhere"
    done = launch(
        how, f"videotestsrc num-buffers=1 ! videoconvert ! turbotranslate engine={nowhere} ! fakesink", environment
    )
    assert done.returncode != 0
    assert f"{nowhere} does not exist" in done.stderr


def node_tree() -> ast.Module:
    return ast.parse(NODE.read_text(encoding="utf-8"), NODE.name)


def imported(tree: ast.Module) -> dict[str, object]:
    """What the node imports from edgeturbo, by name; fails where it is not there."""
    found = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("edgeturbo"):
            module = importlib.import_module(node.module)
            found |= {name.name: getattr(module, name.name) for name in node.names}
    return found


def attributes_of(tree: ast.Module, owner: str) -> Iterator[str]:
    """Every NAME in ``self.owner.NAME``."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Attribute) and node.value.attr == owner:
            yield node.attr


def test_the_ros_node_calls_edgeturbo_as_it_can_be_called():
    tree = node_tree()
    names = imported(tree)
    calls = [
        node for node in ast.walk(tree)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in names
    ]  # fmt: skip
    assert {call.func.id for call in calls} >= {"Translator", "choose", "Frame", "Emission", "StreamStats"}
    for call in calls:
        keywords = {keyword.arg: None for keyword in call.keywords}
        inspect.signature(names[call.func.id]).bind(*call.args, **keywords)


@pytest.mark.parametrize(
    ("owner", "known"),
    [
        ("_stats", set(dir(StreamStats()))),
        ("_slot", set(dir(LatestSlot()))),
        ("_translate", {*dir(Translator), "choice", "reason", "bundle", "guard"}),
        ("error", set(dir(EdgeTurboError))),
    ],
)
def test_the_ros_node_uses_only_what_its_parts_have(owner, known):
    used = set(attributes_of(node_tree(), owner))
    assert used
    assert used <= known


def test_the_ros_package_is_complete():
    for script in (NODE, ROS / "setup.py"):
        compile(script.read_text(encoding="utf-8"), script.name, "exec")
    package = ET.parse(ROS / "package.xml").getroot()  # noqa: S314 -- our own file
    depends = {element.text for element in package.findall("exec_depend")}
    roots = {node.module.split(".")[0] for node in ast.walk(node_tree()) if isinstance(node, ast.ImportFrom)}
    assert roots - {"edgeturbo", "PIL", *sys.stdlib_module_names} <= depends
    name = package.findtext("name")
    assert (ROS / "resource" / name).is_file()
    setup = (ROS / "setup.py").read_text(encoding="utf-8")
    assert f'name="{name}"' in setup
    assert f'version="{package.findtext("version")}"' in setup


def test_the_readmes_name_every_parameter_and_property():
    readme = (ROS / "README.md").read_text(encoding="utf-8")
    parameters = next(
        ast.literal_eval(node.value) for node in node_tree().body
        if isinstance(node, ast.Assign) and node.targets[0].id == "_PARAMETERS"
    )  # fmt: skip
    assert all(f"| `{name}` |" in readme for name in parameters)
    described = (GSTREAMER / "README.md").read_text(encoding="utf-8")
    assert all(f"| `{name}` |" in described for name in ("engine", "backend"))
