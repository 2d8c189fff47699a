"""What is measured of one row after the other, in turns with the bundle's own, which stays open throughout."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from ..engines.bundle import Bundle
from ..engines.errors import EdgeTurboError
from .apart import run_apart
from .energy import SECONDS as ENERGY_SECONDS
from .feeds import Case, cases_of_frames
from .latency import Latency, StoppingRule, measure_until, ratio
from .memory import measure_memory
from .metrics_child.measure import PictureSets, run_metrics
from .quality import Quality, compare
from .quality_verdict import lost_db, verdict
from .result import OWN, SWEEP, RowResult, Shape
from .runner import run_here
from .steadiness import judge
from .sweep import Sweep
from .throughput import SECONDS as THROUGHPUT_SECONDS

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from ..engines.manifest import Parity
    from .rows import RowPlan, Setting
    from .runner import Pictures, Runner
    from .steadiness import Steadiness

LATENCY, QUALITY, THROUGHPUT, MEMORY, ENERGY, STREAM = (
    "latency", "quality", "throughput", "memory", "energy", "stream",
)  # fmt: skip
SUITES = (LATENCY, QUALITY, THROUGHPUT, MEMORY, ENERGY, STREAM)
# By what a row computes in, whose limits its pictures are held to; bf16 has none of its own.
_LIMITS = {"fp32": "fp32", "f32": "fp32", "fp16": "fp16", "f16": "fp16"}
Tell = Callable[[str], None]


@dataclass(frozen=True)
class Weights:
    """For the measures that need weights: their ``folder``, the ``python`` that has ``edgeturbo[metrics]``, and real
    pictures of the ``target`` domain; None, each, where the user has none.
    """

    folder: Path | None = None
    python: Path | None = None
    target: str | None = None


@dataclass(frozen=True)
class RowOptions:
    """``rule`` ends each latency measurement; ``rest_s`` lies before every run; seconds are of each energy and
    throughput figure.
    """

    suites: tuple[str, ...] = SUITES
    rule: StoppingRule = field(default_factory=StoppingRule)
    warmup: int = 3
    rest_s: float = 0.05
    energy_seconds: float = ENERGY_SECONDS
    throughput_seconds: float = THROUGHPUT_SECONDS
    sweep: Sweep = field(default_factory=Sweep)
    weights: Weights = field(default_factory=Weights)


@dataclass(frozen=True)
class Shown:
    """Pictures for the report, all RGB uint8: the frame, what is expected of it, and what the row made of it."""

    frame: NDArray[np.uint8]
    expected: NDArray[np.uint8]
    got: NDArray[np.uint8]


@dataclass(frozen=True)
class Work:
    """What every row is measured on: ``frames``, and for their pictures ``judged``, which have what is expected.

    ``measures``: those with weights that can be tried, for pictures of the ``target`` domain. ``shown`` is filled.
    """

    setting: Setting
    bundle: Bundle
    options: RowOptions
    frames: tuple[Case, ...]
    judged: tuple[Case, ...]
    tell: Tell
    measures: tuple[str, ...] = ()
    target: tuple[NDArray[np.uint8], ...] = ()
    shown: dict[str, Shown] = field(default_factory=dict)


def measure_rows(
    work: Work, plans: list[RowPlan], own: RowPlan | None, busy: str | None
) -> tuple[list[RowResult], Steadiness | None]:
    """A result for each of ``plans``, the bundle's own first; ``own``, PyTorch's own pictures, stands after it.

    A row of another engine that fails is a finding about that engine, with its reason; the bundle's own raises.
    """
    judge_row = None if own is None else _pictures_only(work, own)
    quality = None if judge_row is None else judge_row.quality
    first, *others = plans
    work.tell(f"opening, {first.key}")
    with _opened(work, first) as runner:
        row, steadiness = _own_latency(work, runner, first, busy)
        rows = [_completed(work, first, runner, row)]
        for plan in others:
            work.tell(f"opening, {plan.key}{plan.label}")
            rows.append(_other_row(work, plan, runner))
    rows = [_with_memory(work, plan, row) for plan, row in zip(plans, rows, strict=True)]
    rows = [_judged(row, quality, judge_row) for row in rows]
    return [rows[0], *([] if judge_row is None else [judge_row]), *rows[1:]], steadiness


def bundle_of(work: Work, plan: RowPlan) -> Bundle:
    """The bundle that ``plan`` runs: a sweep's is one of its own."""
    return Bundle.open(plan.setting.bundle) if plan.role == SWEEP and plan.setting is not None else work.bundle


def _opened(work: Work, plan: RowPlan) -> AbstractContextManager[Runner]:
    case = work.frames[0]
    bundle = bundle_of(work, plan)
    if plan.role == SWEEP:
        case = cases_of_frames(bundle, [case.frame])[0]
    return run_here(plan, bundle, case) if plan.setting is None else run_apart(plan.setting, plan, case)


def _other_row(work: Work, plan: RowPlan, own: Runner) -> RowResult:
    def measured() -> RowResult:
        with _opened(work, plan) as runner:
            row = _blank(work, runner, plan)
            if LATENCY in work.options.suites:
                row = _beside(work, row, runner, own)
            return _completed(work, plan, runner, row)

    return _or_reason(plan, measured)


def _pictures_only(work: Work, plan: RowPlan) -> RowResult:
    """PyTorch's own pictures: no times, and open only as long as it takes."""

    def measured() -> RowResult:
        with _opened(work, plan) as runner:
            return _with_quality(work, runner, _blank(work, runner, plan))

    work.tell(f"quality, {plan.key}")
    return _or_reason(plan, measured)


def _or_reason(plan: RowPlan, measured: Callable[[], RowResult]) -> RowResult:
    """What ``measured`` returns, or a row with the reason why it failed."""
    try:
        return measured()
    except (EdgeTurboError, RuntimeError, MemoryError) as error:
        why = error.what if isinstance(error, EdgeTurboError) else f"{type(error).__name__}: {error}"
        backend = plan.key.partition("/")[0]
        return RowResult(plan.key + plan.label, plan.role, backend, "", "", not_run={"row": why})


def _blank(work: Work, runner: Runner, plan: RowPlan) -> RowResult:
    about = runner.about
    row = RowResult(about.name, plan.role, about.backend, about.precision, about.clock, facts=about.facts)
    if plan.role != SWEEP:
        return row
    manifest = bundle_of(work, plan).manifest
    shape = Shape(manifest.model.width, manifest.model.height, manifest.model.batch)
    return replace(row, shape=shape, facts={**row.facts, "parity": _parity(manifest.parity)})


def _parity(found: Parity | None) -> str:
    if found is None:
        return "not checked"
    psnr = "equal pictures" if found.psnr_db is None else f"PSNR {found.psnr_db:.1f} dB"
    return f"{psnr}, SSIM {found.ssim:.4f} against PyTorch FP32 over {found.frames} frame(s), at the export"


def _own_latency(work: Work, runner: Runner, plan: RowPlan, busy: str | None) -> tuple[RowResult, Steadiness | None]:
    """The bundle's own latency, measured twice in the same rounds: where the two differ, the machine does."""
    row = _blank(work, runner, plan)
    if LATENCY not in work.options.suites:
        return row, None
    work.tell(f"latency, {plan.key}")
    timed, stopped = _timed(work, {"own": runner.once, "frame": runner.frame, "again": runner.once})
    steadiness = judge(timed["own"], timed["again"], busy)
    return replace(row, engine=timed["own"], frame=timed["frame"], stopped=stopped), steadiness


def _beside(work: Work, row: RowResult, runner: Runner, own: Runner) -> RowResult:
    """Another row's latency in turns with the bundle's own, and how many times as long it takes."""
    work.tell(f"latency, {row.name}")
    calls = {"other": runner.once, "own": own.once, "frame": runner.frame, "own_frame": own.frame}
    timed, stopped = _timed(work, calls)
    return replace(
        row, engine=timed["other"], frame=timed["frame"], stopped=stopped, ratio=ratio(timed["other"], timed["own"]),
        own_ms=timed["own"].p50_ms, frame_ratio=ratio(timed["frame"], timed["own_frame"]),
    )  # fmt: skip


def _timed(work: Work, calls: dict[str, Callable[[], object]]) -> tuple[dict[str, Latency], str]:
    options = work.options
    found = measure_until(calls, options.rule, warmup=options.warmup, rest_s=options.rest_s)
    return found.latencies, found.stopped


def _completed(work: Work, plan: RowPlan, runner: Runner, row: RowResult) -> RowResult:
    """``row`` with every further suite that runs on an open engine."""
    options, suites = work.options, work.options.suites
    not_run = dict(row.not_run)
    if LATENCY in suites:
        row = replace(row, stages=runner.stages())
    if QUALITY in suites and work.judged and plan.role != SWEEP:
        row = _with_quality(work, runner, row)
        not_run |= row.not_run
    if ENERGY in suites:
        work.tell(f"energy, {row.name}")
        energy = runner.energy(options.energy_seconds)
        if isinstance(energy, str):
            not_run[ENERGY] = energy
        else:
            row = replace(row, energy=energy)
    if THROUGHPUT in suites:
        work.tell(f"throughput, {row.name}")
        figures = runner.throughput(options.throughput_seconds)
        if isinstance(figures, str):
            not_run[THROUGHPUT] = figures
        else:
            row = replace(row, throughput=figures)
    # Asked again: some of it is known only now.
    return replace(row, not_run=not_run, facts={**row.facts, **runner.about.facts})


def _with_quality(work: Work, runner: Runner, row: RowResult) -> RowResult:
    work.tell(f"quality, {row.name}")
    told = [case for case in work.judged if case.expected is not None]
    expected = [case.expected for case in told if case.expected is not None]
    got = runner.images(told)
    quality = compare(zip(expected, got, strict=True))
    worst = quality.worst_frame
    work.shown[row.name] = Shown(told[worst].frame, expected[worst], got[worst])
    return _with_metrics(work, replace(row, quality=quality), told, got)


def _with_metrics(work: Work, row: RowResult, told: list[Case], got: Pictures) -> RowResult:
    """The measures with weights, in a process of their own; what they cannot do here says why."""
    weights = work.options.weights
    if not work.measures:
        return row
    work.tell(f"measures with weights, {row.name}")
    reference = [case.expected for case in told if case.expected is not None]
    sets = PictureSets(reference, got, [case.frame for case in told], work.target)
    try:
        found = run_metrics(sets, weights.folder, weights.python)
    except EdgeTurboError as error:
        return replace(row, not_run={**row.not_run, **dict.fromkeys(work.measures, str(error))})
    not_run = {name: why for name, why in found.not_run.items() if name in work.measures}
    return replace(row, metrics=found.figures, not_run={**row.not_run, **not_run})


def _judged(row: RowResult, own: Quality | None, own_row: RowResult | None) -> RowResult:
    """``row`` with what its pictures show, held also to PyTorch's own in the same precision."""
    limits = _LIMITS.get(row.precision)
    if row.quality is None or row.role == OWN:
        return row
    beside = own if own is not None and own_row is not None and _LIMITS.get(own_row.precision) == limits else None
    said = tuple(verdict(row.quality, limits, beside)) if limits else ()
    return replace(row, verdict=said, lost_db=None if beside is None else lost_db(row.quality, beside))


def _with_memory(work: Work, plan: RowPlan, row: RowResult) -> RowResult:
    """Every engine is closed by now: the child process has the machine's memory for itself."""
    if MEMORY not in work.options.suites or "row" in row.not_run:
        return row
    work.tell(f"memory, {row.name}")
    try:
        return replace(row, memory=measure_memory(plan.setting or work.setting, plan.key))
    except EdgeTurboError as error:
        return replace(row, not_run={**row.not_run, MEMORY: error.what})
