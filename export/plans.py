"""``turbo-build``: a plan for this machine, or for others, out of a bundle's ONNX file.

Needs no torch and no checkpoint. A plan is built in a folder of its own inside the bundle, run on the device against
the bundle's goldens, and only then moved to its place and entered in the manifest. At every moment the manifest names
only what is whole.
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from ..engines import device, presets, reuse
from ..engines.build import (
    FAILED_LOG,
    RTX_TARGETS,
    BuildProgress,
    BuildRequest,
    build_plan,
    plan_folder,
    refuse_too_little_memory,
    resolve_targets,
    write_script,
)
from ..engines.bundle import BUILD_LOG, BUILD_SCRIPT, ONNX, PLAN, Bundle, add_files, without_plan
from ..engines.errors import EdgeTurboError, MissingComponentError, UsageError
from ..engines.files import writing_to
from ..engines.manifest import EngineEntry, GoldenParity
from ..engines.select import (
    GPU_PLANS,
    OPENVINO,
    TENSORRT,
    TENSORRT_RTX,
    engine_of_plan,
    plan_problem,
    unfit_reason,
    unusable_reason,
)
from ..engines.vendor import TENSORRT as TENSORRT_VENDOR
from ..runtime.gate import check_goldens, refuse_wrong_pictures
from .events import Event

BUILDABLE = (TENSORRT, TENSORRT_RTX, OPENVINO)
# The current and the previous generation of desktop GPUs.
DEFAULT_RTX_TARGETS = ("sm_89", "sm_120")

_WORKSHOP = ".building"
_FIRST_STRONGLY_TYPED = 10  # TensorRT before it reads opset 17 and no Gelu


@dataclass(frozen=True)
class BuildOptions:
    """``turbo-build``'s options. None leaves a choice to this machine: ``backend`` to what is installed, ``targets`` to
    its GPU, the others to ``preset``, whose own default is chosen by the machine.

    ``precision``: what OpenVINO computes in. ``ignore_memory`` builds although too little memory seems free.
    ``force`` builds a plan again that is there and could be used.
    """

    backend: str | None = None
    targets: tuple[str, ...] | None = None
    preset: str | None = None
    workspace_bytes: int | None = None
    optimization_level: int | None = None
    timing_cache: Path | None = None
    precision: str | None = None
    ignore_memory: bool = False
    force: bool = False


@dataclass(frozen=True)
class BuildReport:
    """``built`` is False when a plan that was there is as good; ``reason`` says which, or why one was built."""

    bundle: Bundle
    entry: EngineEntry
    built: bool
    reason: str
    seconds: float


def add_plan(bundle: Bundle, options: BuildOptions, emit: Callable[[Event], None]) -> BuildReport:
    """Build a plan for ``bundle`` unless one that is as good is there; check it on the device; enter it.

    Raises UsageError, MissingComponentError, DeviceError (too little memory), BuildError, ParityError or DiskFullError;
    the bundle is then as it was, but for ``build-failed.log``.
    """
    started = time.monotonic()
    backend = options.backend or backend_here()
    version = _version(backend)
    request = _request(bundle, backend, options)
    old = _same_place(bundle, backend, request.targets)
    fits, reason = _as_good(old, request, version) if old else (False, f"the bundle had no {backend} plan for this")
    if old and fits and not options.force:
        return BuildReport(bundle, old, False, f"nothing to do: {reason}", 0.0)
    refuse_too_little_memory(request)
    final = bundle.root / _place(bundle, request, old, version)
    with _workshop(bundle.root) as workshop:
        used = _parsable(replace(request, plan=workshop / PLAN), workshop, emit)
        entry = _build(bundle, used, emit)
        entry = _checked_on_the_device(bundle, replace(entry, plan=_name(bundle, workshop / PLAN)), emit)
        sealed = _move_in(bundle, entry, workshop, final)
    write_script(replace(used, plan=final), entry.version)
    sealed = add_files(sealed, _names(bundle, final), replace(entry, plan=_name(bundle, final)))
    why = "built again, as asked" if old and fits else f"built, because {reason}" if old else "built"
    return BuildReport(sealed, sealed.engine(final), True, why, round(time.monotonic() - started, 2))


def renew_plan(path: Path, engine: str, emit: Callable[[Event], None]) -> BuildReport | None:
    """Build again the plan that ``path`` and ``engine`` mean, if it does not fit this machine and one could be built.

    ``path`` is a bundle's folder or one of its plans; ``engine`` as in ``turbo-run``. None when there is nothing to do:
    the plan fits, another backend was asked for, or no GPU of this machine could run the new one.
    Raises what ``add_plan`` raises.
    """
    bundle = Bundle.open(path)
    entries = [bundle.engine(path)] if path.suffix == ".plan" else list(bundle.manifest.engines)
    wanted = [entry for entry in entries if entry.backend in GPU_PLANS and engine in ("auto", entry.backend)]
    if any(plan_problem(bundle, entry) is None for entry in wanted):
        return None
    for backend in dict.fromkeys(entry.backend for entry in wanted):
        if unusable_reason(backend) is None:
            return add_plan(bundle, BuildOptions(backend, force=True), emit)
    return None


def backend_here() -> str:
    """What turbo-build builds with when it is not told: a GPU's own library first, then what builds without a GPU."""
    backend = gpu_backend_here() or (OPENVINO if reuse.here().versions[OPENVINO] is not None else None)
    if backend is None:
        raise MissingComponentError(
            "nothing that builds plans is installed",
            expected=" or ".join(BUILDABLE),
            hint='pip install "edgeturbo[rtx]" for RTX GPUs; a Jetson has TensorRT: docs/jetson.md',
        )
    return backend


def gpu_backend_here() -> str | None:
    """What can build plans for GPUs here: TensorRT where there is one, TensorRT for RTX anywhere, or nothing."""
    versions = reuse.here().versions
    if device.gpu() is not None and versions[TENSORRT] is not None:
        return TENSORRT
    return None if versions[TENSORRT_RTX] is None else TENSORRT_RTX


def require_builder(backend: str) -> None:
    """Raise MissingComponentError unless ``backend`` can build a plan here. Cheap: call it before the long work."""
    try:
        _version(backend)
        if backend == TENSORRT:
            resolve_targets(backend, ())
    except MissingComponentError as error:
        error.hint = f"--engine onnx, and turbo-build on the device; or --engine tensorrt-rtx; or: {error.hint}"
        raise


def _version(backend: str) -> str:
    version = reuse.here().versions[backend]
    if version is None:
        extra = {TENSORRT: "tensorrt", TENSORRT_RTX: "rtx", OPENVINO: "openvino"}[backend]
        hint = TENSORRT_VENDOR.hint if backend == TENSORRT else f'pip install "edgeturbo[{extra}]"'
        raise MissingComponentError(f"{backend} is not installed, or cannot be imported", hint=hint)
    return version


def _request(bundle: Bundle, backend: str, options: BuildOptions) -> BuildRequest:
    """What was asked for, with nothing left open but where the plan goes."""
    machine = (device.jetson(), device.gpu())
    preset = presets.preset(options.preset or presets.preset_for(*machine)).for_backend(backend)
    level = preset.optimization_level if options.optimization_level is None else options.optimization_level
    return BuildRequest(
        backend, bundle.onnx(), bundle.root / PLAN, _targets(backend, options.targets),
        bundle.manifest.files[ONNX].sha256, plan_root=bundle.root,
        workspace_bytes=options.workspace_bytes or preset.workspace_bytes, optimization_level=level,
        timing_cache=options.timing_cache, tactic_memory_bytes=preset.tactic_memory_bytes,
        precision=_precision(bundle, backend, options.precision), fp32_islands=bundle.manifest.fp32_islands,
        ignore_memory=options.ignore_memory,
    )  # fmt: skip


def _targets(backend: str, asked: tuple[str, ...] | None) -> tuple[str, ...]:
    if backend == OPENVINO:
        if asked not in (None, ("cpu",)):
            raise UsageError(
                "an OpenVINO plan is for this machine's CPU", got=",".join(asked or ()), hint="no --target"
            )
        return ("cpu",)
    here = device.gpu()
    default: tuple[str, ...] = ()
    if backend == TENSORRT_RTX:
        default = (here.sm,) if here and here.sm in RTX_TARGETS else DEFAULT_RTX_TARGETS
    return resolve_targets(backend, default if asked is None else asked)


def _precision(bundle: Bundle, backend: str, asked: str | None) -> str:
    if backend == OPENVINO:
        from ..engines.openvino import DEFAULT_PRECISION

        return asked or DEFAULT_PRECISION
    if asked is not None:
        raise UsageError(
            "only openvino computes in a precision of your choice; a plan for a GPU computes in the graph's",
            got=f"--precision {asked} with --engine {backend}",
            hint="turbo-export --precision fp32 makes a bundle that computes in FP32",
        )
    return bundle.manifest.model.precision


def _as_good(old: EngineEntry, request: BuildRequest, version: str) -> tuple[bool, str]:
    """Whether the plan that is there is what would be built now; with TensorRT for RTX, for GPUs that are elsewhere."""
    if request.backend != TENSORRT_RTX:
        return reuse.reusable(old, request.onnx_sha256, reuse.here(), request.options)
    theirs = (old.version, old.onnx_sha256, old.options)
    same = theirs == (version, request.onnx_sha256, request.options)
    return same, f"{old.plan} was built with TensorRT for RTX {old.version}" + ("" if same else ", or other options")


def _same_place(bundle: Bundle, backend: str, targets: tuple[str, ...]) -> EngineEntry | None:
    entries = [e for e in bundle.manifest.engines if (e.backend, e.targets) == (backend, targets)]
    return max(entries, key=lambda entry: entry.plan == PLAN, default=None)


def _place(bundle: Bundle, request: BuildRequest, old: EngineEntry | None, version: str) -> str:
    """``engine.plan`` for the first plan of a bundle and what replaces it, a folder for every further one."""
    if (old is not None and old.plan == PLAN) or not (bundle.root / PLAN).exists():
        return PLAN
    return f"{plan_folder(request.backend, version, request.targets)}/{PLAN}"


def _parsable(request: BuildRequest, workshop: Path, emit: Callable[[Event], None]) -> BuildRequest:
    """``request`` with a lowered copy of the graph, where TensorRT is too old to read the graph itself."""
    if request.backend != TENSORRT or int(_version(TENSORRT).split(".")[0]) >= _FIRST_STRONGLY_TYPED:
        return request
    from .lowering import lower_for_tensorrt_8, needs_lowering

    if not needs_lowering(request.onnx):
        return request
    emit(Event("stage", "lower the graph for TensorRT 8"))
    onnx = workshop / "lowered" / ONNX
    onnx.parent.mkdir()
    further = lower_for_tensorrt_8(request.onnx, onnx)
    return replace(request, onnx=onnx, fp32_islands=(*request.fp32_islands, *further))


def _build(bundle: Bundle, request: BuildRequest, emit: Callable[[Event], None]) -> EngineEntry:
    def report(progress: BuildProgress) -> None:
        emit(Event("stage", f"build plan: {progress.phase}", progress.fraction))

    emit(Event("stage", "build plan"))
    log = request.plan.with_name(FAILED_LOG)
    try:
        return build_plan(request, report)
    except EdgeTurboError as error:
        # The user is to find the log where it is kept, not where it was written.
        error.hint = error.hint and error.hint.replace(str(log), str(bundle.root / FAILED_LOG))
        raise
    finally:
        if log.exists():
            log.replace(bundle.root / FAILED_LOG)


def _checked_on_the_device(bundle: Bundle, entry: EngineEntry, emit: Callable[[Event], None]) -> EngineEntry:
    """The entry with the plan's parity, or with the reason why it could not be run here."""
    plan = bundle.root / entry.plan
    problem = _cannot_run(entry, plan)
    if problem is not None:
        sentence = f"the pictures, against the goldens: {problem} where it was built"
        return replace(entry, unchecked=(*entry.unchecked, sentence))
    emit(Event("stage", "parity on this device"))
    with engine_of_plan(entry.backend, plan, entry.options.get("precision")) as engine:
        parity: GoldenParity | None = check_goldens(bundle, engine)
    if parity is None:
        return replace(entry, unchecked=(*entry.unchecked, "the pictures: the bundle has no goldens"))
    warning = refuse_wrong_pictures(parity, bundle.manifest.model.precision, f"{entry.backend} {entry.version} here")
    if warning:
        emit(Event("warning", warning))
    return replace(entry, parity=parity, checked=(*entry.checked, "its pictures, against the goldens, on this device"))


def _cannot_run(entry: EngineEntry, plan: Path) -> str | None:
    if entry.backend == OPENVINO:
        return None
    return unfit_reason(entry, plan)


@contextmanager
def _workshop(root: Path) -> Iterator[Path]:
    """A folder inside the bundle that is gone afterwards; one that an earlier build left when it was killed, too."""
    folder = root / _WORKSHOP
    owner = folder / "pid"
    if owner.is_file() and _is_alive(owner.read_text(encoding="ascii")):
        raise UsageError(
            f"another turbo-build works on {root}",
            got=f"process {owner.read_text(encoding='ascii')}",
            hint=f"wait for it; if there is none, delete {folder}",
        )
    shutil.rmtree(folder, ignore_errors=True)
    with writing_to(folder):
        folder.mkdir()
        owner.write_text(str(os.getpid()), encoding="ascii")
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _is_alive(pid: str) -> bool:
    try:
        os.kill(int(pid), 0)
    except (ValueError, ProcessLookupError):
        return False
    except PermissionError:
        return True
    return int(pid) != os.getpid()


def _move_in(bundle: Bundle, entry: EngineEntry, workshop: Path, final: Path) -> Bundle:
    """Put plan and log in their place. What they replace leaves the manifest first, so that it is never wrong."""
    replaced = without_plan(bundle, _name(bundle, final))
    with writing_to(final):
        final.parent.mkdir(parents=True, exist_ok=True)
        for name in (BUILD_LOG, entry.plan.rpartition("/")[2]):
            (workshop / name).replace(final.parent / name)
    (bundle.root / FAILED_LOG).unlink(missing_ok=True)
    return replaced


def _name(bundle: Bundle, path: Path) -> str:
    return path.relative_to(bundle.root).as_posix()


def _names(bundle: Bundle, plan: Path) -> tuple[str, ...]:
    return tuple(_name(bundle, path) for path in (plan, plan.with_name(BUILD_LOG), plan.with_name(BUILD_SCRIPT)))
