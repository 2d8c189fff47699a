"""The full-size study: its arithmetic on made-up turns, and the whole of it on a tiny generator."""

from __future__ import annotations

import json
from importlib.util import find_spec

import numpy as np
import pytest
from edgeturbo._console import Console
from edgeturbo.benchmarks.cpu_sizes import RESULTS, Plan, record
from edgeturbo.benchmarks.cpu_sizes_report import summarise
from edgeturbo.benchmarks.cpu_sizes_rows import EAGER, PRODUCTS, Case, Turn
from edgeturbo.benchmarks.performance_sizes import NAMES, targets
from edgeturbo.benchmarks.synthetic import TINY, write_base, write_cyclegan
from edgeturbo.engines.costs import SCHEMA, Costs, Growth, Work
from edgeturbo.engines.errors import UsageError

ROW = "onnxruntime-fp16"
BUILT = () if find_spec("openvino") is None else ("openvino-f32-plan",)


@pytest.fixture
def work(tmp_path):
    for side in (256, 512, 1024):
        scale = side * side / 512**2
        flops = Growth(0, round(1e12 * scale), round(1e11 * scale**2))
        work = Work("unet", "conv", "float16", 1, "a", flops, Growth(), Growth(), 0)
        path = Case(tmp_path, side, side).costs
        path.parent.mkdir(exist_ok=True)
        path.write_text(Costs(SCHEMA, side, side, 1, 0, (), (work,)).to_json(), encoding="utf-8")
    return tmp_path


def turns(row, seconds, side=512):
    return [Turn(row, side, side, i, 1.0, 2.0, (s,), (2 * s,), 10 * i) for i, s in enumerate(seconds)]


def only(found, key, side=512):
    size = next(size for size in found["sizes"] if size["width"] == side)
    return next(row for row in size["rows"] if row["key"] == key)


def test_a_rows_ratio_is_over_the_rounds_that_it_shares_with_eager(work):
    found = summarise(work, [*turns(EAGER, [10, 20, 10]), *turns(ROW, [5, 10, 5, 500])])
    row = only(found, ROW)
    assert row["ratio_to_eager"]["value"] == 0.5
    assert (row["seconds"], row["peak_rss_bytes"]) == ([[5], [10], [5], [500]], 30)
    assert only(found, EAGER)["ratio_to_eager"]["value"] == 1


def test_a_turn_that_failed_is_told_and_counts_for_nothing(work):
    failed = Turn(ROW, 512, 512, 0, note="it did not fit")
    assert only(summarise(work, [failed]), ROW) == {"key": ROW, "note": "it did not fit"}
    row = only(summarise(work, [failed, *turns(ROW, [9, 8])[1:]]), ROW)
    assert (row["median_s"], row["note"], row["ratio_to_eager"]) == (8, "it did not fit", None)


def test_growth_tells_what_goes_with_the_pixels_from_what_goes_with_their_square(work):
    sides = (256, 512, 1024)
    grown = [t for side in sides for t in turns(ROW, [3 * side**2 / 512**2 + 0.5 * (side**2 / 512**2) ** 2], side)]
    fit = summarise(work, grown)["growth"][ROW]
    assert fit["seconds_per_512x512_of_pixels"] == pytest.approx(3, abs=0.01)
    assert fit["seconds_per_its_square"] == pytest.approx(0.5, abs=0.01)
    assert max(map(abs, fit["residuals"])) < 0.01
    assert fit["attention_share"] == pytest.approx(8 / 20, abs=0.01)
    assert fit["attention_share_of_flop"] == pytest.approx(1.6 / 5.6, abs=0.001)


def test_time_that_grows_less_than_the_pixels_has_no_negative_part(work):
    grown = [t for side in (256, 512, 1024) for t in turns(ROW, [(side / 512) ** 1.5], side)]
    fit = summarise(work, grown)["growth"][ROW]
    assert fit["seconds_per_its_square"] == 0
    assert max(fit["residuals"]) > 0.1


def test_two_sizes_are_too_few_to_speak_of_growth(work):
    assert summarise(work, [*turns(ROW, [1], 256), *turns(ROW, [4], 512)])["growth"] == {}


def test_an_unknown_row_is_refused():
    with pytest.raises(UsageError, match="--row"):
        Plan(((64, 64),), ("pytorch",))


def test_algebra_and_the_machines_own_limit_stand_beside_the_targets(work):
    told = [*turns(EAGER, [10]), *turns("openvino-f32", [8]), *turns("openvino-f32-split", [7])]
    head, rows = targets(summarise(work, [*told, *turns("products-f32", [6])]))
    said = {row[0]: row[1:] for row in rows}
    assert len(head) == 4
    assert said["time against PyTorch eager, as exported"][2] == "**not met**"
    assert said["time against PyTorch eager, with `--passes winograd`"][2] == "not measured"
    assert said[f"{NAMES['openvino-f32-split']}, against none of it"][1] == "0.88x"
    assert said[f"{NAMES['openvino-f32-winograd']}, against none of it"][2] == "not measured"
    assert said[NAMES["products-f32"]][1].startswith("0.60x")
    assert {row[0] for row in targets(summarise(work, told))[1]} == set(said) - {NAMES["products-f32"]}


def test_a_built_plan_is_what_counts_as_ours(work):
    told = [*turns(EAGER, [10]), *turns("openvino-f32", [5]), *turns("openvino-f32-plan", [5.5])]
    assert "built plan" in targets(summarise(work, told))[1][0][2]


def test_the_study_of_a_tiny_generator_from_end_to_end_goes_on_where_it_ended(tmp_path):
    work, results = tmp_path / "work", tmp_path / "results"
    write_base(work / "base", TINY)
    write_cyclegan(work / "base", work / "cyclegan.pkl")
    plan = Plan(((64, 64),), (EAGER, PRODUCTS, ROW, *BUILT), rounds=1)
    found = json.loads(record(Console(quiet=True), work, results, plan).read_text(encoding="utf-8"))
    assert only(found, ROW, 64)["psnr_to_eager_db"] > 40
    for row in BUILT:
        assert only(found, row, 64)["psnr_to_eager_db"] > 40
    assert only(found, EAGER, 64)["median_s"] > 0
    assert only(found, PRODUCTS, 64)["psnr_to_eager_db"] is None
    assert found["environment"]["cpu"]
    kept = (work / "turns.json").read_text(encoding="utf-8")
    assert record(Console(quiet=True), work, results, plan) == results / RESULTS
    assert (work / "turns.json").read_text(encoding="utf-8") == kept
    assert np.load(Case(work, 64, 64).picture(ROW)).shape == (64, 64, 3)
