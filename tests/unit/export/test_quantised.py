"""Eight bits as an export makes them: what is refused, and what a bundle of them says and does."""

from __future__ import annotations

from pathlib import Path

import pytest
from edgeturbo.engines.bundle import Bundle
from edgeturbo.engines.costs import COSTS, read_costs
from edgeturbo.engines.errors import UsageError
from edgeturbo.engines.parity import psnr
from edgeturbo.engines.select import choose, open_engine
from edgeturbo.export.demo import demo_base, demo_checkpoint
from edgeturbo.export.quantised import Target
from edgeturbo.export.recipe import ExportOptions, refuse_impossible
from edgeturbo.export.session import export_bundle
from edgeturbo.runtime.goldens import read_goldens

ANY = Target("a device", lambda model: float(len(model.graph)))


def options(folder: Path, precision: str, **more: object) -> ExportOptions:
    return ExportOptions(
        demo_checkpoint(), folder / "bundle", str(demo_base()), direction="a2b", width=64, height=64,
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
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    report = export_bundle(options(tmp_path_factory.mktemp("eight"), "fp8"))
    assert any("--calibrate DIR" in warning for warning in report.warnings)
    assert "quantise" in report.seconds
    return report.bundle


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


def test_the_engine_on_the_cpu_opens_fp8_and_repeats_the_goldens(bundle):
    """With its own kernels ONNX Runtime makes nodes of FP8 that it cannot load."""
    ((frame, image), *_) = read_goldens(bundle).pairs
    with open_engine(choose(bundle.root, "onnxruntime")) as engine:
        got = engine.run({"frame": frame[None]})["image"][0]
    assert psnr(got, image) > 40  # in another order, one step of E4M3 tips here and there
