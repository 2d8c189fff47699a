"""Eight bits as an export makes them: what is refused, and what a bundle of them says and does."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest
import torch_graph
from edgeturbo.engines.bundle import ONNX, ONNX_DATA, Bundle
from edgeturbo.engines.costs import COSTS, read_costs
from edgeturbo.engines.errors import UsageError
from edgeturbo.engines.parity import psnr
from edgeturbo.engines.select import choose, open_engine
from edgeturbo.export.demo import demo_base, demo_checkpoint
from edgeturbo.export.probe import probing
from edgeturbo.export.quantise.apply import QuantiseOptions, quantise_file
from edgeturbo.export.quantised import Target
from edgeturbo.export.recipe import ExportOptions, refuse_impossible
from edgeturbo.export.samples import Sample, batches, samples
from edgeturbo.export.trace import UNQUANTISED, GraphShape
from edgeturbo.export.verify import bundle_outputs
from edgeturbo.runtime.goldens import read_goldens
from exports import Exported, export_once
from shared import once

ANY = Target("a device", lambda model: float(len(model.graph)))


def options(out: Path, precision: str, **more: object) -> ExportOptions:
    return ExportOptions(
        demo_checkpoint(), out, str(demo_base()), direction="a2b", width=64, height=64,
        precision=precision, engine="onnx", parity_frames=1, **more,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("precision", "more", "said"),
    [
        ("int8", {"opset": 18}, "scales in FP16"),
        ("mixed:int8", {}, "none was named"),
        ("int8", {"min_psnr": 35.0}, "--min-psnr 35"),
        ("mixed:fp8", {"min_psnr": 0.0, "target": ANY}, "--min-psnr 0"),
        ("fp16", {"method": "mse"}, "--calibration mse"),
        ("int8-weights", {"method": "max"}, "--calibration max"),
        ("int8", {"method": "guess"}, "--calibration guess"),
        ("fp32", {"calibrate": Path()}, "--calibrate"),
    ],
)
def test_what_cannot_be_meant_is_refused_before_any_work(tmp_path, precision, more, said):
    with pytest.raises(UsageError, match=said):
        refuse_impossible(options(tmp_path, precision, **more))


def test_mixtures_and_their_options_pass(tmp_path):
    refuse_impossible(options(tmp_path, "mixed:int8", min_psnr=35.0, target=ANY, method="mse", calibrate=tmp_path))


@pytest.fixture(scope="module")
def eight(tmp_path_factory: pytest.TempPathFactory) -> Exported:
    """With its graph as it was before, in FP16."""
    return export_once(tmp_path_factory, "eight", lambda out: options(out, "fp8"), keep=True)


@pytest.fixture(scope="module")
def bundle(eight: Exported) -> Bundle:
    return eight.report.bundle


def test_the_report_says_what_was_calibrated_on(eight):
    assert any("--calibrate DIR" in warning for warning in eight.report.warnings)
    assert "quantise" in eight.report.seconds


def test_the_manifest_says_what_computes_on_eight_bits(bundle):
    found = bundle.manifest.quantisation
    assert found.products > 50
    assert found.conv_share > 0.5
    assert (found.method, found.frames, found.source) == ("percentile", 2, "2 bundled photographs")
    assert "vae_decoder/up_blocks.0" in found.blocks
    assert bundle.manifest.parity.psnr_db > 35
    again = Bundle.open(bundle.root).manifest.quantisation
    assert again == found


def test_its_cost_table_counts_products_on_eight_bits(bundle):
    costs = read_costs(bundle.root / COSTS)
    eight = sum(item.nodes * item.flops.at() for item in costs.work if item.dtype == "float8_e4m3fn")
    assert eight > 0.5 * costs.flops


# INT8, on ONNX Runtime and on PyTorch


@pytest.fixture(scope="module")
def int8(eight: Exported, bundle: Bundle, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same generator as ``--precision int8`` makes it, without a second export."""
    shape = GraphShape(64, 64, 1, noise=False, posterior_noise=False)
    feeds = tuple(batches(samples(shape, "raw", 2), bundle.manifest.inputs))

    def make(folder: Path) -> None:
        for name in (ONNX, ONNX_DATA):
            shutil.copyfile(eight.unrepaired.with_name(name), folder / name)
        done = quantise_file(folder / ONNX, QuantiseOptions("int8"), lambda: feeds)
        assert done.products == bundle.manifest.quantisation.products

    return once(tmp_path_factory, "int8", make) / ONNX


@pytest.fixture(scope="module")
def feed(bundle: Bundle) -> dict[str, np.ndarray]:
    return {"frame": read_goldens(bundle).pairs[0][0][None]}


def decibels(got: np.ndarray, right: np.ndarray) -> float:
    """Of signal to difference: infinite where nothing differs."""
    difference = np.mean((got.astype(np.float64) - right) ** 2)
    return float(10 * np.log10(np.mean(right.astype(np.float64) ** 2) / difference)) if difference else np.inf


def test_int8_on_onnx_runtime_agrees_with_its_own_fake_quantised_pytorch(int8, feed):
    """As the graph is written: with what ONNX Runtime rewrites it to, it agrees less, and so it does with itself."""
    theirs = bundle_outputs(int8, (Sample(feed["frame"][0], {}),)).unquantised[0]
    ours, broken = torch_graph.run(int8, feed, UNQUANTISED)
    assert broken == []
    assert psnr(ours[0].numpy(), theirs, peak=2.0) > 50


def test_no_node_of_int8_departs_from_pytorch_on_the_same_inputs(int8, feed):
    """End to end, a number that one of them rounds up and the other down makes many others; here it stays where it is.

    What is left is FP16's own rounding, 62 dB and more; a number of eight bits that differed would be a wrong one.
    """
    model = ir.load(int8)
    made = [value for node in model.graph for value in node.outputs if value.name != "image"]
    for value in made:
        if not value.is_graph_output():
            model.graph.outputs.append(value)
    with probing(model, int8) as engine:
        theirs = engine.run(feed)
    reached = {
        name: decibels(ours.numpy(), theirs[name])
        for name, ours in torch_graph.walk(ir.load(int8), feed, instead=theirs) if name in theirs
    }  # fmt: skip
    assert len(reached) == len(made) + 1
    assert {name: ratio for name, ratio in reached.items() if not ratio > 50} == {}
    eight = [str(value.name) for value in made if value.dtype == ir.DataType.INT8]
    assert len(eight) > 200
    assert {name for name in eight if reached[name] < np.inf} == set()


def test_the_engine_on_the_cpu_opens_fp8_and_repeats_the_goldens(bundle):
    """With its own kernels ONNX Runtime makes nodes of FP8 that it cannot load."""
    ((frame, image), *_) = read_goldens(bundle).pairs
    with open_engine(choose(bundle.root, "onnxruntime")) as engine:
        got = engine.run({"frame": frame[None]})["image"][0]
    assert psnr(got, image) > 40  # in another order, one step of E4M3 tips here and there
