"""Stages that end badly, by real processes that do; and what each says it needs."""

from __future__ import annotations

import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
from edgeturbo.benchmarks.environment import Environment
from edgeturbo.benchmarks.gpu_check import needs, supervise
from edgeturbo.benchmarks.gpu_check.options import CheckOptions
from edgeturbo.benchmarks.gpu_check.record import DONE, RUNNING, StageRecord, key_of, read_record, write_record
from edgeturbo.benchmarks.gpu_check.stages import STAGES, Stage, stage_called
from edgeturbo.benchmarks.gpu_check.supervise import Ended, concluded, outcome, run_limited, run_stage, run_stages
from edgeturbo.engines.cuda import driver_problem
from edgeturbo.engines.errors import UsageError

HERE = Environment("a CPU", 2, 1, "Linux x86_64", "3.11.7", None, None, {}, "c0de", None, None, 0.1)


@pytest.fixture
def options(tmp_path: Path) -> CheckOptions:
    return CheckOptions(tmp_path / "work", tmp_path / "results", model="tiny", device="cpu", runs=2, warmup=0)


def running() -> StageRecord:
    return StageRecord(1, "ceiling", RUNNING, None, {}, 0.0, HERE)


def python(code: str, log: Path, limit_s: float = 30.0) -> Ended:
    return run_limited([sys.executable, "-c", code], log, limit_s)


HANGS = """
import subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"], start_new_session=True)
print(child.pid, flush=True)
time.sleep(60)
"""


def is_alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"


def test_a_hanging_stage_is_ended_with_all_it_started(tmp_path, options):
    log = tmp_path / "log"
    ended = python(HANGS, log, limit_s=2.0)
    assert ended.timed_out
    child = int(log.read_text())
    for _ in range(100):  # the system takes a moment to carry a SIGKILL out
        if not is_alive(child):
            break
        time.sleep(0.05)
    assert not is_alive(child)
    record = concluded(running(), ended, "", replace(options, limit_s=2.0))
    assert (record.state, record.reason) == ("killed", "ended at the limit of 2 s, with 0 rows finished")


def test_a_crashing_stage_is_recorded_with_its_last_words(tmp_path, options):
    log = tmp_path / "log"
    ended = python(f"raise RuntimeError('out of memory in {options.work}')", log)
    record = concluded(running(), ended, supervise._last_line(log), options)
    assert record.state == "failed"
    assert record.reason == "the stage's process ended with exit code 1: RuntimeError: out of memory in WORK"


def test_a_stage_that_the_system_kills_is_recorded_so(tmp_path, options):
    ended = python("import os, signal; os.kill(os.getpid(), signal.SIGKILL)", tmp_path / "log")
    record = concluded(running(), ended, "", options)
    assert (record.state, record.reason) == ("killed", "the stage's process was killed by SIGKILL")


def test_a_stage_that_spoke_for_itself_is_believed(options):
    spoken = replace(running(), state=DONE)
    assert concluded(spoken, Ended(0, 1.26, timed_out=False), "", options).state == DONE
    assert concluded(spoken, Ended(0, 1.26, timed_out=False), "", options).seconds == 1.3


def stage(**more) -> Stage:
    return Stage("ceiling", "a stage", "ceiling.ceiling", **more)


def test_what_is_missing_is_recorded_and_nothing_is_started(options):
    lacking = stage(needs=(needs.packages("no_such_package", hint="pip install it"),))
    record, fresh = run_stage(lacking, options, HERE, again=False)
    assert (record.state, record.reason) == ("not run", "not installed: no_such_package (pip install it)")
    assert fresh
    assert not (options.work / "logs").exists()
    assert read_record(options.results / "cpu-tiny" / "ceiling.json") == record
    assert outcome(record, fresh) == "not run: not installed: no_such_package (pip install it)"


def test_a_finished_stage_is_not_run_again_until_something_changes(options, monkeypatch):
    path = options.results / "cpu-tiny" / "ceiling.json"
    finished = replace(running(), state=DONE, key=key_of("ceiling", options, HERE))
    write_record(path, finished)
    started = []
    monkeypatch.setattr(supervise, "run_limited", lambda *_: started.append(1) or Ended(3, 0.1, timed_out=False))
    (options.work / "logs").mkdir(parents=True)
    (options.work / "logs" / "ceiling.log").write_text("x")
    said: list[str] = []
    assert run_stages((stage(),), options, HERE, said.append, again=False) == [finished]
    assert started == []
    assert "--again" in said[-1]
    gone = stage(leaves=lambda _: "what it wrote is gone")
    for case in (
        lambda: run_stage(stage(), options, HERE, again=True),
        lambda: run_stage(stage(), options, replace(HERE, code="0ther"), again=False),
        lambda: run_stage(stage(), replace(options, runs=9), HERE, again=False),
        lambda: run_stage(gone, options, HERE, again=False),
    ):
        write_record(path, finished)
        started.clear()
        record, fresh = case()
        assert (started, fresh, record.state) == ([1], True, "failed")


def test_stages_come_in_the_order_that_a_short_loan_needs():
    names = [stage.name for stage in STAGES]
    assert names[:5] == ["prepare-weights", "prepare-bundle", "prepare-reference", "prepare-three", "ceiling"]
    assert names[-1] == "compile-max-autotune"
    assert names.index("pytorch-eager") < names.index("compile") < names.index("onnxruntime-cuda")
    assert names.index("onnxruntime-cuda") < names.index("goldens") < names.index("tensorrt")
    assert names.index("tensorrt") < names.index("three-engines")
    with pytest.raises(UsageError, match="no stage 'warp'"):
        stage_called("warp")


@pytest.mark.parametrize("name", [stage.name for stage in STAGES])
def test_every_stage_is_there_to_run_and_asks_for_its_device(name, options):
    from importlib import import_module

    module, _, function = stage_called(name).where.partition(".")
    assert callable(getattr(import_module(f"edgeturbo.benchmarks.gpu_check.{module}"), function))
    problem = stage_called(name).problem(replace(options, device="cuda"))
    if driver_problem() is not None and name != "cpu-engines":
        assert problem == driver_problem()


def test_stages_say_which_other_stage_they_need(options):
    assert "prepare-weights" in stage_called("prepare-bundle").problem(options)
    assert "needs an NVIDIA GPU" in stage_called("tensorrt").problem(options)
    assert "--device cpu" in stage_called("cpu-engines").problem(replace(options, device="cuda"))


def test_options_reach_the_worker_unchanged(options):
    assert CheckOptions.from_json(options.to_json()) == options
