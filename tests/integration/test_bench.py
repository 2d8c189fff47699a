"""``turbo-bench`` as it is typed, on the tiniest bundle: what it writes, compares and refuses."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from edgeturbo.benchmarks.latency import StoppingRule
from edgeturbo.benchmarks.result import FAIR, OWN, PUBLISHED, SUBJECT, SWEEP, Shape, load_result
from edgeturbo.benchmarks.rows import Setting
from edgeturbo.benchmarks.suite import BenchOptions, run_bench
from edgeturbo.cli import bench
from edgeturbo.export.recipe import ExportOptions
from exports import export_once
from tiny import GOLDEN, GOLDEN_BASE

CKPT = GOLDEN / "cyclegan.pkl"
QUICK = ("--repeat", "3", "--seconds", "5")


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    options = ExportOptions(
        CKPT, None, str(GOLDEN_BASE), "driving in the night", "a2b", width=64, height=64, precision="fp32",
        engine="onnx", parity_frames=1,
    )  # fmt: skip
    return export_once(tmp_path_factory, "bench", lambda out: replace(options, out=out)).root


@pytest.fixture
def typed(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]):
    def run(*words: str | Path) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["turbo-bench", *map(str, words)])
        with pytest.raises(SystemExit) as end:
            bench.main()
        printed = capfd.readouterr()
        return int(end.value.code or 0), printed.out, printed.err

    return run


def test_it_measures_writes_and_compares_with_itself(typed, bundle: Path, tmp_path: Path):
    words = (bundle, "--suite", "latency,quality,energy,memory", *QUICK)
    code, out, _ = typed(*words, "--json", tmp_path / "a.json", "--report", tmp_path / "report")
    assert code == 0
    assert "Latency" in out
    found = load_result(tmp_path / "a.json")
    assert found.subject.role == SUBJECT
    assert found.subject.engine is not None
    assert found.subject.quality is not None
    assert found.subject.memory is not None
    assert found.subject.memory.peak_rss_bytes > 10_000_000
    assert found.subject.energy is not None or "not readable here" in found.subject.not_run["energy"]
    assert (tmp_path / "report" / "report.html").is_file()
    # A record of a machine a thousand times as fast, and better pictures than any: both are missed by now.
    data = json.loads((tmp_path / "a.json").read_text())
    for latency in ("engine", "frame"):
        samples = data["rows"][0][latency]["samples_ms"]
        data["rows"][0][latency]["samples_ms"] = [sample / 1000 for sample in samples]
    data["steadiness"] = None
    (tmp_path / "old.json").write_text(json.dumps(data))
    code, _, err = typed(bundle, "--suite", "latency,quality", *QUICK, "--compare", tmp_path / "old.json")
    assert code == 5
    assert "engine median" in err


def test_pytorch_is_measured_as_published_and_fairly(bundle: Path):
    options = BenchOptions(
        suites=("latency", "quality"), against=("pytorch",), rule=StoppingRule(least=2, most=2), warmup=1, rest_s=0
    )
    found = run_bench(Setting(bundle, CKPT, str(GOLDEN_BASE)), options, "turbo-bench").result
    assert {PUBLISHED, FAIR} <= {row.role for row in found.rows if row.engine is not None}
    assert "PyTorch FP32" in found.reference
    own = next(row for row in found.rows if row.role == OWN)
    assert own.precision == "bf16"
    assert own.quality is not None
    for row in found.rows:
        if row.precision == "fp32":  # the bundle, as published, fair
            value = row.quality.worst["psnr_db"].value
            assert value is None or value > 50
    assert all(row.ratio is not None for row in found.rows[1:] if row.role != OWN)


def test_other_sizes_and_batches_are_exported_measured_and_written(typed, bundle: Path, tmp_path: Path):
    words = ("--ckpt", CKPT, "--base", GOLDEN_BASE, "--size", "64x64,60x64", "--batch", "2")
    code, out, err = typed(bundle, "--suite", "latency,throughput", *QUICK, *words, "--json", tmp_path / "r.json")
    assert code == 0, err
    found = load_result(tmp_path / "r.json")
    rows = [row for row in found.rows if row.role == SWEEP]
    assert [row.shape for row in rows] == [Shape(64, 64, 2)]  # 64x64 is the bundle's own
    assert all(row.ratio is not None and "PSNR" in row.facts["parity"] for row in rows)
    assert rows[0].throughput[0].batch == 2
    assert "64x64 batch 2: a run, p50 " in out
    assert "multiple" in found.not_run["bundle at 60x64"]  # an export that is refused is a reason, not the end


def test_a_size_is_proposed_for_a_device(typed, bundle: Path):
    words = ("--suite", "energy", "--size", "auto", "--fps", "30", "--device", "rtx-4090")
    code, out, _ = typed(bundle, *words)
    assert code == 0
    assert "A size to use" in out
    assert "turbo-export --size " in out
    assert "never measured on such a device" in out


def test_two_runs_of_one_bundle_agree_within_what_they_can_be_wrong_about(typed, bundle: Path, tmp_path: Path):
    words = (bundle, "--suite", "latency,quality", "--repeat", "20", "--seconds", "10")
    codes = []
    for _ in range(3):  # one interval in twenty misses by chance, and other programs may come and go in between
        assert typed(*words, "--json", tmp_path / "before.json")[0] == 0
        codes.append(typed(*words, "--compare", tmp_path / "before.json")[0])
        if codes[-1] == 0:
            break
    assert 0 in codes


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (("--against", "pytorch"), 2, "holds no checkpoint"),
        (("--against", "tensorflow"), 2, "not known"),
        (("--suite", "speed"), 2, "not known"),
        (("--size", "64x96"), 2, "holds no checkpoint"),
        (("--batch", "two"), 2, "not a list of numbers"),
        (("--size", "auto"), 2, "wants a rate and a device"),
        (("--fps", "15"), 2, "for --size auto"),
        (("--size", "auto", "--fps", "15", "--device", "toaster"), 2, "toaster"),
        (("--predict", "toaster"), 2, "toaster"),
        (("--compare", "nowhere.json"), 3, "cannot read"),
        (("--ckpt", GOLDEN / "pix2pix.pkl", "--suite", "quality"), 2, "not the checkpoint"),
    ],
)
def test_what_cannot_be_meant_is_refused(typed, bundle: Path, words, code: int, said: str):
    ended, _, err = typed(bundle, *words)
    assert ended == code, err
    assert said in err
