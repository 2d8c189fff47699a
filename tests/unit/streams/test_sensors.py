"""Sysfs layouts as boards have them, rebuilt in a folder."""

from __future__ import annotations

from pathlib import Path

import pytest
from edgeturbo.runtime.sensors import (
    Reading,
    Sensors,
    hottest_c,
    is_throttled,
    jetson_power_w,
    parse_smi,
    power_mode,
)

# An Orin Nano, JetPack 6: /sys/class/hwmon/hwmon1 is the INA3221 with three rails and a sum that is no rail.
ORIN_NANO = {
    "sys/class/hwmon/hwmon0/name": "tmp451",
    "sys/class/hwmon/hwmon1/name": "ina3221",
    "sys/class/hwmon/hwmon1/in1_label": "VDD_IN",
    "sys/class/hwmon/hwmon1/in1_input": "5016",
    "sys/class/hwmon/hwmon1/curr1_input": "1200",
    "sys/class/hwmon/hwmon1/in2_label": "VDD_CPU_GPU_CV",
    "sys/class/hwmon/hwmon1/in2_input": "5008",
    "sys/class/hwmon/hwmon1/curr2_input": "400",
    "sys/class/hwmon/hwmon1/in3_label": "VDD_SOC",
    "sys/class/hwmon/hwmon1/in3_input": "5008",
    "sys/class/hwmon/hwmon1/curr3_input": "320",
    "sys/class/hwmon/hwmon1/in7_label": "sum of shunt voltages",
    "sys/class/hwmon/hwmon1/in7_input": "48",
    "sys/class/thermal/thermal_zone0/temp": "47250",
    "sys/class/thermal/thermal_zone1/temp": "51687",
    "sys/class/thermal/thermal_zone2/temp": "-256000",
    "sys/class/thermal/cooling_device0/type": "pwm-fan",
    "sys/class/thermal/cooling_device0/cur_state": "3",
    "sys/class/thermal/cooling_device1/type": "devfreq-17000000.gpu",
    "sys/class/thermal/cooling_device1/cur_state": "0",
    "var/lib/nvpmodel/status": "pmode:0002 fmode:fanNull",
    "etc/nvpmodel.conf": "< POWER_MODEL ID=0 NAME=15W >\n< POWER_MODEL ID=2 NAME=MAXN_SUPER >\n",
}
# An AGX Orin has two chips and no rail for the whole: GPU, CPU and the rest are added up.
AGX_ORIN = {
    "sys/class/hwmon/hwmon3/name": "ina3221",
    "sys/class/hwmon/hwmon3/in1_label": "VDD_GPU_SOC",
    "sys/class/hwmon/hwmon3/in1_input": "19000",
    "sys/class/hwmon/hwmon3/curr1_input": "200",
    "sys/class/hwmon/hwmon3/in2_label": "VDD_CPU_CV",
    "sys/class/hwmon/hwmon3/in2_input": "19000",
    "sys/class/hwmon/hwmon3/curr2_input": "100",
    "sys/class/hwmon/hwmon4/name": "ina3221",
    "sys/class/hwmon/hwmon4/in2_label": "VDDQ_VDD2_1V8AO",
    "sys/class/hwmon/hwmon4/in2_input": "5000",
    "sys/class/hwmon/hwmon4/curr2_input": "300",
    "sys/class/hwmon/hwmon4/in3_label": "NC",
    "sys/class/hwmon/hwmon4/in3_input": "5000",
    "sys/class/hwmon/hwmon4/curr3_input": "900",
}


@pytest.fixture
def board(tmp_path):
    def make(files: dict[str, str]) -> Path:
        for name, text in files.items():
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text + "\n")
        return tmp_path

    return make


def test_an_orin_nano_tells_the_power_into_the_module(board):
    root = board(ORIN_NANO)
    assert jetson_power_w(root) == pytest.approx(5.016 * 1.2, abs=1e-3)
    assert hottest_c(root) == 51.687
    assert is_throttled(root) is False
    assert power_mode(root) == "2 (MAXN_SUPER)"


def test_rails_are_added_up_where_there_is_no_rail_for_all(board):
    assert jetson_power_w(board(AGX_ORIN)) == pytest.approx(3.8 + 1.9 + 1.5)


def test_throttling_is_a_cooling_device_at_work_that_is_no_fan(board):
    root = board({**ORIN_NANO, "sys/class/thermal/cooling_device1/cur_state": "2"})
    assert is_throttled(root) is True


def test_what_cannot_be_read_is_none(tmp_path):
    assert Sensors(tmp_path).read() == Reading()


def test_all_of_it_at_once(board):
    reading = Sensors(board(ORIN_NANO)).read()
    assert (reading.temperature_c, reading.power_mode, reading.gpu_memory_bytes) == (51.687, "2 (MAXN_SUPER)", None)


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("45, 71.52, 1893, 0x0000000000000000\n", Reading(45.0, 71.52, 1893 << 20, False)),
        ("83, 350.11, 23893, 0x0000000000000020", Reading(83.0, 350.11, 23893 << 20, True)),
        ("60, [N/A], [Not Supported], 0x0000000000000001", Reading(60.0, None, None, False)),
        ("No devices were found", Reading()),
        ("", Reading()),
    ],
)
def test_what_nvidia_smi_says(line, expected):
    assert parse_smi(line) == expected
