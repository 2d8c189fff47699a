"""The script itself, from the command line, on a tiny model and the CPU's engines."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
from edgeturbo.benchmarks.gpu_check.flops import generator_flops
from edgeturbo.benchmarks.gpu_check.report import MORE
from edgeturbo.engines.cuda import driver_problem

STAGES = ("prepare-weights", "prepare-bundle", "prepare-reference", "cpu-engines")
COMMON = "ONNX Runtime CPU, fp16 graph"


@dataclass
class Check:
    """A folder that the script was run in."""

    folder: Path

    def run(self, *words: str, stages: tuple[str, ...] = (), device: str = "cpu") -> subprocess.CompletedProcess[str]:
        chosen = [word for stage in stages for word in ("--stage", stage)]
        command = [sys.executable, "-m", "edgeturbo.benchmarks.gpu_check", "--work", "work", "--results", "results"]
        options = ["--model", "tiny", "--device", device, "--runs", "3", "--warmup", "1", *chosen, *words]
        # Tiny tensors gain nothing from a second thread, and wait for it on a busy machine.
        alone = {**os.environ, "OMP_NUM_THREADS": "1"}
        return subprocess.run(
            [*command, *options], cwd=self.folder, capture_output=True, text=True, check=False, env=alone
        )

    def record(self, stage: str, machine: str = "cpu-tiny") -> dict:
        return json.loads((self.folder / "results" / machine / f"{stage}.json").read_text())


@pytest.fixture(scope="module")
def check(tmp_path_factory: pytest.TempPathFactory) -> Check:
    check = Check(tmp_path_factory.mktemp("check"))
    (check.folder / "page.md").write_text(f"# Page\n\n{MORE}\n")
    done = check.run("--docs", "page.md", stages=STAGES)
    assert done.returncode == 0, done.stderr
    return check


def test_every_row_is_measured_in_turns_with_the_common_one(check: Check):
    record = check.record("cpu-engines")
    assert record["state"] == "done"
    assert record["common"] == COMMON
    common, *others = record["rows"]
    assert (common["name"], common["ratio"]) == (COMMON, None)
    assert others
    for row in others:
        assert row["ratio"]["low"] <= row["ratio"]["value"] <= row["ratio"]["high"]
        assert row["device_bytes"] is None
    for row in record["rows"]:
        assert row["engine"]["n"] == len(row["engine"]["samples_ms"]) == 3
        assert row["frame_hd"]["p50_ms"] > 0


def test_an_engine_that_does_nothing_is_faster_than_the_common_row_and_wrong(check: Check):
    common, *others = check.record("cpu-engines")["rows"]
    (null,) = [row for row in others if row["backend"] == "null"]
    assert null["ratio"]["value"] > 1
    assert null["frame_ratio"]["value"] > 1
    assert null["parity"]["psnr_db"] < 40 < common["parity"]["psnr_db"]


def test_the_table_and_the_summary_are_made(check: Check):
    page = (check.folder / "page.md").read_text()
    assert page.startswith("# Page\n\n<!-- gpu-check:begin cpu-tiny -->\n### cpu-tiny\n")
    assert f"| cpu-engines: {COMMON} |" in page
    assert "say nothing about speed" in page
    summary = json.loads((check.folder / "results" / "cpu-tiny.json").read_text())
    assert [stage["stage"] for stage in summary["stages"]] == list(STAGES)
    assert {target["verdict"] for target in summary["targets"]} == {"not measured"}


def test_nothing_private_is_in_the_results(check: Check):
    for path in (check.folder / "results").rglob("*.json"):
        text = path.read_text()
        assert str(check.folder) not in text
        assert str(Path.home()) not in text


def test_a_second_run_measures_nothing_again_and_a_killed_stage_goes_on(check: Check):
    before = check.record("cpu-engines")
    done = check.run(stages=("cpu-engines",))
    assert done.returncode == 0
    assert "finished before" in done.stderr
    assert check.record("cpu-engines") == before
    killed = check.run("--stage-limit", "0.5", "--again", stages=("cpu-engines",))
    assert killed.returncode == 6
    assert check.record("cpu-engines")["state"] == "killed"
    assert "1 stages did not finish: cpu-engines" in killed.stderr
    assert "cpu-engines            killed" in check.run("--list").stdout


def test_nothing_of_the_merged_model_stays_on_the_host(check: Check):
    """The meta device stands for a GPU: it refuses tensors of the CPU just so, and computes nothing."""
    import torch
    from edgeturbo.benchmarks.gpu_check.options import CheckOptions
    from edgeturbo.benchmarks.gpu_check.pytorch_model import load_parts, merged_module

    options = CheckOptions(check.folder / "work", check.folder, model="tiny", device="cpu")
    module = merged_module(load_parts(options).merged(), "meta", torch.float16, channels_last=True)
    with torch.inference_mode():
        image = module(frame=torch.zeros(1, 64, 64, 3, dtype=torch.uint8, device="meta"))
    assert (image.device.type, image.dtype, tuple(image.shape)) == ("meta", torch.uint8, (1, 64, 64, 3))


@pytest.mark.skipif(driver_problem() is None, reason="this machine has a GPU")
def test_without_a_gpu_it_says_so_and_writes_no_figure(check: Check):
    done = check.run(device="cuda")
    assert done.returncode == 4
    assert "no stage could run here" in done.stderr
    record = check.record("tensorrt", "no-gpu-tiny")
    assert record["state"] == "not run"
    assert "NVIDIA" in record["reason"]


@pytest.mark.parametrize("words", [("--model", "huge"), ("--device", "tpu"), ("--stage", "warp")])
def test_wrong_words_are_refused(check: Check, words: tuple[str, str]):
    done = check.run(*words)
    assert done.returncode == 2
    assert "expected: " in done.stderr


def test_the_full_generators_arithmetic_is_what_the_targets_are_reckoned_with(tmp_path: Path):
    """The issue's 4.44 TFLOP (1.12 + 0.80 + 2.51) leave out the four skip convolutions; a multiply-add is two."""
    import torch
    from diffusers import AutoencoderKL, UNet2DConditionModel
    from edgeturbo.benchmarks import synthetic

    with torch.device("meta"):
        UNet2DConditionModel(**synthetic._unet_config(synthetic.SD_TURBO)).save_config(tmp_path / "unet")
        AutoencoderKL(**synthetic._vae_config(synthetic.SD_TURBO)).save_config(tmp_path / "vae")
    flops = generator_flops(tmp_path, 512)
    skips = sum(2 * inner * outer * side**2 for inner, outer, side in SKIPS)
    assert skips == pytest.approx(0.032e12, abs=0.001e12)
    tera = {name: round(count / 1e12, 2) for name, count in flops.items()}
    assert (tera["vae_encoder"], tera["unet"], tera["total"]) == (1.12, 0.80, 4.47)
    assert round((flops["vae_decoder"] - skips) / 1e12, 2) == 2.51
    assert flops["total"] == flops["vae_encoder"] + flops["unet"] + flops["vae_decoder"]


# In and out channels and side of skip_conv_1 to skip_conv_4 at 512x512.
SKIPS = ((512, 512, 64), (256, 512, 128), (128, 512, 256), (128, 256, 512))
