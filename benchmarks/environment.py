"""What a figure was measured on: said beside every figure, and nothing in it names a person, a path or a host."""

from __future__ import annotations

import hashlib
import os
import platform
import subprocess
from dataclasses import dataclass, replace
from importlib import metadata
from pathlib import Path

from ..engines import device

_PACKAGE = Path(__file__).resolve().parent.parent

UNREADABLE = "not readable here"

# More than this share of the cores at work before a measurement began is somebody else's work.
_BUSY_SHARE = 0.25

_PACKAGES = (
    "edgeturbo", "torch", "diffusers", "transformers", "peft", "onnx", "onnx-ir", "onnxscript", "onnxruntime",
    "onnxruntime-gpu", "openvino", "tensorrt", "tensorrt-cu12", "tensorrt-cu13", "tensorrt-rtx", "cuda-python",
    "triton", "numpy", "pillow", "av", "prometheus-client",
)  # fmt: skip

# Field of ours: nvidia-smi's (``nvidia-smi --help-query-gpu``), with its unit.
_STATE_QUERY = {
    "sm_clock": ("clocks.sm", " MHz"),
    "sm_clock_limit": ("clocks.max.sm", " MHz"),
    "memory_clock": ("clocks.mem", " MHz"),
    "power": ("power.draw", " W"),
    "power_limit": ("power.limit", " W"),
    "temperature": ("temperature.gpu", " C"),
}


@dataclass(frozen=True)
class Gpu:
    """CUDA's first GPU, and its state as ``nvidia-smi`` gives it; what that does not tell is ``not readable here``."""

    name: str
    sm: str
    driver: str
    memory_bytes: int
    sm_clock: str
    sm_clock_limit: str
    memory_clock: str
    power: str
    power_limit: str
    temperature: str


@dataclass(frozen=True)
class Environment:
    """``gpu`` is None where the driver shows none. ``jetson`` is the board with its JetPack, None elsewhere. ``code``
    is a digest of this package's own modules. ``commit`` is the checkout's, and ``dirty`` says that files differed from
    it; both None outside a checkout.

    ``load_before`` and ``load_after`` are the 1-minute load averages around the measurement, None where the system has
    none; ``busy`` warns, in a sentence, that the machine was at work before it began.
    """

    cpu: str
    cores: int
    memory_bytes: int | None
    system: str
    python: str
    gpu: Gpu | None
    jetson: str | None
    packages: dict[str, str]
    code: str
    commit: str | None
    dirty: bool | None
    load_before: float | None
    load_after: float | None = None
    busy: str | None = None

    @property
    def machine(self) -> str:
        """A short name for results of this kind of machine, fit for a file name: the GPU's, or ``cpu``."""
        words = self.gpu.name if self.gpu else "cpu"
        return "-".join("".join(c if c.isalnum() else " " for c in words.lower()).split())


def read_environment() -> Environment:
    """Look at this machine. Takes a fraction of a second, imports nothing heavy, and leaves every setting as it is."""
    load, memory = _load(), device.memory()
    cores = os.cpu_count() or 1
    return Environment(
        cpu=device.cpu(),
        cores=cores,
        memory_bytes=memory.total if memory else None,
        system=f"{platform.system()} {platform.machine()}",
        python=platform.python_version(),
        gpu=_gpu(),
        jetson=_jetson(),
        packages=_packages(),
        code=_code(),
        commit=_git("rev-parse", "HEAD"),
        dirty=_dirty(),
        load_before=load,
        busy=busy_warning(load, cores),
    )


def finished(environment: Environment) -> Environment:
    """The same environment with the load average after the measurement."""
    return replace(environment, load_after=_load())


def busy_warning(load: float | None, cores: int) -> str | None:
    """A sentence when ``load``, the load average before a measurement, says that others use this machine."""
    if load is None or load <= _BUSY_SHARE * cores:
        return None
    return f"the machine was busy before the measurement: load average {load:.2f} on {cores} cores; only ratios hold"


def parse_state(line: str) -> dict[str, str]:
    """One line of ``nvidia-smi --query-gpu=… --format=csv,noheader,nounits``, which may be empty, field by field."""
    values = [value.strip() for value in line.split(",")]
    values += [""] * (len(_STATE_QUERY) - len(values))
    return {
        name: f"{value}{unit}" if value and not value.startswith("[") else UNREADABLE
        for (name, (_, unit)), value in zip(_STATE_QUERY.items(), values, strict=False)
    }


def _gpu() -> Gpu | None:
    found = device.gpu()
    if found is None:
        return None
    query = ",".join(field for field, _ in _STATE_QUERY.values())
    answer = _output(["nvidia-smi", "--id=0", f"--query-gpu={query}", "--format=csv,noheader,nounits"]) or ""
    return Gpu(found.name, found.sm, found.driver, found.memory_bytes, **parse_state(answer))


def _jetson() -> str | None:
    board = device.jetson()
    return f"{board.model}, JetPack {board.jetpack or UNREADABLE}, L4T {board.l4t or UNREADABLE}" if board else None


def _load() -> float | None:
    try:
        return round(os.getloadavg()[0], 2)
    except (OSError, AttributeError):
        return None


def _packages() -> dict[str, str]:
    found = {}
    for name in _PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def _code() -> str:
    """Tells two states of the package apart, committed or not; tests, pages and results do not count."""
    digest = hashlib.sha256()
    for folder in ("benchmarks", "engines", "export", "runtime"):
        for path in sorted((_PACKAGE / folder).rglob("*.py")):
            digest.update(path.relative_to(_PACKAGE).as_posix().encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()[:16]


def _dirty() -> bool | None:
    changes = _git("status", "--porcelain", "--untracked-files=no")
    return None if changes is None else bool(changes)


def _git(*words: str) -> str | None:
    """What git says of the checkout that this package was imported from; None where it is no checkout."""
    if not (_PACKAGE / ".git").exists():
        return None
    return _output(["git", "-C", str(_PACKAGE), *words])


def _output(command: list[str]) -> str | None:
    """What a command prints, stripped; None when it is not there or fails."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=20)  # noqa: S603
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None
