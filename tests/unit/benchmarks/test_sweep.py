"""Which sizes and batches are exported again, and what a result says of them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from edgeturbo.benchmarks.compare import compare_results
from edgeturbo.benchmarks.result import SWEEP, Shape, load_result
from edgeturbo.benchmarks.rivals import same_options
from edgeturbo.benchmarks.rows import Setting
from edgeturbo.benchmarks.suite import BenchOptions, run_bench
from edgeturbo.benchmarks.sweep import Sweep
from edgeturbo.engines.errors import UsageError
from edgeturbo.engines.files import sha256_of
from edgeturbo.engines.manifest import FrameLayout, Model
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
