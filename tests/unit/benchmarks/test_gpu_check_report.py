"""Tables, targets and records, from figures that the tests make up."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from edgeturbo.benchmarks.environment import UNREADABLE, Environment, Gpu
from edgeturbo.benchmarks.gpu_check.common import PYTORCH_COMMON
from edgeturbo.benchmarks.gpu_check.engine_stages import OURS
from edgeturbo.benchmarks.gpu_check.options import CheckOptions
from edgeturbo.benchmarks.gpu_check.record import (
    DONE,
    NOT_RUN,
    Row,
    StageRecord,
    key_of,
    name_of,
    read_record,
    scrubbed,
    write_record,
)  # fmt: skip
from edgeturbo.benchmarks.gpu_check.report import MORE, gather, markdown, with_block, write_summary
from edgeturbo.benchmarks.gpu_check.targets import share_of_ceiling, targets
from edgeturbo.benchmarks.latency import Latency, ratio
from edgeturbo.engines.errors import InputError, UsageError
from edgeturbo.engines.manifest import GoldenParity

GPU = Gpu("NVIDIA Test 1", "sm_89", "550.1", 24_000_000_000, *[UNREADABLE] * 6)
HERE = Environment("a CPU", 8, 1, "Linux x86_64", "3.11.7", GPU, None, {"torch": "2.9"}, "c0de", "c" * 40, False, 0.1)
COMMON_MS = 40.0


def latency(milliseconds: float) -> Latency:
    return Latency.of([milliseconds / 1e3] * 5)


def row(name: str, milliseconds: float, *, common: bool = False, over_ms: float = 0.2) -> Row:
    times = None if common else ratio(latency(COMMON_MS), latency(milliseconds))
    return Row(
        name, "a backend", "fp16", latency(milliseconds), "a clock", latency(milliseconds + over_ms),
        latency(milliseconds + 2), times, times, 2_500_000_000, GoldenParity(1, 58.5, 0.999, 2),
        {"cuda_graph": "captured"},
    )  # fmt: skip


def record(stage: str, *rows: Row, **more) -> StageRecord:
    rows = (row(PYTORCH_COMMON, COMMON_MS, common=True), *rows) if rows else ()
    fields = {"state": DONE, "reason": None, "common": PYTORCH_COMMON if rows else None, **more}
    return StageRecord(1, stage, key={}, seconds=1.0, environment=HERE, rows=rows, **fields)


@pytest.fixture
def options(tmp_path: Path) -> CheckOptions:
    return CheckOptions(tmp_path / "work", tmp_path / "results")


@pytest.fixture
def good() -> dict[str, StageRecord]:
    """Everything measured, every target met: 4.44 TFLOP in 8 ms are 555 TFLOP/s."""
    records = [
        record("prepare-weights", figures={"total_tflop": 4.44}),
        record("ceiling", figures={"ceiling_tflops": 800.0}),
        record("compile", row("torch.compile fp16", 16.0)),
        record("onnxruntime-cuda", row("ONNX Runtime CUDA fp16", 20.0)),
        record("tensorrt", row(f"{OURS}, tensorrt fp16", 8.0)),
        record("three-engines", row("three separate engines", 13.0)),
    ]
    return {record.stage: record for record in records}


def verdicts(records: dict[str, StageRecord]) -> list[str]:
    return [target.verdict for target in targets(records)]


def test_targets_are_met_by_good_figures(good):
    assert verdicts(good) == ["met"] * 6
    got = [target.got for target in targets(good)]
    assert got == [
        "5.00x (5.00 to 5.00)", "1.63x against three engines", "69.4%", "0.200 ms", "2.50 GB", "58.5 dB",
    ]  # fmt: skip


def test_targets_are_missed_by_worse_figures(good):
    slow = replace(row(f"{OURS}, tensorrt fp16", 12.0, over_ms=0.7), device_bytes=2_700_000_000)
    slow = replace(slow, parity=GoldenParity(1, 39.9, 0.9, 20))
    assert verdicts({**good, "tensorrt": record("tensorrt", slow)}) == ["not met"] * 6


def test_what_was_not_measured_is_said_to_be(good):
    assert verdicts({}) == ["not measured"] * 6
    assert verdicts({**good, "tensorrt": record("tensorrt")}) == ["not measured"] * 6
    del good["ceiling"]
    assert verdicts(good)[2] == "not measured"


def test_a_lead_over_some_rivals_is_no_lead_over_all(good):
    del good["three-engines"]
    rivals = targets(good)[1]
    assert (rivals.got, rivals.verdict) == ("2.00x against torch.compile; without three engines", "not measured")


def test_rivals_with_another_common_row_do_not_count(good):
    good["three-engines"] = replace(good["three-engines"], common="another row")
    assert targets(good)[1].got.endswith("without three engines")


def test_a_common_row_that_is_not_eager_pytorch_says_nothing_of_it(good):
    assert verdicts({name: replace(record, common="another row") for name, record in good.items()})[0] == "not measured"


def test_the_share_of_the_ceiling_is_arithmetic_over_time_over_ceiling(good):
    assert share_of_ceiling(row("x", 8.0), good) == pytest.approx(4.44 / 0.008 / 800)
    assert share_of_ceiling(replace(row("null", 8.0), precision="none"), good) is None


def test_the_table_has_every_row_with_its_ratio(good, options):
    good["tensorrt-rtx"] = record("tensorrt-rtx", state=NOT_RUN, reason="no driver")
    text = markdown("nvidia-test-1", good, options)
    (line,) = [line for line in text.splitlines() if OURS in line]
    assert line == (
        f"| tensorrt: {OURS}, tensorrt fp16 | 8.00 | 8.00 | 8.00 | 0.00 | 8.20 | 8.20 | 8.20 | 10.00 | 122.0 "
        "| 5.00 (5.00 to 5.00) | 2.50 GB | 69.4% | 58.5 dB | 5 |"
    )
    tables = [line for line in text.splitlines() if line.startswith("|")]
    assert {line.count("|") for line in tables[:10]} == {16}
    assert text.count("| the common row |") == 4
    assert "- tensorrt-rtx: not run: no driver" in text
    assert "NVIDIA Test 1, sm_89, driver 550.1" in text
    assert "not asked for yet: prepare-bundle" in text
    assert text.count("| met |") == 6


def test_a_tiny_model_meets_no_target(good, options):
    text = markdown("cpu-tiny", good, replace(options, model="tiny", device="cpu"))
    assert text.count("| not measured |") == 6
    assert "say nothing about speed" in text


def test_a_block_replaces_its_own_and_leaves_the_others():
    page = f"before\n\n{MORE}\n\nafter\n"
    once = with_block(with_block(page, "a", "first a\n"), "b", "first b\n")
    twice = with_block(once, "a", "second a\n")
    assert "first a" not in twice
    assert twice.index("second a") < twice.index("first b") < twice.index(MORE) < twice.index("after")
    assert with_block(twice, "a", "second a\n") == twice
    with pytest.raises(UsageError, match="no place"):
        with_block("a page\n", "a", "block\n")


def test_records_survive_a_round_trip_and_the_summary_drops_samples(tmp_path, good, options):
    for name, one in good.items():
        write_record(tmp_path / "machine" / f"{name}.json", one)
    found = gather(tmp_path / "machine")
    assert found == good
    assert list(found) == [name for name in found if name in good]
    write_summary(tmp_path / "machine.json", found, options)
    summary = json.loads((tmp_path / "machine.json").read_text())
    assert [target["verdict"] for target in summary["targets"]] == ["met"] * 6
    (ours,) = [r for s in summary["stages"] for r in s["rows"] if r["name"].startswith(OURS)]
    assert (ours["engine"]["p50_ms"], ours["engine"]["samples_ms"]) == (8.0, [])


def test_a_damaged_record_is_named(tmp_path):
    (tmp_path / "ceiling.json").write_text("{")
    with pytest.raises(InputError, match=r"ceiling\.json cannot be read"):
        gather(tmp_path)
    (tmp_path / "ceiling.json").write_text("{}")
    with pytest.raises(InputError, match="not a stage's record"):
        read_record(tmp_path / "ceiling.json")


def test_a_stage_is_known_by_code_options_and_machine(options):
    key = key_of("ceiling", options, HERE)
    for other in (
        key_of("compile", options, HERE), key_of("ceiling", replace(options, runs=7), HERE),
        key_of("ceiling", options, replace(HERE, code="0ther")),
        key_of("ceiling", options, replace(HERE, packages={"torch": "2.10"})),
        key_of("ceiling", options, replace(HERE, gpu=replace(GPU, driver="560.0"))),
    ):  # fmt: skip
        assert other != key
    # The run itself writes into the checkout's docs: that is no other code.
    assert key_of("ceiling", options, replace(HERE, commit="d" * 40, dirty=True)) == key
    # Where things lie and how long a stage may take do not change a figure.
    assert key_of("ceiling", replace(options, work=Path("elsewhere"), limit_s=9.0), HERE) == key


def test_results_are_filed_under_the_machine_and_the_model(options):
    assert name_of(options, HERE) == "nvidia-test-1"
    assert name_of(replace(options, model="tiny", device="cpu"), HERE) == "cpu-tiny"
    assert name_of(options, replace(HERE, gpu=None)) == "no-gpu"


def test_reasons_are_fit_for_the_public(options):
    text = scrubbed(f"cannot read {options.work}/base and {Path.home()}/.cache", options)
    assert text == "cannot read WORK/base and ~/.cache"
