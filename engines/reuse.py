"""Whether a plan that is there may be used here, or must be built again: asked before any vendor's library sees it.

The key of a plan is {SHA-256 of the ONNX file, backend, version, GPU architecture, GPU, options}. What of it counts
depends on the backend:

================  ==================  ==================  =================  ==============================
backend           version             architecture        GPU's name         driver
================  ==================  ==================  =================  ==============================
tensorrt          equal               its own             equal              does not count, is mentioned
tensorrt-rtx      first three equal   among the targets   does not count     does not count
openvino          equal               does not count      the CPU's, if the  none
                                                          plan says it
================  ==================  ==================  =================  ==============================

TensorRT: plans without version and hardware compatibility, the only ones built here, run on the version and kind of
GPU that built them (developer guide, "Engine Compatibility"). TensorRT for RTX compiles its kernels where the plan
runs: the GPU's name and the driver count for the cache of those kernels, which is the runtime's affair, and not here.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache

from . import device, openvino
from .cuda import driver_problem
from .device import Gpu
from .errors import MissingComponentError
from .manifest import EngineEntry
from .vendor import TENSORRT, TENSORRT_RTX

_VENDORS = {"tensorrt": TENSORRT, "tensorrt-rtx": TENSORRT_RTX}
_NAMES = {"tensorrt": "TensorRT", "tensorrt-rtx": "TensorRT for RTX", "openvino": "OpenVINO"}
# What an OpenVINO plan says of the machine it was built on, among its options.
CPU_OPTION = "cpu"
_SHORT = 12


@dataclass(frozen=True)
class Here:
    """What this machine offers: ``versions`` of the backends' packages, None for one that cannot be imported.

    ``gpu`` is None without one that can be used; ``no_gpu`` then says why.
    """

    versions: Mapping[str, str | None]
    gpu: Gpu | None
    cpu: str = ""
    no_gpu: str = "no NVIDIA driver"


def here() -> Here:
    """This machine. A package is imported when its version is asked for, and no sooner."""
    gpu = device.gpu()
    problem = None if gpu else driver_problem()
    return Here(_Installed(), gpu, device.cpu(), problem or "no usable NVIDIA GPU")


def reusable(
    entry: EngineEntry, onnx_sha256: str, here: Here, options: Mapping[str, str] | None = None
) -> tuple[bool, str]:
    """Whether the plan of ``entry`` can run ``here`` in place of one built now, and why, naming both sides.

    ``onnx_sha256``: of the generator that is to run. ``options``: those that a build now would have
    (``BuildRequest.options``); None takes the plan's own. Looks at no file; ``Bundle.verified`` does.
    """
    if entry.onnx_sha256 != onnx_sha256:
        return False, f"built from another generator: {entry.onnx_sha256[:_SHORT]}..., here {onnx_sha256[:_SHORT]}..."
    problem = _mismatch(entry, here)
    if problem is not None:
        return False, problem
    built = {name: value for name, value in entry.options.items() if name != CPU_OPTION}
    if options is not None and built != dict(options):
        return False, f"built with {_options(built)}; asked for is {_options(options)}"
    return True, f"{_built(entry)}, which is what is here{_other_driver(entry, here)}"


def _mismatch(entry: EngineEntry, here: Here) -> str | None:
    """What of the machine does not fit, both sides named, or None."""
    backend = entry.backend
    if backend not in _NAMES:
        return f"built by {backend}, which this version does not know"
    version = here.versions.get(backend)
    if version is None:
        return f"{_built(entry)}; here {_NAMES[backend]} is not installed"
    if backend != "openvino" and here.gpu is None:
        return f"{_built(entry)}; here is {here.no_gpu}"
    if backend == "tensorrt" and entry.built_on is None:
        return f"{_built(entry)}, and does not say on which GPU; {_offered(entry, here)}"
    return None if _fits(entry, version, here) else f"{_built(entry)}; {_offered(entry, here)}"


def _fits(entry: EngineEntry, version: str, here: Here) -> bool:
    if entry.backend == "openvino":
        return entry.version == version and entry.options.get(CPU_OPTION, here.cpu) == here.cpu
    if here.gpu is None:
        return False
    if entry.backend == "tensorrt-rtx":
        # As tensorrt_rtx.check_plan, which says of each plan what it was built with.
        return _numbers(entry.version)[:3] == _numbers(version)[:3] and here.gpu.sm in entry.targets
    built_on = entry.built_on
    same_gpu = built_on is not None and (built_on.sm, built_on.gpu) == (here.gpu.sm, here.gpu.name)
    return entry.version == version and same_gpu


def _built(entry: EngineEntry) -> str:
    """The plan's side."""
    if entry.backend == "openvino":
        on = entry.options.get(CPU_OPTION)
        return f"built with OpenVINO {entry.version}{f' on {on}' if on else ''}"
    on = f" ({entry.built_on.gpu})" if entry.backend == "tensorrt" and entry.built_on else ""
    return f"built with {_NAMES[entry.backend]} {entry.version} for {', '.join(entry.targets)}{on}"


def _offered(entry: EngineEntry, here: Here) -> str:
    """This machine's side."""
    on = here.cpu if entry.backend == "openvino" else f"{here.gpu.sm} ({here.gpu.name})" if here.gpu else here.no_gpu
    return f"here is {_NAMES[entry.backend]} {here.versions[entry.backend]} on {on}"


def _other_driver(entry: EngineEntry, here: Here) -> str:
    built_on, gpu = entry.built_on, here.gpu
    if entry.backend != "tensorrt" or built_on is None or gpu is None or built_on.driver == gpu.driver:
        return ""
    return f" (but for the driver, on which plans do not depend: {built_on.driver}, here {gpu.driver})"


def _options(options: Mapping[str, str]) -> str:
    return ", ".join(f"{name}={value}" for name, value in sorted(options.items())) or "the builder's own options"


def _numbers(version: str) -> tuple[str, ...]:
    return tuple(version.split("."))


class _Installed(Mapping[str, str | None]):
    def __getitem__(self, backend: str) -> str | None:
        return _version(backend)

    def __iter__(self) -> Iterator[str]:
        return iter(_NAMES)

    def __len__(self) -> int:
        return len(_NAMES)


@cache
def _version(backend: str) -> str | None:
    version = _VENDORS[backend].version if backend in _VENDORS else openvino.version
    try:
        return version()
    except MissingComponentError:
        return None
