"""Named sets of builder options. They are starting points reckoned from documents, not from measurements.

No preset was tried on the device that it is named after: this project had none. ``turbo-bench`` on the device decides.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from . import device
from .device import Gpu, Jetson
from .errors import UsageError

PRESETS = ("jetson-orin", "jetson-thor", "desktop", "server")

_MIB = 1 << 20
_GIB = 1 << 30
# The highest level: "always compiles a dynamic kernel and compares it to static kernels" (NvInfer.h 11.1).
_DEFAULT_LEVEL, _HIGHEST_LEVEL = 3, 5
# Workstation and laptop GPUs share their memory with a desktop. Data-centre GPUs bear neither of these names.
_DESKTOP_NAMES = ("geforce", "rtx", "quadro", "titan", "gb10")


@dataclass(frozen=True)
class Preset:
    """Builder options and, in ``reason``, where the numbers come from. None leaves the builder's own default."""

    name: str
    workspace_bytes: int | None
    tactic_memory_bytes: int | None
    optimization_level: int | None
    reason: str

    def for_backend(self, backend: str) -> Preset:
        """Without what ``backend`` has no use for: all three are TensorRT's.

        TensorRT for RTX times no kernels where it builds, was seen to build the same plan at every level, and its plan
        is for other GPUs than this machine's, whose memory says nothing of theirs. OpenVINO knows none of the three.
        """
        if backend == "tensorrt":
            return self
        return replace(self, workspace_bytes=None, tactic_memory_bytes=None, optimization_level=None)


def preset(name: str, memory_bytes: int | None = None) -> Preset:
    """The preset ``name``, for a GPU that can use ``memory_bytes``: by default this machine's.

    On a Jetson the CPU and the GPU share one memory, and 8, 16, 32 or 64 GB of it differ in what a build may take:

    - workspace: an eighth of the memory, at most 4 GiB. A generator for 512x512 has intermediate results of some
      hundred MB; more workspace admits faster kernels, up to a few times that.
    - memory for trying kernels: enough for 8 GiB and the workspace, but never more than two thirds. TensorRT's default
      is 75 % of all memory, and counts its own host memory in (NvInfer.h, ``kTACTIC_DRAM``): what is left then does
      not hold Linux with a desktop. 8 GiB is more than the 5.7 GiB that a build of the full-size FP16 generator took
      in all with TensorRT for RTX.
    - level 3, the builder's default: 4 and 5 compile a new kernel for every layer, on the slowest of CPUs.

    ``jetson-thor``: the same rules, with at most 8 GiB of workspace; it has 128 GB, and the caps keep a build from
    crowding out what else the robot runs. ``desktop``: half of the GPU's memory as workspace, since a screen and other
    programs live there too; level 3. ``server``: the builder's default workspace, which is all of the GPU's memory,
    and level 5: built once, run for weeks. On both the default for trying kernels, all of the GPU's memory, stays.

    Raises UsageError for a name that is none of ``PRESETS``.
    """
    if name not in PRESETS:
        raise UsageError(f"no preset '{name}'", expected=", ".join(PRESETS), got=name)
    memory_bytes = memory_bytes or _memory_here(name)
    if name == "server":
        return Preset(name, None, None, _HIGHEST_LEVEL, "all of the GPU's memory, and every kernel compared")
    if memory_bytes is None:
        return Preset(name, None, None, _DEFAULT_LEVEL, "this machine's memory is unknown: the builder's own limits")
    if name == "desktop":
        half = _whole(memory_bytes / 2)
        return Preset(name, half, None, _DEFAULT_LEVEL, f"half of {memory_bytes / _GIB:.1f} GiB as workspace")
    workspace = min(_whole(memory_bytes / 8), (8 if name == "jetson-thor" else 4) * _GIB)
    tactics = min(_whole(memory_bytes * 2 / 3), 8 * _GIB + workspace)
    shares = f"{workspace / _GIB:.1f} GiB of workspace and {tactics / _GIB:.1f} GiB for trying kernels"
    return Preset(name, workspace, tactics, _DEFAULT_LEVEL, f"{shares}, of {memory_bytes / _GIB:.1f} GiB shared")


def preset_for(jetson: Jetson | None, gpu: Gpu | None) -> str:
    """The name of the preset that fits a machine. A Jetson before Orin gets Orin's: it shares its memory likewise."""
    if jetson is not None:
        return "jetson-thor" if "thor" in jetson.model.lower() else "jetson-orin"
    if gpu is None or any(name in gpu.name.lower() for name in _DESKTOP_NAMES):
        return "desktop"
    return "server"


def _memory_here(name: str) -> int | None:
    if name.startswith("jetson"):
        here = device.memory()
        return here.total if here else None
    gpu = device.gpu()
    return gpu.memory_bytes if gpu else None


def _whole(nbytes: float) -> int:
    """In whole MiB, the unit that trtexec takes."""
    return int(nbytes) // _MIB * _MIB
