"""The suite on engines whose time and arithmetic the tests decide: what is slow, wrong or unsteady must show."""

from __future__ import annotations

import itertools
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from edgeturbo.benchmarks.compare import compare_results
from edgeturbo.benchmarks.energy import measure_energy
from edgeturbo.benchmarks.feeds import cases_of_frames, image_of, random_case
from edgeturbo.benchmarks.gpu_check.subject import Subject
from edgeturbo.benchmarks.latency import Latency, SelfTimed, StoppingRule, measure_until, median_interval
from edgeturbo.benchmarks.metrics_child.weights import WEIGHTED
from edgeturbo.benchmarks.result import PEER, SUBJECT, load_result
from edgeturbo.benchmarks.row_suite import Weights
from edgeturbo.benchmarks.rows import RowPlan, Setting, plan_rows
from edgeturbo.benchmarks.stage_clock import STAGES, clock_stages
from edgeturbo.benchmarks.steadiness import judge
from edgeturbo.benchmarks.suite import BenchOptions, run_rows
from edgeturbo.benchmarks.throughput import run_together
from edgeturbo.engines.errors import DeviceError, GateError, InputError, UsageError
from edgeturbo.engines.null import NullEngine
from edgeturbo.runtime.sensors import Reading

RULE = StoppingRule(least=4, most=12, seconds=5)
LATENCY_ONLY = BenchOptions(suites=("latency",), rule=RULE, warmup=0, rest_s=0)


class Shifting(NullEngine):
    """The frame back, ``levels`` brighter."""

    def __init__(self, manifest, levels: int = 0) -> None:
        super().__init__(manifest.inputs, manifest.outputs)
        self._levels = levels

    def _run(self, feeds, out):  # noqa: ARG002
        frame = feeds["frame"].astype(int)
        return {"image": np.clip(frame + self._levels, 0, 255).astype(np.uint8)}


def plan(bundle, name: str, seconds: float, levels: int = 0, role: str = PEER) -> RowPlan:
    @contextmanager
    def opened(feeds):  # noqa: ARG001
        with Shifting(bundle.manifest, levels) as engine:
            yield Subject(name, "null", "fp32", engine, lambda: SelfTimed(seconds))

    return RowPlan(name, role, opened)


def failing(name: str) -> RowPlan:
    @contextmanager
    def opened(feeds):  # noqa: ARG001
        raise DeviceError("this peer fell over")
        yield

    return RowPlan(name, PEER, opened)


def test_a_slowed_engine_shows_as_a_ratio_and_a_failing_peer_as_a_reason(make_bundle, tmp_path: Path):
    bundle = make_bundle()
    plans = [plan(bundle, "own", 0.010, role=SUBJECT), plan(bundle, "slow", 0.013), failing("broken")]
    found = run_rows(Setting(bundle.root), LATENCY_ONLY, plans, "turbo-bench x").result
    assert [row.name for row in found.rows] == ["own", "slow", "broken"]
    assert found.rows[1].ratio.value == pytest.approx(1.3)
    assert found.rows[1].ratio.low > 1
    assert found.rows[2].not_run == {"row": "this peer fell over"}
    assert found.steadiness.same.value == 1.0
    assert set(found.subject.stages) == set(STAGES)
    found.save(tmp_path / "r.json")
    assert load_result(tmp_path / "r.json") == found


def test_a_wrong_engine_is_caught_by_its_pictures(make_bundle, monkeypatch: pytest.MonkeyPatch):
    from edgeturbo.benchmarks import suite

    bundle = make_bundle()
    case = random_case(bundle)
    with Shifting(bundle.manifest) as right:
        golden = image_of(bundle, right, case)
    judged = type(case)(case.frame, case.feeds, golden)
    monkeypatch.setattr(suite, "cases_of_goldens", lambda _: [judged])
    plans = [plan(bundle, "right", 0.01, role=SUBJECT), plan(bundle, "one level off", 0.01, levels=1)]
    options = BenchOptions(suites=("quality",), rule=RULE)
    bench = run_rows(Setting(bundle.root), options, plans, "turbo-bench x")
    right_row, wrong_row = bench.result.rows
    assert right_row.quality.worst["psnr_db"].value is None
    assert right_row.verdict == ()
    assert wrong_row.quality.worst["max_levels"].value == 1
    assert any("bias" in sentence for sentence in wrong_row.verdict)
    assert set(bench.shown) == {"right", "one level off"}


def test_without_goldens_and_checkpoint_quality_says_that_it_was_not_run(make_bundle):
    bundle = make_bundle()
    options = BenchOptions(suites=("quality",), rule=RULE)
    found = run_rows(Setting(bundle.root), options, [plan(bundle, "own", 0.01, role=SUBJECT)], "x").result
    assert "no goldens" in found.not_run["quality"]
    assert found.subject.quality is None


def test_the_rule_stops_when_the_median_is_known_and_says_so():
    steady = measure_until({"a": lambda: SelfTimed(0.01)}, StoppingRule(least=5, most=100), warmup=0)
    assert steady.latencies["a"].n == 5
    assert "every median was known" in steady.stopped
    random = np.random.default_rng(0)
    wild = measure_until(
        {"a": lambda: SelfTimed(float(random.uniform(0.001, 1)))}, StoppingRule(least=5, most=20), warmup=0
    )
    assert wild.latencies["a"].n == 20
    assert "the most allowed" in wild.stopped


def test_the_rule_stops_when_time_is_up():
    now = [0.0]

    def call() -> SelfTimed:
        now[0] += 10
        return SelfTimed(now[0])

    found = measure_until({"a": call}, StoppingRule(least=2, most=99, seconds=25), warmup=0, clock=lambda: now[0])
    assert found.latencies["a"].n == 3
    assert "25 s had passed" in found.stopped


@pytest.mark.parametrize("wrong", [{"least": 0}, {"least": 9, "most": 3}, {"half_width": 0}, {"seconds": 0}])
def test_a_rule_that_cannot_be_kept_is_refused(wrong):
    with pytest.raises(UsageError, match="stopping rule"):
        StoppingRule(**wrong)


def samples(median: float, spread: float, seed: int, n: int = 60) -> Latency:
    return Latency.of(list(np.random.default_rng(seed).normal(median, spread, n)))


def test_a_medians_interval_holds_it():
    latency = samples(0.02, 0.001, 3)
    low, high = median_interval(latency)
    assert low <= latency.p50_ms <= high
    assert high - low < 2


def test_a_quiet_machine_is_not_accused():
    assert judge(samples(0.02, 0.0002, 1), samples(0.02, 0.0002, 2)).warnings == ()


@pytest.mark.parametrize(
    ("first", "again", "said"),
    [
        (samples(0.02, 0.0002, 1), samples(0.021, 0.0002, 2), "measured twice"),
        (samples(0.02, 0.008, 1), samples(0.02, 0.008, 2), "not steady"),
        (Latency.of([0.02] * 30 + [0.022] * 30), Latency.of([0.02] * 30 + [0.022] * 30), "second half"),
        (
            Latency.of([0.02, 0.0201] * 16 + [0.0182, 0.0218] * 16),
            Latency.of([0.02, 0.0201] * 16 + [0.0182, 0.0218] * 16),
            "spread of the runs grew",
        ),
    ],
)
def test_a_noisy_machine_is_caught(first: Latency, again: Latency, said: str):
    assert any(said in warning for warning in judge(first, again).warnings)


def test_a_busy_machine_is_named():
    assert judge(samples(0.02, 0, 1), samples(0.02, 0, 1), "busy!").warnings == ("busy!",)


def test_stages_are_told_apart_on_a_wound_clock(make_bundle, make_frame):
    bundle = make_bundle()
    ticks = iter(range(1000))
    with Shifting(bundle.manifest) as engine:
        taken = clock_stages(bundle, engine, make_frame(), runs=2, clock=lambda: float(next(ticks)))
    assert taken == dict.fromkeys(STAGES, 1000.0)


def test_power_is_turned_into_energy_a_frame_or_a_reason():
    assert measure_energy(lambda: None, 1, seconds=0.01, read=Reading) == "not readable here"
    reading = Reading(power_w=20.0, power_mode="0 (MAXN)")
    found = measure_energy(lambda: __import__("time").sleep(0.01), 2, seconds=0.1, read=lambda: reading, between=0.01)
    assert found.watts == 20.0
    assert found.joules_per_frame * found.frames_per_joule == pytest.approx(1, rel=1e-2)
    assert found.power_mode == "0 (MAXN)"


def test_streams_run_together_and_a_failure_is_raised(make_bundle):
    bundle = make_bundle()
    feeds = random_case(bundle).feeds
    with Shifting(bundle.manifest) as one, Shifting(bundle.manifest) as other:
        frames, seconds = run_together([one, other], feeds, 0.05)
    assert frames > 2
    assert seconds >= 0.05

    class Broken(Shifting):
        def _run(self, feeds, out):  # noqa: ARG002
            raise DeviceError("gone")

    with (
        Broken(bundle.manifest) as broken,
        Shifting(bundle.manifest) as sound,
        pytest.raises(DeviceError, match="gone"),
    ):
        run_together([broken, sound], feeds, 0.05)


def test_rows_of_a_checkpoint_need_one(make_bundle):
    bundle = make_bundle()
    with pytest.raises(UsageError, match="holds no checkpoint") as refused:
        plan_rows(Setting(bundle.root), ("pytorch",))
    assert "--ckpt" in str(refused.value)
    with pytest.raises(UsageError, match="not known"):
        plan_rows(Setting(bundle.root), ("tensorflow",))


def test_what_cannot_run_here_is_a_reason_and_no_row(make_bundle):
    bundle = make_bundle()
    rows, not_run = plan_rows(Setting(bundle.root), ("tensorrt",))
    assert [row.key for row in rows] == ["bundle"]
    assert "no tensorrt plan" in not_run["tensorrt"]


def test_a_frame_becomes_the_bundles_own_tensors(make_bundle, make_frame):
    bundle = make_bundle(batch=2, noises=("noise",))
    (case,) = cases_of_frames(bundle, [make_frame(100, 100)])
    assert case.feeds["frame"].shape == (2, 48, 64, 3)
    assert case.feeds["noise"].shape == (2, 4, 6, 8)


def test_a_result_of_another_version_or_damaged_is_refused(tmp_path: Path):
    path = tmp_path / "r.json"
    for text in ("{", "[]", '{"schema_version": 99}', '{"schema_version": 1}'):
        path.write_text(text, encoding="utf-8")
        with pytest.raises(InputError):
            load_result(path)


def scripted(bundle, seconds: list[float], role: str = SUBJECT) -> RowPlan:
    """A row whose runs take ``seconds``, one after the other and over again."""
    taken = itertools.cycle(seconds)

    @contextmanager
    def opened(feeds):  # noqa: ARG001
        with Shifting(bundle.manifest) as engine:
            yield Subject("own", "null", "fp32", engine, lambda: SelfTimed(next(taken)))

    return RowPlan("own", role, opened)


def run_scripted(bundle, seconds: list[float]):
    return run_rows(Setting(bundle.root), LATENCY_ONLY, [scripted(bundle, seconds)], "turbo-bench x").result


def test_a_noisy_machine_is_named_in_the_result_of_a_whole_run(make_bundle):
    bundle = make_bundle()
    assert not any("not steady" in said for said in run_scripted(bundle, [0.01, 0.0101]).steadiness.warnings)
    noisy = run_scripted(bundle, [0.005, 0.02, 0.011, 0.03, 0.007, 0.016, 0.025])
    assert any("not steady" in said for said in noisy.steadiness.warnings)


def test_a_slowed_engine_is_a_regression_of_a_whole_run_and_the_same_engine_is_none(make_bundle):
    bundle = make_bundle()
    before, again = run_scripted(bundle, [0.0100, 0.0101, 0.0099]), run_scripted(bundle, [0.0101, 0.0099, 0.0100])
    slowed = run_scripted(bundle, [0.0115, 0.0116, 0.0114])
    engine = [change for change in compare_results(before, again).changes if change.what == "engine median"]
    assert [change.verdict for change in engine] == ["same"]
    with pytest.raises(GateError) as refused:
        compare_results(before, slowed).refuse_regressions()
    assert refused.value.exit_code == 5
    assert "engine median" in str(refused.value)


def test_measures_with_weights_are_named_where_there_are_none(make_bundle):
    bundle = make_bundle()
    options = BenchOptions(suites=("quality",), rule=RULE)
    found = run_rows(Setting(bundle.root), options, [plan(bundle, "own", 0.01, role=SUBJECT)], "x").result
    assert {name: found.not_run[name].partition(":")[0] for name in WEIGHTED} == dict.fromkeys(WEIGHTED, "no weights")


def test_measures_with_weights_stand_in_the_row_or_say_why_not(make_bundle, monkeypatch, tmp_path: Path):
    """A child that measures one of the three, as ``metrics_child/child.py`` would tell it."""
    from edgeturbo.benchmarks import suite

    bundle = make_bundle()
    case = random_case(bundle)
    with Shifting(bundle.manifest) as right:
        judged = type(case)(case.frame, case.feeds, image_of(bundle, right, case))
    monkeypatch.setattr(suite, "cases_of_goldens", lambda _: [judged])
    (tmp_path / "dino_vitbase8_pretrain.pth").write_bytes(b"weights")
    (tmp_path / "inception-2015-12-05.pt").write_bytes(b"weights")
    python = tmp_path / "python"
    python.write_text(
        "#!/bin/sh\n"
        """echo '{"event": "measured", "measure": "dino_struct", "series": {"reference-engine": [1.5]}, """
        """"versions": {"timm": "1"}}'\n"""
        """echo '{"event": "not_run", "measure": "clean_fid", "reason": "not run: clean-fid is not installed"}'\n"""
        """echo '{"event": "done"}'\n"""
    )
    python.chmod(0o755)
    options = BenchOptions(suites=("quality",), rule=RULE, weights=Weights(tmp_path, python))
    found = run_rows(Setting(bundle.root), options, [plan(bundle, "own", 0.01, role=SUBJECT)], "x").result
    assert found.subject.metrics["dino_struct"].mean == {"reference-engine": 1.5}
    assert "not installed" in found.subject.not_run["clean_fid"]
    assert "no weights" in found.not_run["lpips"]
    found.save(tmp_path / "r.json")
    assert load_result(tmp_path / "r.json") == found


def test_a_folder_of_weights_that_is_not_there_ends_the_run_before_the_work(make_bundle, tmp_path: Path):
    bundle = make_bundle()
    options = BenchOptions(suites=("quality",), weights=Weights(tmp_path / "nowhere"))
    with pytest.raises(UsageError, match="folder of weights"):
        run_rows(Setting(bundle.root), options, [plan(bundle, "own", 0.01, role=SUBJECT)], "x")
