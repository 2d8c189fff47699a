"""Rows in processes of their own: what they answer, when they are at rest, and how they fail."""

from __future__ import annotations

import os
import threading
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from edgeturbo.benchmarks.apart import call_apart, run_apart
from edgeturbo.benchmarks.feeds import image_of, random_case
from edgeturbo.benchmarks.latency import SelfTimed
from edgeturbo.benchmarks.quiet import wait_until_quiet
from edgeturbo.benchmarks.rows import Setting, plan_rows
from edgeturbo.benchmarks.runner import NOT_THE_BUNDLES, run_here
from edgeturbo.benchmarks.stage_clock import STAGES
from edgeturbo.engines.errors import BundleError, DeviceError, UsageError
from edgeturbo.engines.onnxruntime import OnnxRuntimeEngine
from edgeturbo.runtime.uri import parse_input


def spin(seconds: float, ended: list[float]) -> None:
    until = time.perf_counter() + seconds
    while time.perf_counter() < until:
        pass
    ended.append(time.perf_counter())


def test_nobody_is_at_rest_before_their_threads_have_ended():
    ended: list[float] = []
    spinning = threading.Thread(target=spin, args=(0.4, ended))
    spinning.start()
    assert wait_until_quiet(60)
    assert ended
    spinning.join()


def test_a_process_that_never_rests_is_told():
    clock = iter(range(10_000))
    slept: list[float] = []
    assert not wait_until_quiet(1.0, used=lambda: float(next(clock)), sleep=slept.append)
    assert sum(slept) == pytest.approx(1.0)


def test_a_row_apart_makes_what_it_makes_here(make_bundle):
    bundle = make_bundle()
    setting, case = Setting(bundle.root / "generator.onnx"), random_case(bundle)
    (plan,), _ = plan_rows(setting, ())
    with OnnxRuntimeEngine(bundle.onnx()) as engine:
        expected = image_of(bundle, engine, case)
    with run_apart(setting, plan, case) as runner:
        assert runner.about.backend == "onnxruntime"
        assert np.array_equal(runner.images([case])[0], expected)
        for call in (runner.once, runner.frame):
            taken = call()
            assert isinstance(taken, SelfTimed)
            assert taken.seconds > 0
        assert set(runner.stages()) == set(STAGES)
        assert [figure.streams for figure in runner.throughput(0.05)] == [1, 2]
        process = runner._process
        before = cpu_seconds(process.pid)
        time.sleep(0.3)
        # Asked for nothing, it does nothing: whoever else is measured has the machine to itself.
        assert before is None or cpu_seconds(process.pid) - before < 0.1
        assert process.pid != os.getpid()
    assert not process.is_alive()


def cpu_seconds(pid: int) -> float | None:
    """Processor seconds of another process so far; None where no /proc tells."""
    path = Path(f"/proc/{pid}/stat")
    if not path.is_file():
        return None
    fields = path.read_text(encoding="ascii").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def test_what_fails_in_the_other_process_is_raised_in_this_one(make_bundle):
    bundle = make_bundle()
    setting, case = Setting(bundle.root / "generator.onnx"), random_case(bundle)
    (plan,), _ = plan_rows(setting, ())
    (bundle.root / "generator.onnx.data").write_bytes(b"other weights")
    with pytest.raises(BundleError) as refused, run_apart(setting, plan, case):
        pass
    assert refused.value.hint


def test_a_function_apart_returns_or_raises():
    assert call_apart(round, 1.26, 1) == 1.3
    with pytest.raises(DeviceError, match="ValueError"):
        call_apart(int, "x")
    with pytest.raises(UsageError) as refused:
        call_apart(parse_input, "nowhere://")
    assert refused.value.expected


def test_a_row_of_a_checkpoint_is_not_asked_for_streams(make_bundle):
    bundle = make_bundle()
    case = random_case(bundle)
    (plan,), _ = plan_rows(Setting(bundle.root), ())
    with run_here(replace(plan, choice=None), bundle, case) as runner:
        assert runner.throughput(0.01) == NOT_THE_BUNDLES


def test_a_process_that_dies_is_named(make_bundle):
    bundle = make_bundle()
    setting, case = Setting(bundle.root / "generator.onnx"), random_case(bundle)
    (plan,), _ = plan_rows(setting, ())
    with run_apart(setting, plan, case) as runner:
        runner._process.kill()
        with pytest.raises(DeviceError, match="signal 9; out of memory is likely"):
            runner.once()
