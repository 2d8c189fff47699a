"""What devices can do at most, as their makers state it: the ceilings of a roofline. Nothing here was measured by us.

All peaks are dense. NVIDIA's headline figures for Ampere and later count 2:4 structured sparsity, which doubles them
and which these networks do not have; a Jetson's headline TOPS are sparse INT8 (Thor's and the DGX Spark's sparse FP4)
and, on AGX Orin and Orin NX, count the two deep learning accelerators beside the GPU, which no plan of this package
uses. Here they are GPU only, and halved.

GeForce cards run FP16 products with FP32 sums at half the rate of FP16 sums (Ada whitepaper, appendix A). ``fp16``
is the rate with FP32 sums, which every engine may use; ``fp16_fast`` the rate with FP16 sums, where a card has a faster
one. ``unsure`` says which figures were derived (SMs x clock x the architecture's rate for each SM) instead of read in a
datasheet.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from ..engines import device as machine
from ..engines.errors import UsageError

CPU = "cpu"

# Architectures from Ada and Hopper on multiply FP8 (their whitepapers; Thor's and Blackwell's data sheets).
_FP8 = ("rtx-4070", "rtx-4090", "rtx-5090", "l4", "h100", "h200", "thor", "dgx-spark")

# Large enough to fill any core's pipelines and to leave every cache.
_PRODUCT, _COPY_BYTES, _TRIES = 1536, 256 << 20, 5


@dataclass(frozen=True)
class Device:
    """Dense peaks in TFLOPS (``int8`` in TOPS, None where the device has no such unit), ``bandwidth`` in GB/s.

    ``memory`` in GB of 10^9 bytes; ``shared``: it is also the operating system's. ``power`` names the mode of the
    figures and the range that the module can be set to.
    """

    key: str
    name: str
    fp16: float
    fp16_fast: float
    fp32: float
    int8: float | None
    bandwidth: float
    memory: float
    shared: bool
    power: str
    source: str
    unsure: str = ""

    def peak(self, dtype: str, *, fast: bool = False) -> float:
        """Operations a second for products in ``dtype`` (numpy's name); ``fast`` allows FP16 sums."""
        if dtype in ("float16", "bfloat16"):
            return (self.fp16_fast if fast else self.fp16) * 1e12
        if dtype in ("int8", "uint8") and self.int8 is not None:
            return self.int8 * 1e12
        if dtype == "float8_e4m3fn":  # twice FP16's rate with the same sums; elsewhere it is computed in FP16
            return self.fp16 * (2e12 if self.key in _FP8 else 1e12)
        return self.fp32 * 1e12


_ORIN_BRIEF = "NVIDIA Jetson AGX Orin Series Technical Brief v1.2: GPU INT8 sparse / 2, FP16 = INT8 / 2"
_ORIN_NANO = "NVIDIA Jetson Orin Nano Series data sheet DS-11105-001"
_SUPER = "NVIDIA, Jetson Orin Nano Super Developer Kit data sheet (2024-12), 67 sparse INT8 TOPS"
_ADA = "NVIDIA Ada GPU Architecture whitepaper, appendix A"
_ORIN_RATE = "FP16 and INT8 follow from the sparse INT8 figure (a half, a quarter)"

DEVICES = {
    device.key: device
    for device in (
        Device(
            "jetson-orin-nano", "Jetson Orin Nano 8GB", 10.0, 10.0, 1.28, 20.0, 68.0, 8.0, True,
            "15 W (7 to 15 W)", f"{_ORIN_NANO}: 40 sparse INT8 TOPS, 1024 cores at 625 MHz", _ORIN_RATE,
        ),
        Device(
            "jetson-orin-nano-super", "Jetson Orin Nano 8GB, Super mode", 16.7, 16.7, 2.09, 33.5, 102.0, 8.0, True,
            "25 W or MAXN SUPER (7 to 25 W), JetPack 6.2 or later", f"{_SUPER}, 1024 cores at 1020 MHz", _ORIN_RATE,
        ),
        Device(
            "orin-nx-16", "Jetson Orin NX 16GB", 15.0, 15.0, 1.88, 30.0, 102.4, 16.0, True,
            "25 W (10 to 25 W), without Super mode",
            "NVIDIA Jetson Orin NX Series data sheet DS-10712-001: of 100 sparse INT8 TOPS 60 are the GPU's, "
            "1024 cores at 918 MHz", _ORIN_RATE,
        ),
        Device(
            "agx-orin", "Jetson AGX Orin 64GB", 42.5, 42.5, 5.32, 85.0, 204.8, 64.0, True, "MAXN (15 to 60 W)",
            f"{_ORIN_BRIEF}: of 275 sparse INT8 TOPS 170 are the GPU's, 2048 cores at 1.3 GHz", _ORIN_RATE,
        ),
        Device(
            "thor", "Jetson AGX Thor, T5000", 258.0, 258.0, 8.04, 517.0, 273.0, 128.0, True, "MAXN (40 to 130 W)",
            "NVIDIA Jetson Thor Series Modules data sheet DS-11945-001: 2070 sparse FP4 TFLOPS, 2560 cores at 1.57 GHz",
            "FP16 and INT8 derived as 1/8 and 1/4 of sparse FP4; FP32 from cores and clock",
        ),
        Device(
            "rtx-3060", "GeForce RTX 3060 12GB", 25.5, 51.0, 12.7, 102.0, 360.0, 12.0, False, "170 W",
            "NVIDIA Ampere GA102 GPU Architecture whitepaper (rates for each SM), 28 SMs at 1.777 GHz",
            "tensor peaks derived from SMs and clock",
        ),
        Device(
            "rtx-4070", "GeForce RTX 4070 12GB", 58.3, 116.6, 29.1, 233.2, 504.2, 12.0, False, "200 W",
            f"{_ADA} (rates for each SM), 46 SMs at 2.475 GHz", "tensor peaks derived from SMs and clock",
        ),
        Device(
            "rtx-4090", "GeForce RTX 4090", 165.2, 330.3, 82.6, 660.6, 1008.0, 24.0, False, "450 W", f"{_ADA}",
        ),
        Device(
            "rtx-5090", "GeForce RTX 5090", 209.5, 419.0, 104.8, 838.0, 1792.0, 32.0, False, "575 W",
            "NVIDIA RTX Blackwell GPU Architecture whitepaper, appendix A",
        ),
        Device(
            "l4", "L4", 121.0, 121.0, 30.3, 242.0, 300.0, 24.0, False, "72 W",
            "NVIDIA L4 Tensor Core GPU data sheet (with sparsity 242, 485); its boost clock seldom holds at 72 W",
        ),
        Device(
            "t4", "T4", 65.0, 65.0, 8.1, 130.0, 320.0, 16.0, False, "70 W",
            "NVIDIA T4 Tensor Core GPU data sheet; its boost clock seldom holds at 70 W",
            "other pages of NVIDIA state 300 GB/s",
        ),
        Device(
            "a100-80", "A100 80GB SXM", 312.0, 312.0, 19.5, 624.0, 2039.0, 80.0, False, "400 W",
            "NVIDIA A100 Tensor Core GPU data sheet (as PCIe card: 300 W, 1935 GB/s)",
        ),
        Device(
            "h100", "H100 SXM", 989.4, 989.4, 66.9, 1978.9, 3350.0, 80.0, False, "700 W",
            "NVIDIA H100 Tensor Core GPU Architecture whitepaper, table 2",
        ),
        Device(
            "h200", "H200 SXM", 989.4, 989.4, 66.9, 1978.9, 4800.0, 141.0, False, "700 W",
            "NVIDIA H200 Tensor Core GPU data sheet (peaks with sparsity / 2)",
        ),
        Device(
            "dgx-spark", "DGX Spark, GB10", 62.5, 125.0, 31.0, 250.0, 273.0, 128.0, True, "140 W (GB10)",
            "NVIDIA DGX Spark data sheet: 1000 sparse FP4 TFLOPS, 273 GB/s; FP32 as stated at Hot Chips 2025",
            "FP16 and INT8 derived as 1/8 and 1/4 of sparse FP4; that FP32 sums halve FP16, as on GeForce, is assumed",
        ),
    )
}  # fmt: skip

# What NVIDIA's driver calls them.
_DRIVER_NAMES = {
    "thor": r"\bThor$", "rtx-3060": r"RTX 3060$", "rtx-4070": r"RTX 4070$", "rtx-4090": r"RTX 4090$",
    "rtx-5090": r"RTX 5090$", "l4": r"\bL4$", "t4": r"\bT4$", "a100-80": r"A100-SXM\d?-80GB$",
    "h100": r"H100 80GB HBM3$", "h200": r"H200$", "dgx-spark": r"\bGB10$",
}  # fmt: skip


def find(words: str, *, cpu: Callable[[], Device] | None = None) -> tuple[Device, ...]:
    """The devices of a list such as ``agx-orin,rtx-4090``; ``all`` is the whole table.

    ``cpu`` is measured, here and now. Raises UsageError for a name that the table does not know.
    """
    names = [*DEVICES] if words == "all" else [word.strip() for word in words.split(",") if word.strip()]
    unknown = [name for name in names if name != CPU and name not in DEVICES]
    if unknown or not names:
        raise UsageError(
            f"no figures for the device {', '.join(unknown) or '(none named)'}",
            expected=", ".join((*DEVICES, CPU, "all")), hint="--predict agx-orin,rtx-4090",
        )  # fmt: skip
    return tuple((cpu or measure_cpu)() if name == CPU else DEVICES[name] for name in names)


def find_one(word: str) -> Device:
    """The one device that ``word`` names. Raises UsageError for none, for several and for one that nobody knows."""
    found = find(word)
    if len(found) != 1:
        raise UsageError("--device is to name one device", got=word, hint="--device agx-orin")
    return found[0]


def of_gpu(name: str) -> Device | None:
    """The device that a driver calls ``name`` (``NVIDIA GeForce RTX 4090``); None for others, and for variants of them.

    A laptop's chip, a PCIe card or a Ti has other peaks. All boards of the Orin family call their GPU ``Orin``: None.
    """
    return next((DEVICES[key] for key, pattern in _DRIVER_NAMES.items() if re.search(pattern, name)), None)


def measure_cpu() -> Device:
    """This machine's processor: the best of a few FP32 matrix products and large copies with numpy, about a second.

    A copy counts twice, as read and as written. FP16 is taken to be as fast as FP32, which it is where an engine
    computes in FP32 between FP16 values. Others at work on the machine lower both figures.
    """
    left = np.random.default_rng(0).random((_PRODUCT, _PRODUCT), dtype=np.float32)
    product = np.empty_like(left)
    source = np.ones(_COPY_BYTES // 8)
    target = np.zeros_like(source)
    peak = 2 * _PRODUCT**3 / _best(lambda: np.matmul(left, left, out=product)) / 1e12
    bandwidth = 2 * _COPY_BYTES / _best(lambda: np.copyto(target, source)) / 1e9
    memory = machine.memory()
    return Device(
        CPU, machine.cpu(), peak, peak, peak, None, bandwidth, memory.total / 1e9 if memory else 0.0, True, "as it is",
        f"measured here with numpy {np.__version__}: FP32 products of {_PRODUCT}, copies of {_COPY_BYTES >> 20} MiB",
    )  # fmt: skip


def rows(devices: tuple[Device, ...] | None = None) -> list[tuple[str, ...]]:
    """A printable table of ``devices`` (all by default), its headings first."""
    heading = ("device", "FP16 TFLOPS", "FP16 sums", "FP32 TFLOPS", "INT8 TOPS", "GB/s", "GB", "power", "unsure")
    lines = [
        (
            device.key, f"{device.fp16:g}", f"{device.fp16_fast:g}", f"{device.fp32:g}",
            "-" if device.int8 is None else f"{device.int8:g}", f"{device.bandwidth:g}", f"{device.memory:g}",
            device.power, device.unsure,
        )
        for device in devices or tuple(DEVICES.values())
    ]  # fmt: skip
    return [heading, *lines]


def _best(call: Callable[[], object]) -> float:
    seconds = []
    for _ in range(_TRIES):
        began = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - began)
    return min(seconds)
