"""Builds plans, in a child process: a builder that crashes or runs out of memory takes nothing else with it.

Beside the plan a build leaves ``build.log`` (what the builder said) and ``reproduce.sh`` (the same build again). The
three appear together and only on success; an earlier plan and its log stay as they were until then. The log of a
build that failed is left as ``build-failed.log``; an interrupted build leaves nothing, not even a folder it made.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import IO, Any

from . import device
from ._build_job import Job, flags
from ._build_process import BuildProgress, Watch, failure, run
from ._build_script import script
from ._build_targets import RTX_TARGETS, check_targets, resolve_targets
from .bundle import BUILD_LOG, BUILD_SCRIPT
from .errors import DeviceError, InputError, UsageError
from .files import replacing, writing_to
from .manifest import BuiltOn, EngineEntry

__all__ = [
    "RTX_TARGETS",
    "BuildProgress",
    "BuildRequest",
    "build_plan",
    "check_targets",
    "plan_folder",
    "refuse_too_little_memory",
    "resolve_targets",
    "write_script",
]

FAILED_LOG = "build-failed.log"

BACKENDS = ("tensorrt", "tensorrt-rtx", "openvino")
# The builder's process per byte of generator, weights included. Measured with TensorRT for RTX 1.7: 6.1 GB for a
# generator of 1.8 GB. For TensorRT proper, which was not measured, the same is assumed: it holds the weights and the
# plan likewise, and on a Jetson what it puts on the GPU besides.
_MEMORY_PER_BYTE = 3.4
_MEASURED = ("tensorrt", "tensorrt-rtx")

_WORKER = f"{__package__}._build_worker"


@dataclass(frozen=True)
class BuildRequest:
    """What to build. None leaves the builder's own default.

    ``onnx``: the bundle's generator. ``plan``: where to write; an existing plan is replaced on success.
    ``targets``: the GPU architectures that the one plan is to serve, e.g. ``("sm_89", "sm_120")``; for TensorRT this
    device's own, which ``resolve_targets`` tells.
    ``onnx_sha256``: goes into the entry, so that it can be told later which generator the plan came from.
    ``workspace_bytes``: the most GPU memory a layer may use for scratch; ``tactic_memory_bytes``: the most memory for
    trying kernels (TensorRT's TACTIC_DRAM); ``optimization_level``: 0 to 5. TensorRT for RTX 1.7 was seen to build the
    same plan at every level.
    ``timing_cache``: TensorRT's timings of kernels from earlier builds: read if it is there, written when the build
    succeeds. They make a build faster and may choose other kernels of the same speed; level 0 ignores them.
    ``precision``: ``fp16`` or ``fp32``; what OpenVINO computes in, and whether TensorRT before 10 may use FP16, but for
    ``fp32_islands`` (nodes' names). Later versions and TensorRT for RTX read both from the graph.
    ``hints``: what else a backend's builder takes, by its own names.
    ``plan_root``: the bundle's folder when ``onnx`` is not in it, but a lowered copy.
    ``ignore_memory``: try even when the memory that is free looks too little.
    """

    backend: str
    onnx: Path
    plan: Path
    targets: tuple[str, ...]
    onnx_sha256: str
    workspace_bytes: int | None = None
    optimization_level: int | None = None
    timing_cache: Path | None = None
    tactic_memory_bytes: int | None = None
    precision: str = "fp16"
    fp32_islands: tuple[str, ...] = ()
    hints: Mapping[str, str] = field(default_factory=dict)
    plan_root: Path | None = None
    ignore_memory: bool = False

    @property
    def plan_name(self) -> str:
        """The plan's name in its bundle: relative to ``plan_root``, or else to the ONNX file's folder.

        A plan written outside that folder has only its file name.
        """
        plan, root = self.plan.resolve(), (self.plan_root or self.onnx.parent).resolve()
        return plan.relative_to(root).as_posix() if plan.is_relative_to(root) else plan.name

    @property
    def options(self) -> dict[str, str]:
        """What decides the plan besides its generator, as the manifest has it. A timing cache does not: see above."""
        numbers = {
            "workspace_bytes": self.workspace_bytes,
            "tactic_memory_bytes": self.tactic_memory_bytes,
            "optimization_level": self.optimization_level,
        }
        given = {name: str(value) for name, value in numbers.items() if value is not None}
        # Of an OpenVINO plan; everything else computes in the graph's precision.
        precision = {"precision": self.precision} if self.backend == "openvino" else {}
        return given | precision | dict(self.hints)

    @property
    def memory_needed(self) -> int | None:
        """An estimate of what the build takes, in bytes; None for backends that nobody measured or can compare."""
        return round(size_of(self.onnx) * _MEMORY_PER_BYTE) if self.backend in _MEASURED else None


def build_plan(request: BuildRequest, on_progress: Callable[[BuildProgress], None] | None = None) -> EngineEntry:
    """Build one plan for all targets and return its entry for the manifest; nothing enters the manifest here.

    TensorRT needs the GPU that the plan is for; the others need none. Takes seconds for a small network, minutes for a
    large one with TensorRT, and three to four times the plan's size in memory. On failure, or when interrupted
    (Ctrl-C), the builder's process is ended and an earlier plan is untouched.

    Raises UsageError for targets or options that cannot be meant, InputError for a missing ONNX file,
    MissingComponentError without the builder's package or a GPU that it needs, BuildError when the builder fails,
    DeviceError when there is too little memory to begin, DiskFullError.
    """
    _check(request)
    plan = request.plan
    watch = Watch(on_progress or (lambda _: None))
    with ExitStack() as stack:
        stack.enter_context(_only_on_success(plan.parent))
        temporary, cache = stack.enter_context(replacing(plan)), None
        if request.timing_cache is not None:
            stack.enter_context(_only_on_success(request.timing_cache.parent))
            cache = stack.enter_context(replacing(request.timing_cache))
        log = stack.enter_context(_failed_log(plan.parent / FAILED_LOG))
        job = replace(_job(request), plan=temporary, new_timing_cache=cache)
        words = [word for pair in flags(job) for word in pair]
        code = run([sys.executable, "-m", _WORKER, *words], log, watch.hear)
        if watch.built is None:
            names = {str(temporary): str(plan), str(cache): str(request.timing_cache)}
            raise failure(watch, code, plan.parent / FAILED_LOG, names, size_of(request.onnx))
        entry = _entry(request, watch.built)
        write_script(request, entry.version)
        (plan.parent / FAILED_LOG).replace(plan.parent / BUILD_LOG)
    last = watch.last
    if on_progress is not None:
        on_progress(BuildProgress("built", 1.0, last.seconds if last else 0.0, watch.built["peak_rss_bytes"]))
    return entry


def plan_folder(backend: str, version: str, targets: tuple[str, ...]) -> str:
    """Where a bundle keeps such a plan: ``engines/tensorrt-10.3.0-sm_87``; several targets are joined by ``+``."""
    return f"engines/{backend}-{version}-{'+'.join(targets)}"


def refuse_too_little_memory(request: BuildRequest) -> None:
    """Raise DeviceError, with the numbers, when what is free now is less than ``request.memory_needed``. Cheap.

    Does nothing when ``request.ignore_memory`` says so, or where the system or nobody's measurements tell. Swap does
    not count as free: a Jetson's default swap is compressed memory (zram), and what the GPU uses cannot be swapped.
    """
    here, needed = device.memory(), request.memory_needed
    if request.ignore_memory or here is None or needed is None or here.available >= needed:
        return
    raise DeviceError(
        f"too little memory is free to build {request.plan.name} from {request.onnx.name}",
        expected=f"about {needed:,} bytes, {_MEMORY_PER_BYTE} times the generator's {size_of(request.onnx):,}",
        got=f"{here} (and {here.swap_free:,} of swap)",
        hint="close other programs, on a Jetson the desktop (sudo systemctl isolate multi-user.target); or add a swap "
        "file and --force-memory; or build on another device of the same SM and TensorRT version and copy the plan",
    )


def _check(request: BuildRequest) -> None:
    if request.backend not in BACKENDS:
        raise UsageError(f"no builder for the backend '{request.backend}'", expected=", ".join(BACKENDS))
    if request.targets != resolve_targets(request.backend, request.targets) or not request.targets:
        raise UsageError("a build needs a target", got="none")
    level, workspace, tactics = request.optimization_level, request.workspace_bytes, request.tactic_memory_bytes
    if level is not None and not 0 <= level <= 5:
        raise UsageError("no such optimization level", expected="0 to 5", got=str(level))
    if workspace is not None and workspace <= 0:
        raise UsageError("the workspace is too small", expected="more than 0 bytes", got=f"{workspace} bytes")
    if tactics is not None and tactics <= 0:
        raise UsageError("the memory for trying kernels is too small", expected="more than 0", got=f"{tactics} bytes")
    _refuse_unused(request)
    if not request.onnx.is_file():
        raise InputError(f"{request.onnx} does not exist", hint="turbo-export --ckpt day2night.pkl --out day2night")
    refuse_too_little_memory(request)


def _refuse_unused(request: BuildRequest) -> None:
    """TensorRT for RTX compiles its kernels where the plan runs, and times none when it builds."""
    if request.backend == "tensorrt":
        return
    for name, value in (("timing cache", request.timing_cache), ("limit for kernels", request.tactic_memory_bytes)):
        if value is not None:
            raise UsageError(f"a build with {request.backend} tries no kernels: it has no use for a {name}")


def _job(request: BuildRequest) -> Job:
    """TensorRT for RTX takes precision from the graph, and OpenVINO knows no islands."""
    job = Job(
        backend=request.backend,
        onnx=request.onnx,
        plan=request.plan,
        targets=request.targets,
        workspace_bytes=request.workspace_bytes,
        tactic_memory_bytes=request.tactic_memory_bytes,
        optimization_level=request.optimization_level,
        timing_cache=request.timing_cache,
        hints=request.hints,
    )
    if request.backend == "tensorrt-rtx":
        return job
    islands = request.fp32_islands if request.backend == "tensorrt" else ()
    return replace(job, precision=request.precision, fp32_islands=islands)


def _entry(request: BuildRequest, built: dict[str, Any]) -> EngineEntry:
    here = device.gpu() if request.backend in ("tensorrt", "tensorrt-rtx") else None
    return EngineEntry(
        backend=request.backend,
        version=built["version"],
        targets=request.targets,
        plan=request.plan_name,
        onnx_sha256=request.onnx_sha256,
        options=request.options | built.get("options", {}),
        checked=tuple(built["checked"]),
        unchecked=tuple(built["unchecked"]),
        built_on=BuiltOn(here.name, here.sm, here.driver) if here else None,
    )


@contextmanager
def _only_on_success(folder: Path) -> Iterator[None]:
    """Remove again what of ``folder`` was not there before, if the block fails and leaves it empty."""
    new = [path for path in (folder, *folder.parents) if not path.exists()]
    try:
        yield
    except BaseException:
        with suppress(OSError):  # one that is not empty (a failed build's log), and those above it, stay
            for path in new:
                path.rmdir()
        raise


@contextmanager
def _failed_log(path: Path) -> Iterator[IO[bytes]]:
    """The log, under its failed name until the build succeeded. An interrupted build leaves none."""
    with writing_to(path), path.open("wb") as log:
        try:
            yield log
        except KeyboardInterrupt:
            path.unlink(missing_ok=True)
            raise


def size_of(onnx: Path) -> int:
    """The generator's bytes, its weights beside it included."""
    data = onnx.with_name(f"{onnx.name}.data")
    return onnx.stat().st_size + (data.stat().st_size if data.is_file() else 0)


def write_script(request: BuildRequest, version: str) -> None:
    """Write ``reproduce.sh`` beside the plan: for a plan that was moved, with ``request`` as it would be there."""
    path = request.plan.parent / BUILD_SCRIPT
    text = script(_job(request), _WORKER, version, request.onnx_sha256, lowered=_is_lowered(request))
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
    path.chmod(0o755)


def _is_lowered(request: BuildRequest) -> bool:
    return request.plan_root is not None and request.onnx.resolve().parent != request.plan_root.resolve()
