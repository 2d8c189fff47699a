from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from edgeturbo.engines import device
from edgeturbo.engines.device import HostMemory
from unit.fake_driver import compile_driver

ASK = """
from pathlib import Path
from edgeturbo.engines.device import gpu
found = gpu(Path({root!r}))
print(found and "|".join([found.name, found.sm, found.driver, str(found.memory_bytes)]))
"""

MEMINFO = (
    "MemTotal:  7802384 kB\nMemFree:  100 kB\nMemAvailable:  6821000 kB\nSwapFree: 3901184 kB\nHugePages_Total: 0\n"
)


MODEL, RELEASE = "proc/device-tree/model", "etc/nv_tegra_release"


def files(root: Path, texts: dict[str, str]) -> Path:
    for name, text in texts.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


def gpu_with(folder: Path, root: Path) -> str:
    environment = {**os.environ, "LD_LIBRARY_PATH": str(folder)}
    command = [sys.executable, "-c", ASK.format(root=str(root))]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout.strip()


def test_a_gpu_as_its_driver_describes_it(tmp_path: Path) -> None:
    driver = compile_driver(tmp_path / "driver", "NVIDIA GeForce RTX 5090", "120", 34_190_917_632)
    named = "NVIDIA GeForce RTX 5090|sm_120"
    assert gpu_with(driver, tmp_path) == f"{named}|CUDA 12.6|34190917632"
    line = "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  570.86.10  Release Build  (user@host)\n"
    files(tmp_path, {"proc/driver/nvidia/version": line})
    assert gpu_with(driver, tmp_path) == f"{named}|570.86.10|34190917632"
    files(tmp_path, {"sys/module/nvidia/version": "580.95.05\n"})
    assert gpu_with(driver, tmp_path) == f"{named}|580.95.05|34190917632"


def test_no_gpu_is_none(tmp_path: Path) -> None:
    assert gpu_with(compile_driver(tmp_path / "no device", init=100), tmp_path) == "None"
    broken = tmp_path / "broken"
    broken.mkdir()
    (broken / "libcuda.so.1").write_bytes(b"no library")
    assert gpu_with(broken, tmp_path) == "None"


def test_a_jetson(tmp_path: Path) -> None:
    release = "# R36 (release), REVISION: 4.3, GCID: 38968081, BOARD: generic, EABI: aarch64, DATE: Wed Jan  8\n"
    model = "NVIDIA Jetson Orin Nano Engineering Reference Developer Kit Super"
    root = files(tmp_path, {MODEL: f"{model}\0", RELEASE: release, "proc/meminfo": MEMINFO})
    found = device.jetson(root)
    assert found is not None
    assert found.model == model
    assert (found.l4t, found.jetpack) == ("36.4.3", "6.2")
    assert found.memory_bytes == 7802384 * 1024
    (root / RELEASE).unlink()
    in_container = device.jetson(root)
    assert in_container is not None
    assert (in_container.l4t, in_container.jetpack) == (None, None)


@pytest.mark.parametrize(
    ("release", "l4t", "jetpack"),
    [
        ("# R36 (release), REVISION: 3.0, GCID", "36.3.0", "6.0"),
        ("# R36 (release), REVISION: 4.0, GCID", "36.4.0", "6.1"),
        ("# R36 (release), REVISION: 4.4, GCID", "36.4.4", "6.2"),
        ("# R38 (release), REVISION: 4.0, GCID", "38.4.0", "7.1"),
        ("# R39 (release), REVISION: 2.0, GCID", "39.2.0", "7.2"),
        ("# R39 (release), REVISION: 5.1, GCID", "39.5.1", "7"),
        ("# R41 (release), REVISION: 1.0, GCID", "41.1.0", None),
    ],
)
def test_jetpack_by_its_release(tmp_path: Path, release: str, l4t: str, jetpack: str | None) -> None:
    found = device.jetson(files(tmp_path, {RELEASE: release}))
    assert found is not None
    assert (found.l4t, found.jetpack) == (l4t, jetpack)


def test_what_is_no_jetson(tmp_path: Path) -> None:
    assert device.jetson(tmp_path) is None
    assert device.jetson(files(tmp_path, {MODEL: "Raspberry Pi 5 Model B Rev 1.0\0"})) is None


def test_memory(tmp_path: Path) -> None:
    here = device.memory(files(tmp_path, {"proc/meminfo": MEMINFO}))
    assert here == HostMemory(7802384 * 1024, 6821000 * 1024, 3901184 * 1024)
    assert str(here) == "this machine has 7,989,641,216 bytes, of which 6,984,704,000 are free now"
    assert device.memory(tmp_path / "elsewhere") is None


def test_cpu(tmp_path: Path) -> None:
    assert (
        device.cpu(files(tmp_path, {"proc/cpuinfo": "processor\t: 0\nmodel name\t: A CPU @ 2 GHz\n"}))
        == "A CPU @ 2 GHz"
    )
    assert device.cpu(tmp_path / "elsewhere")
