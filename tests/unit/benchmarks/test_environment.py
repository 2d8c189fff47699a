"""What is said of a machine, and that nothing more is."""

from __future__ import annotations

import getpass
import json
import platform
from dataclasses import asdict, replace
from pathlib import Path

import edgeturbo
import numpy as np
import pytest
from edgeturbo.benchmarks import environment as module
from edgeturbo.benchmarks.environment import UNREADABLE, Gpu, busy_warning, finished, parse_state, read_environment


@pytest.fixture(scope="module")
def here() -> module.Environment:
    return read_environment()


def test_this_machine_is_described(here):
    assert here.cores >= 1
    assert here.cpu
    assert here.python == platform.python_version()
    assert here.packages["numpy"] == np.__version__
    assert "opencv" not in str(here.packages)


def test_it_goes_into_json_and_names_no_person_path_or_host(here):
    text = json.dumps(asdict(finished(here)))
    for private in (platform.node(), str(Path.home()), str(Path(edgeturbo.__file__).parent), f'"{getpass.getuser()}"'):
        assert private not in text


def test_the_commit_is_that_of_the_checkout(here):
    inside = (Path(edgeturbo.__file__).resolve().parent / ".git").exists()
    assert (here.commit is not None) == inside
    assert not inside or len(here.commit) == 40
    assert here.dirty in ((True, False) if inside else (None,))


def test_the_code_is_told_apart_by_its_modules_alone(here, tmp_path, monkeypatch):
    for name in ("benchmarks/a.py", "engines/b.py"):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).write_text("x = 1")
    monkeypatch.setattr(module, "_PACKAGE", tmp_path)
    before = read_environment().code
    assert before != here.code
    (tmp_path / "benchmarks" / "result.json").write_text("{}")
    assert read_environment().code == before
    (tmp_path / "engines" / "b.py").write_text("x = 2")
    assert read_environment().code != before


def test_a_busy_machine_is_warned_of():
    assert busy_warning(0.4, 2) is None
    assert busy_warning(None, 2) is None
    warning = busy_warning(3.25, 2)
    assert "load average 3.25 on 2 cores" in warning


def test_the_gpus_state_is_read_with_its_units_and_gaps_are_said():
    state = parse_state("1980, 2520, 10501, 71.40, 450.00, [N/A]")
    assert state == {
        "sm_clock": "1980 MHz", "sm_clock_limit": "2520 MHz", "memory_clock": "10501 MHz",
        "power": "71.40 W", "power_limit": "450.00 W", "temperature": UNREADABLE,
    }  # fmt: skip
    assert set(parse_state("").values()) == {UNREADABLE}


def test_a_machine_is_named_after_its_gpu(here):
    gpu = Gpu("NVIDIA GeForce RTX 4090", "sm_89", "550.1", 1, *[UNREADABLE] * 6)
    assert replace(here, gpu=gpu).machine == "nvidia-geforce-rtx-4090"
    assert replace(here, gpu=None).machine == "cpu"
