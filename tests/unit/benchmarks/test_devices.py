"""The device table: dense figures that agree with each other, and a way to name and to measure devices."""

from __future__ import annotations

import pytest
from edgeturbo.benchmarks import devices
from edgeturbo.benchmarks.devices import CPU, DEVICES, find, measure_cpu, of_gpu, rows
from edgeturbo.engines.errors import UsageError

WANTED = {
    "jetson-orin-nano", "jetson-orin-nano-super", "orin-nx-16", "agx-orin", "thor", "rtx-3060", "rtx-4070", "rtx-4090",
    "rtx-5090", "l4", "a100-80", "h100", "h200", "dgx-spark", "t4",
}  # fmt: skip

# Headline figures with their sparsity, as the makers print them, and how many times our dense FP16 they must be:
# sparse INT8 of the GPU alone is 4 times dense FP16, sparse FP4 8 times, sparse FP16 twice. Where a card has FP16 sums
# at twice the rate, the headline counts those.
HEADLINES = {
    "jetson-orin-nano": (40, 4), "jetson-orin-nano-super": (67, 4), "orin-nx-16": (60, 4), "agx-orin": (170, 4),
    "thor": (2070, 8), "rtx-4090": (660.6, 2), "rtx-5090": (838, 2), "l4": (242, 2), "a100-80": (624, 2),
    "h100": (1978.9, 2), "h200": (1979, 2), "dgx-spark": (1000, 8),
}  # fmt: skip


def test_every_device_is_there_with_its_source():
    assert set(DEVICES) == WANTED
    for key, device in DEVICES.items():
        assert device.key == key
        assert len(device.source) > 10
        assert device.power


@pytest.mark.parametrize("key", DEVICES)
def test_figures_are_dense_and_agree(key):
    device = DEVICES[key]
    assert device.fp32 <= device.fp16 <= device.fp16_fast <= device.int8
    assert device.fp16_fast in (device.fp16, pytest.approx(2 * device.fp16, rel=0.01))
    assert device.int8 == pytest.approx(2 * device.fp16_fast, rel=0.01)
    if key in HEADLINES:
        headline, times = HEADLINES[key]
        assert device.fp16_fast * times == pytest.approx(headline, rel=0.01)


def test_a_peak_is_that_of_the_type():
    card = DEVICES["rtx-4090"]
    assert card.peak("float16") == 165.2e12
    assert card.peak("float16", fast=True) == 330.3e12
    assert card.peak("float32") == card.peak("int64") == 82.6e12
    assert card.peak("int8") == 660.6e12


@pytest.mark.parametrize(
    ("name", "key"),
    [
        ("NVIDIA GeForce RTX 4090", "rtx-4090"), ("NVIDIA GeForce RTX 4090 Laptop GPU", None),
        ("NVIDIA GeForce RTX 4070 Ti", None), ("NVIDIA L4", "l4"), ("NVIDIA L40S", None), ("Tesla T4", "t4"),
        ("NVIDIA T400", None), ("NVIDIA A100-SXM4-80GB", "a100-80"), ("NVIDIA A100-SXM4-40GB", None),
        ("NVIDIA H100 80GB HBM3", "h100"), ("NVIDIA H100 PCIe", None), ("NVIDIA H200", "h200"), ("Orin", None),
        ("NVIDIA GB10", "dgx-spark"), ("NVIDIA Thor", "thor"),
    ],
)  # fmt: skip
def test_a_driver_names_one_device_or_none(name, key):
    assert of_gpu(name) == (DEVICES[key] if key else None)


def test_devices_are_found_by_name_and_the_processor_is_measured():
    measured = []

    def cpu():
        measured.append(True)
        return DEVICES["t4"]

    assert [device.key for device in find(" agx-orin, thor ")] == ["agx-orin", "thor"]
    assert find("all", cpu=cpu) == tuple(DEVICES.values())
    assert not measured
    assert find(f"l4,{CPU}", cpu=cpu) == (DEVICES["l4"], DEVICES["t4"])
    assert measured == [True]


@pytest.mark.parametrize("words", ["orin", "", ",", "agx-orin,nope"])
def test_an_unknown_device_is_refused_with_the_known_ones(words):
    with pytest.raises(UsageError, match="no figures") as caught:
        find(words)
    assert "rtx-4090" in caught.value.expected


def test_this_machine_has_a_peak_and_a_bandwidth(monkeypatch):
    monkeypatch.setattr(devices, "_PRODUCT", 128)
    monkeypatch.setattr(devices, "_COPY_BYTES", 1 << 20)
    device = measure_cpu()
    assert device.key == CPU
    assert device.fp16 == device.fp32 > 0
    assert device.bandwidth > 0
    assert device.int8 is None
    assert device.peak("int8") == device.peak("float32")


def test_the_table_is_plain_text():
    table = rows()
    assert len(table) == 1 + len(DEVICES)
    assert {len(line) for line in table} == {9}
    assert all(isinstance(cell, str) for line in table for cell in line)
    assert rows((DEVICES["l4"],))[1][0] == "l4"
