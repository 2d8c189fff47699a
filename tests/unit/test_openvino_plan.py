"""OpenVINO's plans: built, loaded again, and refused when they are not for what is here."""

from __future__ import annotations

import json
from contextlib import nullcontext
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

if find_spec("openvino") is None:
    pytest.skip("OpenVINO is not installed", allow_module_level=True)

from edgeturbo.engines import _build_openvino
from edgeturbo.engines import openvino as openvino_engine
from edgeturbo.engines._build_job import Job, Progress
from edgeturbo.engines.base import TensorSpec
from edgeturbo.engines.errors import BuildError, BundleError, DiskFullError, InputError, UsageError
from edgeturbo.engines.openvino import OpenVinoEngine, OpenVinoOptions, version
from unit.openvino_network import SHAPE, build, network, python, run, usable


@pytest.fixture
def feeds(make_frame):
    return {"frame": make_frame()[None]}


def test_a_plan_computes_what_its_network_does(feeds, tmp_path, capsys):
    path = network(tmp_path)
    for precision in usable(path):
        built = build(path, tmp_path / f"{precision}.plan", precision)
        np.testing.assert_array_equal(
            run(tmp_path / f"{precision}.plan", feeds, precision), run(path, feeds, precision)
        )
        assert built["version"] == version()
        assert built["options"]["cpu"]
        assert any("imported again and run once" in text for text in built["checked"])
    phases = [json.loads(line)["phase"] for line in capsys.readouterr().out.splitlines()]
    assert phases[:2] == ["compiling generator.onnx in f32", "writing the plan"]


@pytest.mark.usefixtures("capsys")
def test_a_plan_for_another_precision_is_refused_before_it_runs(tmp_path):
    path = network(tmp_path)
    precisions = usable(path)
    if len(precisions) < 2:
        pytest.skip("this CPU has one precision")
    for precision in precisions:
        build(path, tmp_path / "engine.plan", precision)
        for other in set(precisions) - {precision}:
            engine = OpenVinoEngine(tmp_path / "engine.plan", OpenVinoOptions(precision=other))
            with pytest.raises(BundleError, match="not compiled for the precision") as caught:
                engine.open()
            assert (caught.value.expected, caught.value.got) == (other, precision)
            assert engine.inputs == ()


def test_a_plan_that_does_not_say_its_precision_is_refused(tmp_path):
    import openvino

    compiled = openvino.Core().compile_model(str(network(tmp_path)), "CPU")
    (tmp_path / "engine.plan").write_bytes(compiled.export_model().getbuffer())
    with pytest.raises(BundleError, match="does not say in which precision"):
        OpenVinoEngine(tmp_path / "engine.plan").open()


@pytest.mark.usefixtures("capsys")
def test_a_plan_of_another_version_is_refused_though_the_library_takes_it(tmp_path, monkeypatch):
    with monkeypatch.context() as earlier:
        earlier.setattr(openvino_engine, "version", lambda: "2025.4.0")
        build(network(tmp_path), tmp_path / "engine.plan")
    with pytest.raises(BundleError, match="another version of OpenVINO") as caught:
        OpenVinoEngine(tmp_path / "engine.plan").open()
    assert caught.value.got == "2025.4.0"
    assert version() in caught.value.expected


@pytest.mark.parametrize("damage", ["missing", "empty", "garbage", "truncated", "version"])
def test_a_plan_that_cannot_be_loaded_is_refused(tmp_path, damage, capsys):
    plan = tmp_path / "engine.plan"
    built = build(network(tmp_path), plan)
    capsys.readouterr()
    data = plan.read_bytes()
    if damage == "missing":
        plan.unlink()
    elif damage == "version":
        if not any("OpenVINO says that it needs" in text for text in built["checked"]):
            pytest.skip("this OpenVINO does not write its version into a plan")
        plan.write_bytes(data.replace(version().encode(), version().encode()[::-1], 1))
    else:
        plan.write_bytes({"empty": b"", "garbage": b"\xff" * 9999, "truncated": data[: len(data) // 2]}[damage])
    engine = OpenVinoEngine(plan)
    with pytest.raises(InputError) as caught:  # BundleError is one
        engine.open()
    assert str(plan) in caught.value.what
    assert "turbo-build" in caught.value.hint
    plan.write_bytes(data)
    with engine:
        assert engine.inputs == (TensorSpec("frame", "uint8", SHAPE),)


@pytest.mark.usefixtures("capsys")
def test_a_plan_may_be_replaced_while_it_runs(feeds, tmp_path):
    plan = tmp_path / "engine.plan"
    build(network(tmp_path), plan)
    build(network(tmp_path, 1, "other.onnx"), tmp_path / "other.plan")
    with OpenVinoEngine(plan) as engine:
        before = engine.run(feeds)["image"]
        (tmp_path / "other.plan").replace(plan)
        np.testing.assert_array_equal(engine.run(feeds)["image"], before)
    assert (run(plan, feeds) != before).any()


def resident(path: Path) -> int:
    """Bytes of the mapped file that this process holds in memory."""
    parts = Path("/proc/self/smaps").read_text().split(str(path))[1:]
    return sum(1024 * int(part.split("Rss:")[1].split()[0]) for part in parts)


@pytest.mark.usefixtures("capsys")
@pytest.mark.skipif(not Path("/proc/self/smaps").exists(), reason="the system does not say what is resident")
def test_a_plan_that_was_read_leaves_memory_again(feeds, tmp_path, monkeypatch):
    plan = tmp_path / "engine.plan"
    build(network(tmp_path), plan)
    left = {}
    for forgetting in (True, False):
        with monkeypatch.context() as patch:
            if not forgetting:
                patch.setattr(openvino_engine, "_forgetting", lambda _: nullcontext())
            with OpenVinoEngine(plan) as engine:
                left[forgetting] = resident(plan), engine.run(feeds)["image"]
    assert left[True][0] < left[False][0] == -(-plan.stat().st_size // 4096) * 4096
    np.testing.assert_array_equal(left[True][1], left[False][1])


@pytest.mark.usefixtures("capsys")
def test_a_build_refuses_what_it_cannot_do(tmp_path):
    path = network(tmp_path)
    with pytest.raises(UsageError, match="no such precision"):
        build(path, tmp_path / "engine.plan", "fp16")
    with pytest.raises(UsageError, match="takes no hints"):
        _build_openvino.build(
            Job("openvino", path, tmp_path / "p", ("cpu",), precision="f32", hints={"a": "b"}), Progress()
        )
    if Path("/dev/full").exists():
        with pytest.raises(DiskFullError):
            build(path, Path("/dev/full"))


@pytest.mark.usefixtures("capsys")
def test_a_plan_that_computes_something_else_is_refused(tmp_path):
    build(network(tmp_path), tmp_path / "engine.plan")
    options = OpenVinoOptions()
    with OpenVinoEngine(network(tmp_path, 1, "other.onnx"), options) as engine:
        expected = engine.run(_build_openvino._random(engine.inputs))
    with pytest.raises(BuildError, match="does not compute what"):
        _build_openvino._check(tmp_path / "engine.plan", options, expected)


LEFT_OPEN = """
import sys
import numpy as np
from edgeturbo.engines.openvino import OpenVinoEngine
engine = OpenVinoEngine(sys.argv[1])
engine.open()
engine.run({"frame": np.zeros((1, 48, 64, 3), np.uint8)})
"""


@pytest.mark.usefixtures("capsys")
def test_a_process_may_end_with_an_open_plan(tmp_path):
    build(network(tmp_path), tmp_path / "engine.plan")
    done = python(LEFT_OPEN, str(tmp_path / "engine.plan"))
    assert (done.returncode, done.stderr) == (0, "")
