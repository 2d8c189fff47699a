"""Temperature, power and throttling, where the system lets anybody read them. Nothing is ever set.

Layouts read: the kernel's ``/sys/class/thermal`` and ``/sys/class/hwmon``; a Jetson's INA3221 rails under hwmon, with
their labels (``VDD_IN``, ``POM_5V_IN``; jetson_stats, ``jtop/core/power.py``, lists them by board); nvpmodel's status
file. On a PC with NVIDIA's driver, ``nvidia-smi`` is asked, at most once in a while.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

_ROOT = Path("/")
# The rail that feeds the whole module, by its label; else all rails that nothing else contains are added up.
_WHOLE = ("VDD_IN", "POM_5V_IN", "POM_5V0_IN", "VIN_SYS_5V0", "SYS_VIN_5V")
_SMI_SECONDS = 5.0
_SMI = ("temperature.gpu", "power.draw", "memory.used", "clocks_event_reasons.active")


@dataclass(frozen=True)
class Reading:
    """None for what is not readable here. Degrees Celsius, watts, bytes; ``throttled`` for heat or power, now."""

    temperature_c: float | None = None
    power_w: float | None = None
    gpu_memory_bytes: int | None = None
    throttled: bool | None = None
    power_mode: str | None = None


class Sensors:
    """``read`` costs a few small files, and on a PC a child process every five seconds."""

    def __init__(self, root: Path = _ROOT) -> None:
        self._root = root
        self._smi = shutil.which("nvidia-smi") if root == _ROOT else None
        self._asked = -_SMI_SECONDS
        self._answer = Reading()

    def read(self) -> Reading:
        power = jetson_power_w(self._root)
        if power is None and self._smi is not None:
            return self._from_smi(self._smi)
        return Reading(
            temperature_c=hottest_c(self._root),
            power_w=power,
            throttled=is_throttled(self._root),
            power_mode=power_mode(self._root),
        )

    def _from_smi(self, tool: str) -> Reading:
        if time.monotonic() - self._asked >= _SMI_SECONDS:
            self._asked = time.monotonic()
            query = [tool, f"--query-gpu={','.join(_SMI)}", "--format=csv,noheader,nounits", "--id=0"]
            try:
                done = subprocess.run(query, capture_output=True, text=True, timeout=2, check=False)  # noqa: S603
            except (OSError, subprocess.TimeoutExpired):
                return self._answer
            self._answer = parse_smi(done.stdout)
        return self._answer


def parse_smi(line: str) -> Reading:
    """A line of ``nvidia-smi --query-gpu``'s CSV; what it calls ``[N/A]`` is None."""
    cells = [cell.strip() for cell in line.strip().split(",")]
    if len(cells) != len(_SMI):
        return Reading()
    temperature, power, memory = (float(cell) if re.fullmatch(r"[\d.]+", cell) else None for cell in cells[:3])
    reasons = int(cells[3], 16) if cells[3].startswith("0x") else None
    return Reading(
        temperature_c=temperature,
        power_w=power,
        gpu_memory_bytes=None if memory is None else int(memory) * (1 << 20),
        throttled=None if reasons is None else bool(reasons & _SLOWDOWNS),
    )


# nvml.h, nvmlClocksEventReason…: SwPowerCap 0x4, HwSlowdown 0x8, SwThermalSlowdown 0x20, HwThermalSlowdown 0x40,
# HwPowerBrakeSlowdown 0x80.
_SLOWDOWNS = 0x4 | 0x8 | 0x20 | 0x40 | 0x80


def hottest_c(root: Path = _ROOT) -> float | None:
    """The hottest thermal zone in degrees Celsius; zones that are off report errors or nonsense and are left out."""
    readings = (_number(zone / "temp") for zone in sorted((root / "sys/class/thermal").glob("thermal_zone*")))
    degrees = [value / 1000 for value in readings if value is not None and 0 < value < 150_000]
    return max(degrees, default=None)


def jetson_power_w(root: Path = _ROOT) -> float | None:
    """Watts into a Jetson's module by its INA3221 sensors (millivolts times milliamperes), or None without any."""
    rails: dict[str, float] = {}
    for monitor in sorted((root / "sys/class/hwmon").glob("hwmon*")):
        if not _text(monitor / "name").startswith("ina3221"):
            continue
        for label in sorted(monitor.glob("in*_label")):
            number = label.name[2:].partition("_")[0]
            volts, amperes = _number(monitor / f"in{number}_input"), _number(monitor / f"curr{number}_input")
            if volts is not None and amperes is not None:
                rails[_text(label)] = volts * amperes / 1e6
    whole = next((rails[name] for name in _WHOLE if name in rails), None)
    if whole is not None:
        return round(whole, 3)
    # "sum of shunt voltages" is the chip's own total and no rail.
    own = [watts for name, watts in rails.items() if not name.lower().startswith(("sum", "nc"))]
    return round(sum(own), 3) if own else None


def is_throttled(root: Path = _ROOT) -> bool | None:
    """Whether a cooling device that takes clocks away is at work; None where there is none."""
    states = []
    for device in sorted((root / "sys/class/thermal").glob("cooling_device*")):
        if re.search(r"throttl|devfreq|cpufreq|hot-surface", _text(device / "type"), re.IGNORECASE):
            state = _number(device / "cur_state")
            if state is not None:
                states.append(state > 0)
    return any(states) if states else None


def power_mode(root: Path = _ROOT) -> str | None:
    """A Jetson's nvpmodel mode, such as ``0 (MAXN)``: its number from the status file, its name from the table."""
    status = re.search(r"(\d+)", _text(root / "var/lib/nvpmodel/status").partition("pmode:")[2])
    if status is None:
        return None
    number = int(status[1])
    names = dict(re.findall(r"<\s*POWER_MODEL\s+ID=(\d+)\s+NAME=(\S+)\s*>", _text(root / "etc/nvpmodel.conf")))
    name = names.get(str(number))
    return f"{number} ({name})" if name else str(number)


def _number(path: Path) -> float | None:
    try:
        return float(path.read_text(encoding="ascii"))
    except (OSError, ValueError):
        return None


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return ""
