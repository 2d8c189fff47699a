"""The roofline: its formula, what it says of published figures, how it is fitted, and the size it proposes."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import onnx
import pytest
from edgeturbo.benchmarks import devices
from edgeturbo.benchmarks.devices import DEVICES, Device
from edgeturbo.benchmarks.passes import GRAPH
from edgeturbo.benchmarks.predict import (
    CPU,
    GPU,
    LOUD,
    Band,
    Efficiencies,
    auto_size,
    predict,
    rows,
    sd_turbo_costs,
)
from edgeturbo.benchmarks.predict_cpu import RESULTS, record
from edgeturbo.benchmarks.predict_fit import Measurement, fit, fitted_band, leave_one_out
from edgeturbo.engines.costs import SCHEMA, Costs, Growth, Work, by_stage
from edgeturbo.engines.errors import UsageError

# 1 TFLOPS in FP16 (2 with FP16 sums), half of that in FP32, 100 GB/s, 10 GB.
DEVICE = Device("box", "A box", 1.0, 2.0, 0.5, 4.0, 100.0, 10.0, True, "-", "made up for tests")
IDEAL = Efficiencies(1.0, 1.0)
EXACT = Band(IDEAL, IDEAL, IDEAL, "made up")


def work(stage: str, kind: str, dtype: str, flops: Growth, read: Growth, **more: int) -> Work:
    return Work(stage, kind, dtype, more.get("nodes", 1), f"{stage}/n", flops, read, Growth(), more.get("weights", 0))


BUSY = work("vae_encoder", "conv", "float16", Growth(0, 4 * 10**9), Growth(0, 10**6), nodes=2)  # 4 ms each
THIRSTY = work("unet", "conv", "float16", Growth(0, 10**8), Growth(0, 10**8), weights=2 * 10**8)  # 3 ms for bytes
SQUARE = work("unet", "attention", "float32", Growth(0, 0, 10**9), Growth(0, 0, 4 * 10**8))  # 4 ms, or 2 for flops
COSTS = Costs(SCHEMA, 512, 256, 1, 2 * 10**8, (Growth(0, 10**9, 10**8),), (BUSY, THIRSTY, SQUARE))


def test_each_node_waits_for_the_slower_of_its_two_needs():
    found = predict(COSTS, DEVICE, EXACT)
    assert (found.ms, found.ms_low, found.ms_high) == pytest.approx((15.0, 15.0, 15.0))
    assert found.fps == pytest.approx(1000 / 15)
    assert [(s.stage, s.bound_by) for s in found.per_stage] == [("vae_encoder", "compute"), ("unet", "memory")]
    assert [s.ms for s in found.per_stage] == pytest.approx([8.0, 7.0])
    assert found.bound_by == "compute"
    assert found.memory_bytes == 1_300_000_000
    assert predict(replace(COSTS, batch=4), DEVICE, EXACT).fps == pytest.approx(4000 / 15)


@pytest.mark.parametrize(
    ("reached", "ms"),
    [
        (Efficiencies(0.5, 1.0), 16 + 3 + 4),
        (Efficiencies(1.0, 0.5), 8 + 6 + 8),
        (Efficiencies(1.0, 1.0, traffic=0.25), 8 + 3 + 2),
        (Efficiencies(1.0, 1.0, fast=True), 4 + 3 + 4),
        (Efficiencies(1.0, 1.0, start_us=500.0), 15 + 4 * 0.5),
        (Efficiencies(1.0, 1.0, start_us=500.0, traffic=0.5), 8 + 3 + 2 + 3.5 * 0.5),
    ],
)
def test_each_efficiency_does_what_it_says(reached, ms):
    assert predict(COSTS, DEVICE, Band(reached, IDEAL, IDEAL, "x")).ms_high == pytest.approx(ms)
    assert predict(COSTS, DEVICE, Band(IDEAL, reached, IDEAL, "x")).ms == pytest.approx(ms)
    assert predict(COSTS, DEVICE, Band(IDEAL, IDEAL, reached, "x")).ms_low == pytest.approx(ms)


def test_a_view_costs_no_start():
    view = work("unet", "movement", "float16", Growth(), Growth())
    costs = replace(COSTS, work=(*COSTS.work, view))
    reached = Band(IDEAL, Efficiencies(1.0, 1.0, start_us=500.0), IDEAL, "x")
    assert predict(costs, DEVICE, reached).ms == predict(COSTS, DEVICE, reached).ms


def test_at_another_size_attention_grows_as_the_square_and_weights_stay():
    found = predict(COSTS, DEVICE, EXACT, (1024, 512))
    assert found.ms == pytest.approx(2 * 16 + (4 + 2) + 16 * 4)
    assert (found.width, found.height) == (1024, 512)
    assert found.memory_bytes == 2 * 10**8 + 4 * 10**9 + 16 * 10**8


def test_memory_is_compared_with_what_a_program_may_have():
    need = COSTS.weights + 1_100_000_000
    assert predict(COSTS, replace(DEVICE, memory=need / 1e9 / 0.81), EXACT).fits_memory
    assert not predict(COSTS, replace(DEVICE, memory=need / 1e9 / 0.83), EXACT).fits_memory


def test_sd_turbo_has_the_known_operations():
    """As benchmarks/gpu_check/flops.py counts them, less 0.004 TFLOP of the UNet that are folded into constants."""
    tera = {line.name: round(line.flops / 1e12, 3) for line in by_stage(sd_turbo_costs())}
    assert (tera["vae_encoder"], tera["unet"], tera["vae_decoder"], tera["total"]) == (1.117, 0.800, 2.547, 4.464)


@pytest.mark.parametrize(
    ("key", "published_ms"), [("a100-80", 38.2), ("rtx-4090", 1000 / 20.9), ("rtx-4090", 1000 / 27.4)]
)
def test_published_figures_lie_inside_the_default_range(key, published_ms):
    """Text to image: the UNet and the decoder."""
    costs = sd_turbo_costs()
    published = replace(costs, work=tuple(item for item in costs.work if item.stage in ("unet", "x0", "vae_decoder")))
    found = predict(published, DEVICES[key])
    assert found.ms_low < published_ms < found.ms_high
    assert found.ms == pytest.approx(published_ms, rel=0.5)


def test_a_processor_has_efficiencies_of_its_own():
    processor = replace(DEVICE, key=devices.CPU)
    assert predict(COSTS, processor) == predict(COSTS, processor, CPU)
    assert "fitted on another" in predict(COSTS, processor).note
    assert predict(COSTS, DEVICE) == predict(COSTS, DEVICE, GPU)


def test_what_was_never_measured_says_so_in_every_line():
    table = rows([predict(COSTS, DEVICES["agx-orin"]), predict(COSTS, DEVICE, replace(EXACT, measured=True))])
    assert LOUD in table[1][-1]
    assert LOUD not in table[2][-1]
    assert {len(line) for line in table} == {len(table[0])}
    assert "does not fit" in rows([predict(COSTS, replace(DEVICE, memory=1.0))])[1][-2]
    stages = predict(COSTS, DEVICE, EXACT).per_stage
    assert [(one.stage, round(one.ms, 6), one.bound_by) for one in stages] == [
        ("vae_encoder", 8.0, "compute"), ("unet", 7.0, "memory"),
    ]  # fmt: skip


@pytest.mark.parametrize("fps", [5.0, 30.0])
@pytest.mark.parametrize("cautious", [False, True])
def test_the_proposed_size_reaches_the_rate_and_the_next_does_not(fps, cautious):
    costs, device = sd_turbo_costs(), DEVICES["h100"]
    found = auto_size(costs, device, fps, cautious=cautious)
    larger = predict(costs, device, GPU, (found.width + 64, found.height + 64))
    assert found.width == found.height
    assert found.width % 64 == 0
    for prediction, reaches in ((found, True), (larger, False)):
        assert (1000 / (prediction.ms_high if cautious else prediction.ms) >= fps) is reaches


def test_the_proposed_size_keeps_its_shape_and_fits_the_memory():
    found = auto_size(COSTS, DEVICE, 1.0, EXACT)
    assert (found.width, found.height) == (2 * found.height, found.height)
    small = replace(DEVICE, memory=2.0)
    less = auto_size(COSTS, small, 1.0, EXACT)
    assert less.fits_memory
    assert less.width < found.width
    assert not predict(COSTS, small, EXACT, (less.width + 128, less.height + 64)).fits_memory


def test_no_size_is_proposed_where_none_will_do():
    with pytest.raises(UsageError, match="no size from 256x128 up reaches 1e") as caught:
        auto_size(COSTS, DEVICE, 1e6, EXACT)
    assert "fps" in caught.value.got
    with pytest.raises(UsageError, match="above 0"):
        auto_size(COSTS, DEVICE, 0.0, EXACT)
    with pytest.raises(UsageError, match="shaped as"):
        auto_size(replace(COSTS, width=64 * 512, height=64), DEVICE, 1.0, EXACT)


def runs(truth: Efficiencies, sizes: tuple[int, ...] = (128, 256, 384, 512, 1024)) -> list[Measurement]:
    """What a device that follows the formula exactly would take for the real generator; its memory is slow."""
    device = replace(DEVICE, bandwidth=10.0)
    measured = []
    for size in sizes:
        scale = (size / 512) ** 2
        items = tuple(
            replace(
                item,
                flops=Growth(0, round(item.flops.at(scale))),
                read=Growth(0, round(item.read.at(scale))),
                written=Growth(0, round(item.written.at(scale))),
            )
            for item in sd_turbo_costs().work
        )
        costs = replace(sd_turbo_costs(), width=size, height=size, work=items)
        ms = predict(costs, device, Band(truth, truth, truth, "x")).ms
        measured.append(Measurement(costs, device, ms / 1e3))
    return measured


@pytest.mark.parametrize("truth", [Efficiencies(0.4, 0.7, start_us=40.0), Efficiencies(0.9, 0.2, start_us=5.0)])
def test_a_fit_finds_what_made_the_measurements(truth):
    found = fit(runs(truth))
    assert found.compute == pytest.approx(truth.compute, rel=0.15)
    assert found.memory == pytest.approx(truth.memory, rel=0.15)
    assert max(abs(residual.error) for residual in leave_one_out(runs(truth))) < 0.03


def test_leaving_one_out_finds_the_one_that_is_off():
    measured = runs(Efficiencies(0.4, 0.7, start_us=40.0))
    measured[2] = replace(measured[2], seconds=measured[2].seconds * 2)
    residuals = leave_one_out(measured)
    assert residuals[2].error == pytest.approx(-0.5, abs=0.03)
    band = fitted_band(measured)
    assert band.measured
    worst = max(abs(residual.error) for residual in residuals)
    assert f"within {worst:.0%}" in band.source
    found = predict(measured[0].costs, measured[0].device, band)
    assert found.ms_low == pytest.approx(found.ms / (1 + worst), rel=1e-6)
    assert found.ms_high == pytest.approx(found.ms * (1 + worst), rel=1e-6)


def test_too_few_measurements_are_refused():
    measured = runs(IDEAL, (256, 512, 768))
    with pytest.raises(UsageError, match="too few"):
        fit(measured[:2])
    with pytest.raises(UsageError, match="leave one out"):
        leave_one_out(measured)


def test_the_processor_is_measured_and_its_errors_are_written_down(tmp_path: Path, monkeypatch):
    """Graphs that stand in the folder are taken as they are, so one convolution at four sizes is enough."""
    monkeypatch.setattr(devices, "_PRODUCT", 256)
    monkeypatch.setattr(devices, "_COPY_BYTES", 1 << 22)
    (tmp_path / "cyclegan.pkl").touch()
    sizes = (32, 64, 96, 128)
    for size in sizes:
        save_convolution(tmp_path / f"graph-{size}" / GRAPH, size)
    target = record(tmp_path, tmp_path / "results", sizes, runs=2)
    assert target == tmp_path / "results" / RESULTS
    document = json.loads(target.read_text())
    assert [line["width"] for line in document["leave_one_size_out"]] == list(sizes)
    assert document["flops"]["64x64"] == 2 * 4 * 64 * 64 * 27
    assert document["environment"]["cores"] >= 1
    assert 0 < document["efficiencies"]["compute"] <= 1.5
    assert len(document["latencies"]["32x32"]["samples_ms"]) == 2


def save_convolution(path: Path, size: int) -> None:
    make = onnx.helper.make_node
    nodes = [
        make("Cast", ["frame"], ["f"], to=1, name="frame_in/Cast_0"),
        make("Transpose", ["f"], ["t"], perm=[0, 3, 1, 2], name="frame_in/Transpose_0"),
        make("Conv", ["t", "k"], ["c"], pads=[1, 1, 1, 1], name="vae_encoder/Conv_0"),
        make("Cast", ["c"], ["image"], to=2, name="image_out/Cast_0"),
    ]
    graph = onnx.helper.make_graph(
        nodes,
        "generator",
        [onnx.helper.make_tensor_value_info("frame", 2, (1, size, size, 3))],
        [onnx.helper.make_tensor_value_info("image", 2, (1, 4, size, size))],
        [onnx.helper.make_tensor("k", 1, (4, 3, 3, 3), [0.01] * 108)],
    )
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 20)], ir_version=10)
    path.parent.mkdir()
    onnx.save(onnx.shape_inference.infer_shapes(model, strict_mode=True), path)


def test_the_committed_error_is_that_of_the_committed_measurements():
    document = json.loads((Path(devices.__file__).parent / "results" / RESULTS).read_text(encoding="utf-8"))
    worst = max(abs(line["error"]) for line in document["leave_one_size_out"])
    assert f"within {worst:.0%}" in document["note"]
    assert worst < 0.3
