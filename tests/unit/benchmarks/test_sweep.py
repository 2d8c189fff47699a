"""Which sizes and batches are exported again, and what a result says of them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import small_generator
from edgeturbo.benchmarks.apart import call_apart
from edgeturbo.benchmarks.compare import compare_results
from edgeturbo.benchmarks.devices import DEVICES
from edgeturbo.benchmarks.predict import predict
from edgeturbo.benchmarks.result import SWEEP, Shape, load_result
from edgeturbo.benchmarks.rivals import same_options
from edgeturbo.benchmarks.rows import Setting
from edgeturbo.benchmarks.suite import BenchOptions, run_bench
from edgeturbo.benchmarks.sweep import Sweep, quantised_alike
from edgeturbo.engines.bundle import ONNX
from edgeturbo.engines.errors import UsageError
from edgeturbo.engines.files import sha256_of
from edgeturbo.engines.manifest import FrameLayout, Model, Quantisation
from edgeturbo.export.costs import counted
from edgeturbo.export.recipe import ExportOptions, refuse_impossible
from made_results import result, samples

OWN = Shape(48, 32, 1)


def swept(seed: int = 0, slower: float = 1.0):
    """A made-up result with a row of twice the batch."""
    before = result(seed)
    row = replace(
        before.subject, name="edgeturbo, made up, batch 2", role=SWEEP, shape=Shape(48, 32, 2),
        engine=samples(0.016 * slower, seed + 5), frame=None, quality=None, memory=None,
    )  # fmt: skip
    return replace(before, rows=(*before.rows, row))


def test_sizes_and_batches_vary_one_at_a_time_and_the_bundles_own_is_left_out():
    sweep = Sweep(((64, 64), (48, 32), (64, 64)), (1, 4))
    assert sweep.shapes(OWN) == [Shape(64, 64, 1), Shape(48, 32, 4)]
    assert not Sweep().shapes(OWN)
    assert not Sweep()


def test_without_a_checkpoint_the_error_says_what_to_type(make_bundle):
    bundle = make_bundle()
    options = BenchOptions(suites=("latency",), sweep=Sweep(((64, 64), (128, 128)), (2,)))
    with pytest.raises(UsageError, match="holds no checkpoint") as refused:
        run_bench(Setting(bundle.root, base="sd"), options, "turbo-bench x")
    assert refused.value.exit_code == 2
    assert "--size 64x64,128x128 --batch 2 --ckpt day2night.pkl --base sd" in refused.value.hint


def test_a_bundle_is_exported_again_with_its_own_options(make_bundle, tmp_path: Path):
    bundle = make_bundle()
    ckpt = tmp_path / "x.pkl"
    ckpt.write_bytes(b"a checkpoint")
    with pytest.raises(UsageError, match="not the checkpoint"):
        same_options(Setting(bundle.root, ckpt), bundle)
    manifest = replace(
        bundle.manifest,
        model=Model("pix2pix-turbo", None, "a cat", 0.3, "sample", "fp16", 21, 64, 48, 2, ("half",)),
        frame_layout=FrameLayout(1280, 720, "nv12", "rgb", "bt709", "full"),
        provenance=replace(bundle.manifest.provenance, checkpoint_sha256=sha256_of(ckpt)),
    )
    object.__setattr__(bundle, "manifest", manifest)
    again = same_options(Setting(bundle.root, ckpt, "sd"), bundle)
    assert (again.prompt, again.strength, again.posterior, again.precision) == ("a cat", 0.3, "sample", "fp16")
    assert (again.opset, again.passes, again.base, again.engine) == (21, ("half",), "sd", "onnx")
    assert (again.frame, again.frame_format, again.colour_matrix) == ((1280, 720), "nv12", "bt709")
    assert again.parity_frames is None  # the gate is never skipped: its own default holds


def eight_bits(**more) -> Quantisation:
    return Quantisation(4, 298, 0.01, 2, "64 of 900 pictures in frames", "percentile", ("unet/mid_block",), **more)


def test_eight_bits_are_exported_again_by_the_bundles_own_method_and_the_row_says_on_which_pictures(tmp_path: Path):
    options = ExportOptions(tmp_path / "x.pkl", precision="int8")
    again, told = quantised_alike(options, eight_bits())
    assert again == replace(options, method="percentile")
    assert told == ", calibrated on the bundled photographs"
    refuse_impossible(again)


@pytest.mark.parametrize("weights", [None, replace(eight_bits(), frames=0, source="", method="")])
def test_what_needs_no_calibration_is_exported_again_as_it_was(tmp_path: Path, weights):
    options = ExportOptions(tmp_path / "x.pkl", precision="int8-weights" if weights else "fp16")
    assert quantised_alike(options, weights) == (options, "")


def test_a_mixture_is_searched_again_for_its_own_device_and_bound_and_the_row_says_so(tmp_path: Path):
    options = ExportOptions(tmp_path / "x.pkl", precision="mixed:int8")
    with pytest.raises(UsageError, match="none was named"):
        refuse_impossible(options)
    device = DEVICES["agx-orin"]
    again, told = quantised_alike(options, eight_bits(device=device.name, min_psnr_db=54.0))
    call_apart(refuse_impossible, again)  # as the export: in a process of its own, which has to be told all of it
    assert (again.min_psnr, again.method, again.target.device) == (54.0, "percentile", device.name)
    assert told == f", mixed anew for {device.name} at 54 dB, calibrated on the bundled photographs"
    model = small_generator.generator(half=True)
    assert again.target.predict(model) == predict(counted(model.graph, Path(ONNX)), device).ms > 0


def test_a_mixture_for_a_device_that_nobody_knows_is_refused(tmp_path: Path):
    with pytest.raises(UsageError, match="a device that the table does not have") as refused:
        quantised_alike(ExportOptions(tmp_path / "x.pkl"), eight_bits(device="cpu", min_psnr_db=35.0))
    assert DEVICES["agx-orin"].name in refused.value.expected


def test_a_batch_counts_in_frames_a_second():
    found = swept()
    assert found.fps_of(found.rows[-1]) == pytest.approx(2 / 0.016, rel=0.02)


def test_a_sweeps_row_is_compared_with_its_own_kind_also_across_bundles(tmp_path: Path):
    found = compare_results(swept(), swept(7, slower=1.3))
    assert [one.row for one in found.regressions if "engine" in one.what] == ["edgeturbo, made up, batch 2"]
    other = swept(7, slower=1.3)
    other = replace(other, rows=(*other.rows[:-1], replace(other.rows[-1], shape=Shape(48, 64, 2))))
    assert not [one for one in compare_results(swept(), other).changes if "batch 2" in one.row]
    path = tmp_path / "r.json"
    other.save(path)
    assert load_result(path) == other
