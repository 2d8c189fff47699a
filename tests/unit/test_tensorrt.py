"""TensorRT's own part of running a plan: its package, its file, its refusals. On simulated libraries."""

from __future__ import annotations

import functools
import logging
import sys
from pathlib import Path

import pytest
from edgeturbo.engines import cuda
from edgeturbo.engines._plan_engine import PlanOptions
from edgeturbo.engines.errors import BundleError, DeviceError, InputError, MissingComponentError, UsageError
from edgeturbo.engines.tensorrt import TensorRtEngine, check_plan, deserialize, plan_problem, unusable_reason
from edgeturbo.engines.vendor import TENSORRT
from fakes.machine import Machine, MachineMaker

REBUILD = "turbo-build BUNDLE --engine tensorrt --force"


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> MachineMaker:
    return functools.partial(Machine, monkeypatch, tmp_path)


@pytest.mark.parametrize(
    ("content", "got"),
    [
        (b"", "an empty file"),
        (b"vtrt" + bytes(99), "a plan of TensorRT for RTX"),
        (b"version https://git-lfs.github.com/spec/v1\n", "a Git LFS pointer"),
    ],
)
def test_refuses_a_file_that_is_known_to_be_no_plan(tmp_path: Path, content: bytes, got: str) -> None:
    plan = tmp_path / "engine.plan"
    plan.write_bytes(content)
    with pytest.raises(BundleError, match="is not a TensorRT plan") as raised:
        TensorRtEngine(plan).open()
    assert got in str(raised.value.got)
    assert raised.value.hint == REBUILD
    assert f"expected a plan, got {got}" in str(plan_problem(plan))


def test_leaves_any_other_file_to_the_library(tmp_path: Path) -> None:
    plan = tmp_path / "engine.plan"
    plan.write_bytes(b"ftrt and whatever NVIDIA writes")
    check_plan(plan)
    assert plan_problem(plan) is None
    with pytest.raises(InputError, match="cannot read"):
        plan_problem(tmp_path / "absent.plan")


def test_a_refusal_quotes_the_library_and_says_what_to_type(
    machine: MachineMaker, caplog: pytest.LogCaptureFixture
) -> None:
    here = machine("11")
    here.write_plan(api="10.3")
    TENSORRT.logger().errors.append("of another plan, long ago")
    with pytest.raises(BundleError, match=r"11.plan was refused by TensorRT") as raised:
        here.engine().open()
    assert "tensorrt 11.4.0.106" in str(raised.value.expected)
    assert raised.value.got == "Error Code 1: Serialization (Version tag does not match)"
    assert raised.value.hint == REBUILD
    assert {(record.name, record.levelno) for record in caplog.records} == {
        ("edgeturbo.engines.tensorrt", logging.ERROR)
    }
    assert here.left() == {}


@pytest.mark.parametrize(
    ("problem", "got"),
    [
        ("Cuda Runtime (out of memory)", "1,048,576 bytes free of 1,048,576 on the GPU"),
        ("CUDA initialization failure with error: 35", "CUDA initialization failure with error: 35"),
    ],
)
def test_a_machine_at_fault_is_not_the_bundles_fault(machine: MachineMaker, problem: str, got: str) -> None:
    here = machine("10.3")
    here.write_plan(problem=problem)
    with pytest.raises(DeviceError, match="could not be deserialised") as raised:
        deserialize(here.plan)
    assert got in str(raised.value.got)
    assert problem in str(raised.value.got)


def test_a_library_that_does_not_start(machine: MachineMaker, monkeypatch: pytest.MonkeyPatch) -> None:
    here = machine("10.3")

    def runtime(_: object) -> None:
        raise TypeError("pybind11::init(): factory function returned nullptr")

    monkeypatch.setattr(here.library.module, "Runtime", runtime)
    with pytest.raises(DeviceError, match="TensorRT does not start"):
        here.engine().open()


def test_usable_where_there_is_all_it_needs(machine: MachineMaker, monkeypatch: pytest.MonkeyPatch) -> None:
    here = machine("11")
    assert unusable_reason() is None
    here.cuda.driver = 12060
    assert "driver is too old" in str(unusable_reason())
    monkeypatch.setattr(cuda, "driver_problem", lambda: "no NVIDIA driver")
    assert unusable_reason() == "no NVIDIA driver"
    with pytest.raises(MissingComponentError, match=r"11.plan cannot run here: no NVIDIA driver"):
        here.engine().open()


def test_without_the_package(machine: MachineMaker, monkeypatch: pytest.MonkeyPatch) -> None:
    here = machine("11")
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    with pytest.raises(MissingComponentError, match="the tensorrt package cannot be imported") as raised:
        here.engine().open()
    assert 'pip install "edgeturbo[tensorrt]"' in str(raised.value.hint)
    assert "--system-site-packages" in str(unusable_reason())
    assert plan_problem(here.plan) is None, "what the file tells needs no package"


def test_has_no_runtime_cache(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="TensorRT has no runtime cache"):
        TensorRtEngine(tmp_path / "engine.plan", PlanOptions(runtime_cache=tmp_path / "cache"))
