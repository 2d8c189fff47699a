"""What this machine is: its NVIDIA GPU, whether it is a Jetson, its memory. Nothing here raises or needs a package.

What a system does not say is None; nothing is guessed. The functions that read files take the system's ``root``.
"""

from __future__ import annotations

import ctypes
import os
import platform
import re
from dataclasses import dataclass
from pathlib import Path

_ROOT = Path("/")

# CUdevice_attribute (https://docs.nvidia.com/cuda/cuda-driver-api/group__CUDA__TYPES.html)
_COMPUTE_CAPABILITY_MAJOR, _COMPUTE_CAPABILITY_MINOR = 75, 76
_NAME_BYTES = 256

# JetPack by its L4T release, major and minor (https://developer.nvidia.com/embedded/jetpack-archive); 36.4 is both
# 6.1 (36.4.0) and 6.2. A release that is not here is told by its major alone.
_JETPACKS = {(36, 2): "6.0", (36, 3): "6.0", (36, 4): "6.2", (38, 2): "7.0", (38, 4): "7.1", (39, 2): "7.2"}
_JETPACK_MAJORS = {32: "4", 34: "5", 35: "5", 36: "6", 38: "7", 39: "7"}


@dataclass(frozen=True)
class Gpu:
    """CUDA's first GPU. ``sm`` as in ``sm_87``; ``memory_bytes`` is all of it, on a Jetson shared with the CPU.

    ``driver``: the kernel module's version (``540.4.0``), or else the newest CUDA it runs (``CUDA 12.6``). The boards
    of the Orin family were seen to call their GPU ``Orin`` alike, however many cores it has.
    """

    name: str
    sm: str
    driver: str
    memory_bytes: int


@dataclass(frozen=True)
class Jetson:
    """``model`` as the board says it; ``l4t`` as in ``36.4.3`` and ``jetpack`` as in ``6.2`` or, less exactly, ``6``.

    In a container the release file may be absent: then ``l4t`` and ``jetpack`` are None.
    """

    model: str
    l4t: str | None
    jetpack: str | None
    memory_bytes: int | None


@dataclass(frozen=True)
class HostMemory:
    """In bytes. ``available`` is what can be had without swapping (the kernel's MemAvailable)."""

    total: int
    available: int
    swap_free: int

    def __str__(self) -> str:
        return f"this machine has {self.total:,} bytes, of which {self.available:,} are free now"


def gpu(root: Path = _ROOT) -> Gpu | None:
    """CUDA's first GPU, as the driver itself describes it; None without a driver or GPU. Cheap: makes no context."""
    try:
        driver = ctypes.CDLL("nvcuda.dll" if os.name == "nt" else "libcuda.so.1")
        return _first_gpu(driver, root)
    except (OSError, AttributeError):  # no such library, or one that lacks a function
        return None


def jetson(root: Path = _ROOT) -> Jetson | None:
    """The Jetson that this machine is, or None when it is none."""
    model = _text(root / "proc/device-tree/model").rstrip("\0").strip()
    release = re.match(r"# R(\d+) \(release\), REVISION: ([\d.]+)", _text(root / "etc/nv_tegra_release"))
    if "jetson" not in model.lower() and release is None:
        return None
    l4t = f"{release[1]}.{release[2]}" if release else None
    here = memory(root)
    return Jetson(model or "a Jetson", l4t, _jetpack(l4t), here.total if here else None)


def memory(root: Path = _ROOT) -> HostMemory | None:
    """The machine's memory; None where nobody says (not Linux). A container's own limit is not looked at."""
    lines = _text(root / "proc/meminfo").splitlines()
    sizes = {line.split(":")[0]: int(line.split()[1]) * 1024 for line in lines}
    if not {"MemTotal", "MemAvailable"} <= set(sizes):
        return None
    return HostMemory(sizes["MemTotal"], sizes["MemAvailable"], sizes.get("SwapFree", 0))


def cpu(root: Path = _ROOT) -> str:
    """The processor's name as the system has it, or else its architecture."""
    named = re.search(r"^model name\s*:\s*(.+)$", _text(root / "proc/cpuinfo"), re.MULTILINE)
    return named[1].strip() if named else platform.machine()


def _first_gpu(driver: ctypes.CDLL, root: Path) -> Gpu | None:
    device, name = ctypes.c_int(), ctypes.create_string_buffer(_NAME_BYTES)
    major, minor, total = ctypes.c_int(), ctypes.c_int(), ctypes.c_size_t()
    calls = (
        (driver.cuInit, 0),
        (driver.cuDeviceGet, ctypes.byref(device), 0),
        (driver.cuDeviceGetName, name, _NAME_BYTES, device),
        (driver.cuDeviceGetAttribute, ctypes.byref(major), _COMPUTE_CAPABILITY_MAJOR, device),
        (driver.cuDeviceGetAttribute, ctypes.byref(minor), _COMPUTE_CAPABILITY_MINOR, device),
        (driver.cuDeviceTotalMem_v2, ctypes.byref(total), device),
    )
    if any(function(*arguments) != 0 for function, *arguments in calls):
        return None
    sm = f"sm_{major.value}{minor.value}"
    return Gpu(name.value.decode("utf-8", "replace"), sm, _driver_version(driver, root), total.value)


def _driver_version(driver: ctypes.CDLL, root: Path) -> str:
    module = _text(root / "sys/module/nvidia/version").strip()
    if module:
        return module
    named = re.search(r"\b\d+\.\d+(\.\d+)?\b", _text(root / "proc/driver/nvidia/version"))
    if named:
        return named[0]
    cuda = ctypes.c_int()
    driver.cuDriverGetVersion(ctypes.byref(cuda))  # 1000 * major + 10 * minor
    return f"CUDA {cuda.value // 1000}.{cuda.value % 1000 // 10}"


def _jetpack(l4t: str | None) -> str | None:
    if l4t is None:
        return None
    major, minor, *patch = (int(part) for part in f"{l4t}.0".split(".")[:3])
    if (major, minor) == (36, 4) and patch == [0]:
        return "6.1"
    return _JETPACKS.get((major, minor)) or _JETPACK_MAJORS.get(major)


def _text(path: Path) -> str:
    """The file's text, or nothing when it cannot be read."""
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
