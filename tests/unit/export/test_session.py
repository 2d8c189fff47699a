"""An export from end to end: what it reports, what it writes, and that a refusal leaves everything as it was."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest
import torch_graph
from edgeturbo.engines.bundle import ONNX, ONNX_DATA, Bundle
from edgeturbo.engines.errors import CheckpointError, MissingComponentError, OutputExistsError, ParityError, UsageError
from edgeturbo.engines.onnxruntime import OnnxRuntimeEngine
from edgeturbo.engines.parity import psnr
from edgeturbo.export.base import open_base
from edgeturbo.export.recipe import ExportOptions
from edgeturbo.export.samples import Sample, samples
from edgeturbo.export.session import export_bundle
from edgeturbo.export.stages import stage_of
from edgeturbo.export.trace import UNQUANTISED, GraphShape
from edgeturbo.export.verify import ReferenceOutputs, bundle_outputs, compare, refuse_departure
from PIL import Image
from terminal import terminal

STAGES = [
    "read checkpoint", "open base model", "encode prompt", "merge", "trace", "specialise", "save ONNX",
    "PyTorch reference", "parity", "seal",
]  # fmt: skip


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_the_report_times_every_stage_in_the_order_of_the_events(exported):
    assert [event.text for event in exported.events if event.kind == "stage"] == STAGES
    assert list(exported.report.seconds) == STAGES
    assert all(seconds >= 0 for seconds in exported.report.seconds.values())
    notes = [event.text for event in exported.events if event.kind == "note"]
    assert tuple(notes) == exported.report.notes
    assert notes[0].startswith("passes: ")
    assert notes[1].startswith("not in the checkpoint: unet.conv_in")
    assert exported.report.warnings == ()


def test_the_bundle_is_whole_and_nothing_else_is_left(exported):
    assert [path.name for path in exported.root.parent.iterdir()] == ["bundle"]
    written = {path.relative_to(exported.root).as_posix() for path in exported.root.rglob("*") if path.is_file()}
    goldens = {f"goldens/{i}_{kind}.png" for i in (0, 1) for kind in ("frame", "image")}
    assert written == {"manifest.json", "costs.json", ONNX, ONNX_DATA, *goldens}
    bundle = Bundle.open(exported.root)
    assert bundle == exported.report.bundle
    for name in bundle.manifest.files:
        bundle.verified(name)


def test_the_manifest_says_what_was_made(exported):
    manifest = exported.report.bundle.manifest
    model = manifest.model
    assert (model.family, model.direction, model.prompt, model.strength) == ("cyclegan-turbo", "a2b", "a prompt", None)
    assert (model.width, model.height, model.batch, model.precision, model.opset) == (64, 64, 1, "fp32", 20)
    assert [(spec.name, spec.dtype, spec.shape) for spec in (*manifest.inputs, *manifest.outputs)] == [
        ("frame", "uint8", (1, 64, 64, 3)),
        ("image", "uint8", (1, 64, 64, 3)),
    ]
    assert manifest.fp32_islands == ()
    assert manifest.range_ledger is None


def test_the_manifest_holds_the_gates_figures(exported):
    parity = exported.report.bundle.manifest.parity
    assert parity.frames == 1
    assert 0 < parity.max_abs <= 1e-4
    assert parity.psnr_db is None or parity.psnr_db > 60
    assert parity.ssim > 0.999
    assert 20 < parity.bf16_psnr_db < 80


def test_the_provenance_is_right(exported, tiny):
    provenance = exported.report.bundle.manifest.provenance
    assert (provenance.checkpoint, provenance.checkpoint_sha256) == (tiny.cyclegan().name, digest(tiny.cyclegan()))
    assert (provenance.base, provenance.base_revision) == (str(tiny.base), open_base(str(tiny.base)).revision)
    assert provenance.command == "turbo-export …"
    assert {"edgeturbo", "torch", "diffusers", "peft", "onnx", "onnxruntime"} <= provenance.tools.keys()
    assert "unet.conv_in" in provenance.omissions[0]


def test_the_goldens_are_what_the_bundle_computes(exported):
    with OnnxRuntimeEngine(exported.root / ONNX) as engine:
        for index in (0, 1):
            frame, image = (
                np.asarray(Image.open(exported.root / "goldens" / f"{index}_{kind}.png")) for kind in ("frame", "image")
            )
            difference = np.abs(engine.run({"frame": frame[None]})["image"][0].astype(int) - image)
            # The gate's session runs with other kernels, so a value near a step may fall on its other side.
            assert difference.max() <= 1
            assert (difference == 0).mean() >= 0.999


def test_the_image_is_the_unquantised_one_truncated(exported):
    (sample,) = samples(GraphShape(64, 64, 1, noise=False, posterior_noise=False), "raw", 1)
    outputs = bundle_outputs(exported.root / ONNX, (sample,))
    expected = np.floor((outputs.unquantised[0] * np.float32(0.5) + np.float32(0.5)) * np.float32(255))
    assert np.array_equal(outputs.images[0], expected.transpose(1, 2, 0).astype(np.uint8))
    assert not list(exported.root.glob(".*"))


def test_the_same_export_gives_the_same_bytes_after_another_one_and_in_another_process(exported, exported_elsewhere):
    for name in (ONNX, ONNX_DATA):
        assert digest(exported_elsewhere / name) == digest(exported.root / name), name


def test_what_nothing_can_repair_fails_the_export_by_name_and_leaves_the_earlier_bundle(hopeless):
    assert hopeless.error.exit_code == 5
    name, _, reached = hopeless.error.got.split(";")[0].partition(" reaches ")
    assert stage_of(name) == "vae_decoder"
    assert "up_blocks.1.resnets.1.conv1" in name  # the weight, not the hundreds that follow from it
    assert reached == "inf"
    assert hopeless.after == hopeless.before


def test_an_overflow_is_repaired_and_the_manifest_says_how(overflow):
    manifest = overflow.report.bundle.manifest
    ledger = manifest.range_ledger
    assert manifest.parity.psnr_db >= 40
    assert ledger.hottest[0].largest <= ledger.limit / ledger.margin
    assert (ledger.warnings, ledger.margin) == ((), 2.0)
    assert (ledger.frames, ledger.source.partition(":")[0]) == (8, "bundled")
    (hottest, *_) = sorted(ledger.repairs, key=lambda repair: -repair.reached)
    assert (hottest.kind, hottest.problem, hottest.stage) == ("rescale", "overflow", "vae_decoder")
    assert hottest.reached > ledger.limit > hottest.limit
    assert hottest.reached * 2.0**hottest.exponent <= hottest.limit < hottest.reached * 2.0 ** (hottest.exponent + 1)
    assert hottest.node_count == len(hottest.nodes) > 1
    assert (hottest.bytes, hottest.time_share) == (0, 0.0)
    notes = [event.text for event in overflow.events if event.kind == "note"]
    assert sum(note.startswith("FP16 repair: ") for note in notes) == len(ledger.repairs)


PLACES = {
    "vae_encoder/encoder.mid_block.resnets.0.conv1",
    "vae_encoder/encoder.mid_block.attentions.0.to_v",
    "unet/network.down_blocks.1.resnets.0.conv1",
    "vae_decoder/decoder.mid_block.resnets.1.conv1",
}
TO_V, TO_OUT = (f"vae_encoder/encoder.mid_block.attentions.0.{name}/MatMul_0" for name in ("to_v", "to_out.0"))


@pytest.fixture(scope="module")
def sample() -> Sample:
    (sample,) = samples(GraphShape(64, 64, 1, noise=False, posterior_noise=False), "raw", 1)
    return sample


def test_what_overflows_in_several_places_is_found_by_measuring_and_rescaled(several):
    manifest = several.report.bundle.manifest
    ledger = manifest.range_ledger
    assert manifest.parity.psnr_db >= 40
    assert ledger.hottest[0].largest <= ledger.limit / 2
    assert {repair.kind for repair in ledger.repairs} == {"rescale"}
    assert {place for place in PLACES if any(r.tensor.startswith(f"{place}/") for r in ledger.repairs)} == PLACES
    # A weight's exponent is its own: the values' falls, and that of the projection behind them rises by as much.
    exponents = {repair.tensor: repair.exponent for repair in ledger.repairs}
    assert exponents[f"{TO_OUT}:1.fp16"] == -exponents[f"{TO_V}:1.fp16"] > 0


def test_inspect_shows_the_hottest_tensors_of_each_stage_and_every_repair(several, monkeypatch, capfd):
    turbo = terminal(monkeypatch, capfd)
    ledger = several.report.bundle.manifest.range_ledger
    told = json.loads(turbo("turbo-inspect", several.root, "--ranges", "--json").out)
    assert {"vae_encoder", "unet", "vae_decoder"} <= told["stages"].keys()
    assert told["stages"][ledger.hottest[0].stage][0].endswith(ledger.hottest[0].tensor)
    assert len(told["repairs"]) == len(ledger.repairs)
    text = turbo("turbo-inspect", several.root, "--ranges").out
    for repair in ledger.repairs:
        assert f"- {repair.tensor}: {repair.problem}, " in text
        assert f"times 2^{repair.exponent}" in text


def test_the_repaired_graph_is_finite_in_true_fp16_and_the_unrepaired_one_is_not(overflow, several, sample):
    feeds = {"frame": sample.frame[None]}
    for exported in (overflow, several):
        ours, broken = torch_graph.run(exported.root / ONNX, feeds, UNQUANTISED)
        assert broken == []
        # ONNX Runtime computes in FP32 inside, and is a reference for that reason.
        expected = bundle_outputs(exported.root / ONNX, (sample,)).unquantised[0]
        assert psnr(ours[0].numpy(), expected, peak=2.0) >= 40
    _, broken = torch_graph.run(several.unrepaired, feeds, UNQUANTISED)
    assert stage_of(broken[0]) == "vae_encoder"
    assert "image_out" in {stage_of(name) for name in broken}


@pytest.mark.parametrize("layer", [TO_V, TO_OUT], ids=["values", "output projection"])
def test_a_repair_that_is_wrong_on_one_side_is_refused_by_the_gate(several, sample, tmp_path, layer):
    """A factor of 2 in one weight that a repair changed. (In front of a normalisation it would change nothing.)"""
    exact = bundle_outputs(several.root / ONNX, (sample,))
    model = ir.load(several.root / ONNX)
    (weight,) = [value for name, value in model.graph.initializers.items() if name.startswith(f"{layer}:1.fp16.2^")]
    weight.const_value = ir.tensor(weight.const_value.numpy() * np.float16(2), name=weight.name)
    ir.save(model, tmp_path / ONNX, external_data=ONNX_DATA)
    parity = compare(bundle_outputs(tmp_path / ONNX, (sample,)), ReferenceOutputs(exact, exact))
    with pytest.raises(ParityError):
        refuse_departure(parity, "fp16")


def test_a_graph_that_needs_no_repair_is_byte_for_byte_what_is_made_without(sound):
    assert sound.report.bundle.manifest.range_ledger.repairs == ()
    for name in (ONNX, ONNX_DATA):
        assert digest(sound.root / name) == digest(sound.unrepaired.with_name(name)), name


def refused(tmp_path: Path, out: Path, **options: object) -> ExportOptions:
    """Options whose checkpoint does not even exist: what is raised shows what is looked at first."""
    return ExportOptions(tmp_path / "missing.pkl", out, engine="onnx", **options)


def test_something_at_out_is_refused_before_any_work(tmp_path):
    out, events = tmp_path / "out", []
    out.mkdir()
    (out / "manifest.json").write_text("{}")
    with pytest.raises(OutputExistsError, match="exists") as caught:
        export_bundle(refused(tmp_path, out), events.append)
    assert "--force" in caught.value.hint
    assert events == []
    with pytest.raises(CheckpointError, match=r"missing\.pkl is not a file"):
        export_bundle(refused(tmp_path, out, force=True))
    assert (out / "manifest.json").read_text() == "{}"


@pytest.mark.parametrize("force", [True, False])
@pytest.mark.parametrize("kind", ["folder", "file"])
def test_what_is_no_bundle_is_never_replaced(tmp_path, force, kind):
    out = tmp_path / "out"
    thesis = out / "thesis.tex" if kind == "folder" else out
    thesis.parent.mkdir(exist_ok=True)
    thesis.write_text("years of work")
    with pytest.raises(OutputExistsError, match="is not a bundle"):
        export_bundle(refused(tmp_path, out, force=force))
    assert thesis.read_text() == "years of work"


def test_an_empty_folder_is_no_obstacle_and_stays_when_the_export_fails(tmp_path):
    (tmp_path / "out").mkdir()
    with pytest.raises(CheckpointError):
        export_bundle(refused(tmp_path, tmp_path / "out"))
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_impossible_options_are_refused_before_anything_is_read(tmp_path):
    with pytest.raises(UsageError, match="--batch 0"):
        export_bundle(refused(tmp_path, tmp_path / "out", batch=0))


def test_a_tensorrt_plan_is_not_promised(tmp_path):
    options = replace(refused(tmp_path, tmp_path / "out"), engine="tensorrt")
    with pytest.raises(MissingComponentError) as caught:
        export_bundle(options)
    assert "--engine onnx" in caught.value.hint


WITHOUT_PEFT = """
import sys
from pathlib import Path

class Hidden:
    def __init__(self, finder):
        self.finder = finder
    def find_spec(self, name, path=None, target=None):
        return None if name.partition(".")[0] == "peft" else self.finder.find_spec(name, path, target)

sys.meta_path = [Hidden(finder) if hasattr(finder, "find_spec") else finder for finder in sys.meta_path]
from edgeturbo.engines.errors import MissingComponentError
from edgeturbo.export.recipe import ExportOptions
from edgeturbo.export.session import export_bundle
try:
    export_bundle(ExportOptions(Path("missing.pkl"), Path("nowhere"), engine="onnx"))
except MissingComponentError as error:
    print(error)
    raise SystemExit(error.exit_code)
"""


def test_a_missing_package_is_named_with_what_installs_it():
    done = subprocess.run([sys.executable, "-c", WITHOUT_PEFT], capture_output=True, text=True, check=False)
    assert done.returncode == 4, done.stderr
    assert "packages that are not installed: peft" in done.stdout
    assert 'pip install "edgeturbo[export,cpu]"' in done.stdout


@pytest.mark.parametrize("count", [1, 5])
def test_samples_are_always_the_same_and_as_many_as_asked_for(count):
    shape = GraphShape(64, 32, 1, noise=True, posterior_noise=True)
    first, again = samples(shape, "raw", count), samples(shape, "raw", count)
    assert len(first) == count
    for one, other in zip(first, again, strict=True):
        assert isinstance(one, Sample)
        assert np.array_equal(one.frame, other.frame)
        assert one.frame.shape == (32, 64, 3)
        assert one.noises.keys() == {"noise", "posterior_noise"}
    assert len({sample.frame.tobytes() for sample in first}) == count
    assert not np.array_equal(first[0].noises["noise"], first[0].noises["posterior_noise"])


def test_an_exported_graph_has_static_shapes_throughout(exported):
    model = ir.load(exported.root / ONNX)
    for node in model.graph:
        for output in node.outputs:
            assert output.shape is not None, node.name
            assert all(isinstance(size, int) for size in output.shape), node.name


def test_the_oracle_shows_what_the_bundle_is_held_to(exported, tiny):
    from edgeturbo.export.oracle import pytorch_engine

    frame = np.asarray(Image.open(exported.root / "goldens" / "0_frame.png"))[None]
    with (
        pytorch_engine(exported.root, tiny.cyclegan(), str(tiny.base)) as oracle,
        OnnxRuntimeEngine(exported.root / ONNX) as engine,
    ):
        difference = np.abs(oracle.run({"frame": frame})["image"].astype(int) - engine.run({"frame": frame})["image"])
    assert difference.max() <= 1
    with pytest.raises(UsageError, match="is not the checkpoint that this bundle was made from"):
        pytorch_engine(exported.root, tiny.cyclegan(rank_unet=16), str(tiny.base))
