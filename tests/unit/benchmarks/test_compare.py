"""Two results side by side: the same thing twice agrees, and what got worse is found and ends with 5."""

from __future__ import annotations

from dataclasses import replace

import pytest
from edgeturbo.benchmarks.compare import compare_results, growth_interval
from edgeturbo.benchmarks.latency import Latency, Ratio
from edgeturbo.benchmarks.steadiness import Steadiness
from edgeturbo.engines.errors import GateError
from made_results import elsewhere, result, samples


def whats(changes) -> set[str]:
    return {change.what for change in changes}


def test_two_runs_of_the_same_thing_agree_within_their_intervals():
    # 95 % intervals of 12 comparisons: one in twenty may fail by chance, and of these seeds none may be further off.
    found = [compare_results(result(seed), result(seed + 1000)) for seed in range(4)]
    assert sum(len(one.regressions) for one in found) <= 2
    assert {change.verdict for one in found for change in one.changes if "psnr" in change.what} == {"same"}


def test_the_same_result_is_no_change_at_all():
    found = compare_results(result(), result())
    assert {change.verdict for change in found.changes} == {"same"}
    found.refuse_regressions()


def test_a_slowed_engine_is_a_regression_with_exit_code_5():
    found = compare_results(result(), result(7, slower=1.1))
    assert {"engine median", "frame median"} <= whats(found.regressions)
    with pytest.raises(GateError) as refused:
        found.refuse_regressions()
    assert refused.value.exit_code == 5
    assert "engine median" in str(refused.value)


def test_a_faster_one_is_none():
    assert compare_results(result(), result(7, slower=0.8)).regressions == ()


def test_worse_pictures_and_more_memory_are_regressions():
    assert {"psnr_db, worst frame", "max_levels, worst frame"} <= whats(
        compare_results(result(levels=1), result(levels=3)).regressions
    )
    assert whats(compare_results(result(), result(rss=330_000_000)).regressions) == {"peak resident memory"}
    # From equal to unequal is a loss too, though no PSNR is above infinity.
    assert "psnr_db, worst frame" in whats(compare_results(result(levels=0), result(levels=1)).regressions)


def test_a_machine_that_disagrees_with_itself_sees_no_small_difference():
    shaky = replace(result(7, slower=1.1), steadiness=Steadiness(Ratio(1.2, 1.1, 1.3), ("shaky",)))
    found = compare_results(result(), shaky)
    assert not whats(found.regressions) & {"engine median"}
    assert any("shaky" in sentence for sentence in found.apart)


def test_another_machine_compares_pictures_only_and_says_so():
    found = compare_results(elsewhere(result()), result(7, slower=2.0))
    assert "engine median" not in whats(found.changes)
    assert "psnr_db, worst frame" in whats(found.changes)
    assert any("another machine (CPU: another CPU" in sentence for sentence in found.apart)


def test_other_sizes_frames_and_bundles_are_told_apart():
    before = result()
    larger = replace(before, measured=replace(before.measured, width=64, onnx_sha256="11"))
    found = compare_results(before, larger)
    assert "engine median" not in whats(found.changes)
    assert any("another bundle" in sentence for sentence in found.apart)
    other = replace(before, options=replace(before.options, frames_sha256="cd" * 32))
    assert not any("worst frame" in what for what in whats(compare_results(before, other).changes))


def test_a_row_that_is_gone_is_said():
    before = result()
    fewer = replace(before, rows=before.rows[:2])
    assert "merged & kept: not measured now" in compare_results(before, fewer).apart
    assert "merged & kept: not in the earlier result" in compare_results(fewer, before).apart


def test_drift_widens_the_interval():
    still = samples(0.01, 1, 200)
    drifting = Latency.of(sorted(value / 1e3 for value in still.samples_ms))
    low, high = growth_interval(still, still)
    drift_low, drift_high = growth_interval(drifting, drifting)
    assert drift_high - drift_low > 1.3 * (high - low)
