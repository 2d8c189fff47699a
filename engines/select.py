"""Which backend runs a bundle here, and why: said in one sentence, before anything is loaded."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from .bundle import ONNX, PLAN, Bundle
from .errors import BundleError, MissingComponentError, UsageError

if TYPE_CHECKING:
    from .base import Engine
    from .manifest import EngineEntry

AUTO = "auto"
NULL = "null"
ONNXRUNTIME = "onnxruntime"
TENSORRT_RTX = "tensorrt-rtx"
WANTED = (AUTO, ONNXRUNTIME, TENSORRT_RTX, NULL)

_CPU_HINT = 'pip install "edgeturbo[cpu]"'


@dataclass(frozen=True)
class Choice:
    """``backend`` runs ``bundle``, from ``plan`` if it is one that has plans; ``reason`` says why, in one sentence."""

    backend: str
    bundle: Bundle
    plan: Path | None
    reason: str


def choose(path: Path | str, wanted: str = AUTO) -> Choice:
    """Decide what runs the bundle at ``path``: its folder, its ``generator.onnx`` or one of its plans.

    A file says which backend is meant: a plan is run by what built it or not at all, ``generator.onnx`` by
    onnxruntime. For a folder, ``auto`` takes a plan that can run here and else onnxruntime, and ``reason`` says so;
    any other ``wanted`` is obeyed. Checks paths and sizes; hashes are checked by ``open_engine``.

    Raises UsageError for a ``wanted`` that cannot be meant, MissingComponentError when a package or driver is not
    there, BundleError for a damaged bundle, InputError for none.
    """
    _refuse_unknown(wanted)
    path = Path(path)
    bundle = Bundle.open(path)
    named = _named(bundle, path)
    if wanted == NULL:
        return Choice(NULL, bundle, None, "null engine, as asked: frames come back as they went in")
    if named is not None and wanted not in (AUTO, named):
        raise UsageError(
            f"{path} is for {named}, and {wanted} was asked for",
            hint=f"leave the engine out, or name the bundle's folder, {bundle.root}",
        )
    if path.suffix == ".plan":
        return _with_plan(bundle, bundle.engine(path), "the plan that was named")
    if ONNXRUNTIME in (named, wanted):
        return _with_onnxruntime(bundle, "as asked")
    if wanted == TENSORRT_RTX:
        return _with_plan(bundle, _plan_of(bundle), "as asked")
    return _automatic(bundle)


def open_engine(choice: Choice) -> Engine:
    """The chosen engine, not yet opened, its files verified by SHA-256 (about a second a gigabyte).

    Raises BundleError when a file is missing or was changed.
    """
    if choice.backend == TENSORRT_RTX and choice.plan is not None:
        from .tensorrt_rtx import TensorRtRtxEngine

        return TensorRtRtxEngine(choice.bundle.verified(choice.plan.relative_to(choice.bundle.root).as_posix()))
    if choice.backend == NULL:
        from .null import NullEngine

        return NullEngine(choice.bundle.manifest.inputs, choice.bundle.manifest.outputs)
    from .onnxruntime import OnnxRuntimeEngine

    return OnnxRuntimeEngine(choice.bundle.onnx())


def _refuse_unknown(wanted: str) -> None:
    if wanted == "tensorrt":
        raise MissingComponentError(
            "the tensorrt backend is not part of this version", expected=", ".join(WANTED), got=wanted
        )
    if wanted == "pytorch":
        raise UsageError(
            "PyTorch runs a checkpoint, not a bundle",
            expected=", ".join(WANTED),
            got=wanted,
            hint="turbo-run BUNDLE INPUT --engine pytorch --ckpt day2night.pkl",
        )
    if wanted not in WANTED:
        raise UsageError("no such engine", expected=", ".join(WANTED), got=wanted)


def _named(bundle: Bundle, path: Path) -> str | None:
    """The backend that naming a file asks for; None for a folder, which leaves the choice open."""
    if path.suffix == ".plan":
        return bundle.engine(path).backend
    return ONNXRUNTIME if path.name == ONNX else None


def _with_onnxruntime(bundle: Bundle, why: str) -> Choice:
    if not _has_onnxruntime():
        raise MissingComponentError("ONNX Runtime is not installed", hint=_CPU_HINT)
    return Choice(ONNXRUNTIME, bundle, None, f"onnxruntime on the CPU: {why}")


def _with_plan(bundle: Bundle, entry: EngineEntry, why: str) -> Choice:
    if entry.backend != TENSORRT_RTX:
        raise MissingComponentError(
            f"{bundle.root / entry.plan} is a plan for {entry.backend}, which is not part of this version",
            expected=TENSORRT_RTX,
            got=entry.backend,
            hint=f"name the bundle's folder, {bundle.root}, to run it with another engine",
        )
    problem = _problem_with(bundle, entry)
    if problem is not None:
        raise MissingComponentError(
            f"{bundle.root / entry.plan} cannot run here: {problem}",
            hint=f"name the bundle's folder, {bundle.root}, to run it with another engine",
        )
    return Choice(TENSORRT_RTX, bundle, bundle.file(entry.plan), f"tensorrt-rtx on the GPU, {entry.plan}: {why}")


def _automatic(bundle: Bundle) -> Choice:
    entry = _first_plan(bundle)
    if entry is None:
        why = "the bundle has no tensorrt-rtx plan"
    else:
        problem = _problem_with(bundle, entry) or _unfit_reason(bundle.file(entry.plan))
        if problem is None:
            return _with_plan(bundle, entry, "it can run here")
        why = f"tensorrt-rtx plan not usable here, {problem}"
    if not _has_onnxruntime():
        raise MissingComponentError(
            f"nothing here can run {bundle.root}", got=f"{why}; ONNX Runtime is not installed", hint=_CPU_HINT
        )
    return _with_onnxruntime(bundle, why)


def _plan_of(bundle: Bundle) -> EngineEntry:
    entry = _first_plan(bundle)
    if entry is None:
        raise UsageError(f"{bundle.root} has no tensorrt-rtx plan", hint=f"turbo-inspect {bundle.root}")
    return entry


def _first_plan(bundle: Bundle) -> EngineEntry | None:
    """``engine.plan``, the one for the first target, before those of further targets."""
    plans = [entry for entry in bundle.manifest.engines if entry.backend == TENSORRT_RTX]
    return min(plans, key=lambda entry: entry.plan != PLAN, default=None)


def _problem_with(bundle: Bundle, entry: EngineEntry) -> str | None:
    from .tensorrt_rtx import unusable_reason

    generator = bundle.manifest.files.get(ONNX)
    if generator is not None and entry.onnx_sha256 != generator.sha256:
        raise BundleError(
            f"{bundle.root / entry.plan} was built from another {ONNX} than the one beside it",
            expected=f"sha256 {generator.sha256}",
            got=f"sha256 {entry.onnx_sha256}",
            hint="build the plan again",
        )
    return unusable_reason()


def _unfit_reason(plan: Path) -> str | None:
    from .tensorrt_rtx import plan_problem

    return plan_problem(plan)


def _has_onnxruntime() -> bool:
    return find_spec("onnxruntime") is not None
