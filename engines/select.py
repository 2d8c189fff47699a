"""Which backend runs a bundle here, and why: said in one sentence, before anything is loaded."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .bundle import ONNX, PLAN, Bundle
from .errors import BundleError, MissingComponentError, UsageError

if TYPE_CHECKING:
    from .base import Engine
    from .manifest import EngineEntry

AUTO = "auto"
NULL = "null"
ONNXRUNTIME = "onnxruntime"
ONNXRUNTIME_CUDA = "onnxruntime-cuda"
OPENVINO = "openvino"
TENSORRT = "tensorrt"
TENSORRT_RTX = "tensorrt-rtx"

# Their plans run on a GPU; auto prefers them in this order.
GPU_PLANS = (TENSORRT, TENSORRT_RTX)
WANTED = (AUTO, *GPU_PLANS, ONNXRUNTIME_CUDA, OPENVINO, ONNXRUNTIME, NULL)

_CPU_HINT = 'pip install "edgeturbo[cpu]"'


@dataclass(frozen=True)
class Choice:
    """``backend`` runs ``bundle``, from ``plan`` if it has one; ``reason`` says why, in one sentence.

    ``precision`` is what OpenVINO computes in; of every other backend the graph decides, and it is None.
    """

    backend: str
    bundle: Bundle
    plan: Path | None
    reason: str
    precision: str | None = None


def choose(path: Path | str, wanted: str = AUTO, precision: str | None = None) -> Choice:
    """Decide what runs the bundle at ``path``: its folder, its ``generator.onnx`` or one of its plans.

    A file says which backend is meant: a plan is run by what built it or not at all, ``generator.onnx`` by
    onnxruntime or what ``wanted`` names. For a folder, ``auto`` takes the first that can run here of: a plan for
    tensorrt, one for tensorrt-rtx, ONNX Runtime on CUDA, OpenVINO, ONNX Runtime on the CPU; ``reason`` says why not an
    earlier one. Any other ``wanted`` is obeyed. ``precision`` is for openvino alone. Checks paths and sizes; hashes are
    checked by ``open_engine``.

    Raises UsageError for what cannot be meant, MissingComponentError when a package or driver is not there,
    BundleError for a damaged bundle or a plan of another device or version, InputError for none.
    """
    _refuse_unknown(wanted, precision)
    path = Path(path)
    bundle = Bundle.open(path)
    if wanted == NULL:
        return Choice(NULL, bundle, None, "null engine, as asked: frames come back as they went in")
    if path.is_file() and path.name not in (ONNX, "manifest.json"):
        return _with_named(bundle, path, wanted)
    if path.name == ONNX and wanted in GPU_PLANS:
        raise _contradiction(bundle, path, ONNXRUNTIME, wanted)
    if wanted in GPU_PLANS:
        return _with_plan(bundle, _best_plan(bundle, wanted), "as asked")
    if wanted == AUTO and path.name != ONNX:
        return _automatic(bundle)
    return _without_gpu_plan(bundle, ONNXRUNTIME if wanted == AUTO else wanted, "as asked", precision)


def open_engine(choice: Choice) -> Engine:
    """The chosen engine, not yet opened, its files verified by SHA-256 (about a second a gigabyte).

    Raises BundleError when a file is missing or was changed.
    """
    bundle = choice.bundle
    if choice.plan is not None:
        plan = bundle.verified(choice.plan.relative_to(bundle.root).as_posix())
        return engine_of_plan(choice.backend, plan, choice.precision)
    if choice.backend == NULL:
        from .null import NullEngine

        return NullEngine(bundle.manifest.inputs, bundle.manifest.outputs)
    if choice.backend == OPENVINO:
        from .openvino import OpenVinoEngine

        return OpenVinoEngine(bundle.onnx(), _openvino_options(choice.precision))
    from .onnxruntime import OnnxRuntimeEngine, OnnxRuntimeOptions

    device = "cuda" if choice.backend == ONNXRUNTIME_CUDA else "cpu"
    fp8 = "fp8" in bundle.manifest.model.precision
    return OnnxRuntimeEngine(bundle.onnx(), options=OnnxRuntimeOptions(device=device, quantised_kernels=not fp8))


def engine_of_plan(backend: str, plan: Path, precision: str | None = None) -> Engine:
    """The engine that runs ``plan``, not yet opened. The file is the caller's to have verified."""
    if backend == TENSORRT:
        from .tensorrt import TensorRtEngine

        return TensorRtEngine(plan)
    if backend == OPENVINO:
        from .openvino import OpenVinoEngine

        return OpenVinoEngine(plan, _openvino_options(precision))
    from .tensorrt_rtx import TensorRtRtxEngine

    return TensorRtRtxEngine(plan)


def plan_problem(bundle: Bundle, entry: EngineEntry) -> str | None:
    """Why the plan cannot run here, in one sentence, or None. Raises BundleError for a plan of another ONNX file."""
    generator = bundle.manifest.files.get(ONNX)
    if generator is not None and entry.onnx_sha256 != generator.sha256:
        raise BundleError(
            f"{bundle.root / entry.plan} was built from another {ONNX} than the one beside it",
            expected=f"sha256 {generator.sha256}",
            got=f"sha256 {entry.onnx_sha256}",
            hint=rebuild_command(bundle, entry.backend),
        )
    plan = bundle.file(entry.plan)
    if entry.backend not in (*GPU_PLANS, OPENVINO):
        return f"no backend {entry.backend} is part of this version"
    return unfit_reason(entry, plan)


def unfit_reason(entry: EngineEntry, plan: Path) -> str | None:
    """Why the file ``plan``, which ``entry`` describes, cannot run here, or None."""
    from .reuse import here, reusable

    problem: str | None = None
    if entry.backend in GPU_PLANS:
        problem = unusable_reason(entry.backend)
    if problem is None:
        fits, reason = reusable(entry, entry.onnx_sha256, here())
        problem = None if fits else reason
    if problem is None and entry.backend in GPU_PLANS:
        problem = _module(entry.backend).plan_problem(plan)
    return problem


def unusable_reason(backend: str) -> str | None:
    """Why no plan at all of a GPU's backend can run here, or None."""
    problem: str | None = _module(backend).unusable_reason()
    return problem


def rebuild_command(bundle: Bundle, backend: str) -> str:
    """What to type for a plan that fits this machine."""
    return f"turbo-build {bundle.root} --engine {backend} --force"


def _module(backend: str) -> Any:
    """The module of a backend whose plans run on a GPU."""
    return import_module(f".{backend.replace('-', '_')}", __package__)


def _refuse_unknown(wanted: str, precision: str | None) -> None:
    if wanted == "pytorch":
        raise UsageError(
            "PyTorch runs a checkpoint, not a bundle",
            expected=", ".join(WANTED),
            got=wanted,
            hint="turbo-run BUNDLE INPUT --engine pytorch --ckpt day2night.pkl",
        )
    if wanted not in WANTED:
        raise UsageError("no such engine", expected=", ".join(WANTED), got=wanted)
    if precision is not None and wanted != OPENVINO:
        raise UsageError(
            "only openvino computes in a precision of your choice; everything else computes in the graph's",
            got=f"precision {precision} for the engine {wanted}",
            hint=f"--engine openvino --precision {precision}",
        )


def _contradiction(bundle: Bundle, path: Path, named: str, wanted: str) -> UsageError:
    return UsageError(
        f"{path} is for {named}, and {wanted} was asked for",
        hint=f"leave the engine out, or name the bundle's folder, {bundle.root}",
    )


def _with_named(bundle: Bundle, path: Path, wanted: str) -> Choice:
    entry = bundle.engine(path)
    if wanted not in (AUTO, entry.backend):
        raise _contradiction(bundle, path, entry.backend, wanted)
    return _with_plan(bundle, entry, "the plan that was named")


def _with_plan(bundle: Bundle, entry: EngineEntry, why: str) -> Choice:
    problem = plan_problem(bundle, entry)
    if problem is not None:
        raise MissingComponentError(
            f"{bundle.root / entry.plan} cannot run here: {problem}",
            hint=f"{rebuild_command(bundle, entry.backend)}, or name the folder, {bundle.root}, for another engine",
        )
    return _planned(bundle, entry, why)


def _planned(bundle: Bundle, entry: EngineEntry, why: str) -> Choice:
    precision = entry.options.get("precision") if entry.backend == OPENVINO else None
    where = f"on the CPU in {precision}" if entry.backend == OPENVINO else "on the GPU"
    reason = f"{entry.backend} {where}, {entry.plan}: {why}"
    return Choice(entry.backend, bundle, bundle.file(entry.plan), reason, precision)


def _automatic(bundle: Bundle) -> Choice:
    whys = []
    for entry in sorted(_plans(bundle, GPU_PLANS), key=lambda e: GPU_PLANS.index(e.backend)):
        problem = plan_problem(bundle, entry)
        if problem is None:
            return _planned(bundle, entry, "it can run here")
        whys.append(f"{entry.plan} ({entry.backend}) cannot run here, {problem}")
    why = "; ".join(whys) or "the bundle has no plan for a GPU"
    if _cuda_problem() is None:
        return _without_gpu_plan(bundle, ONNXRUNTIME_CUDA, why)
    for backend in (OPENVINO, ONNXRUNTIME):
        if find_spec(backend) is not None:
            return _without_gpu_plan(bundle, backend, why)
    raise MissingComponentError(
        f"nothing here can run {bundle.root}",
        got=f"{why}; neither ONNX Runtime nor OpenVINO is installed",
        hint=_CPU_HINT,
    )


def _without_gpu_plan(bundle: Bundle, backend: str, why: str, precision: str | None = None) -> Choice:
    """ONNX Runtime or OpenVINO, which take the ONNX file itself; OpenVINO rather a plan that it made of it."""
    if backend == OPENVINO:
        return _with_openvino(bundle, why, precision)
    if not find_spec("onnxruntime"):
        raise MissingComponentError("ONNX Runtime is not installed", hint=_CPU_HINT)
    if backend == ONNXRUNTIME:
        return Choice(ONNXRUNTIME, bundle, None, f"onnxruntime on the CPU: {why}")
    problem = _cuda_problem()
    if problem is not None:
        raise MissingComponentError(f"ONNX Runtime cannot use CUDA here: {problem}", hint="--engine onnxruntime")
    return Choice(ONNXRUNTIME_CUDA, bundle, None, f"onnxruntime on CUDA: {why}")


def _with_openvino(bundle: Bundle, why: str, precision: str | None) -> Choice:
    if find_spec("openvino") is None:
        raise MissingComponentError("OpenVINO is not installed", hint='pip install "edgeturbo[openvino]"')
    for entry in _plans(bundle, (OPENVINO,)):
        if precision in (None, entry.options.get("precision")) and plan_problem(bundle, entry) is None:
            return _planned(bundle, entry, why)
    from .openvino import DEFAULT_PRECISION

    precision = precision or DEFAULT_PRECISION
    return Choice(OPENVINO, bundle, None, f"openvino on the CPU in {precision}: {why}", precision)


def _best_plan(bundle: Bundle, backend: str) -> EngineEntry:
    """The one that can run here, or else the one to complain about."""
    entries = _plans(bundle, (backend,))
    if not entries:
        raise UsageError(f"{bundle.root} has no {backend} plan", hint=f"turbo-build {bundle.root} --engine {backend}")
    return next((entry for entry in entries if plan_problem(bundle, entry) is None), entries[0])


def _plans(bundle: Bundle, backends: tuple[str, ...]) -> list[EngineEntry]:
    """``engine.plan``, the one for the first target, before those of further targets."""
    entries = [entry for entry in bundle.manifest.engines if entry.backend in backends]
    return sorted(entries, key=lambda entry: entry.plan != PLAN)


def _cuda_problem() -> str | None:
    from .onnxruntime import cuda_problem

    return cuda_problem()


def _openvino_options(precision: str | None) -> Any:
    from .openvino import DEFAULT_PRECISION, OpenVinoOptions

    return OpenVinoOptions(precision=precision or DEFAULT_PRECISION)
