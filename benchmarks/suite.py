"""Everything ``turbo-bench`` measures, in order, with what could not be measured and why."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from ..engines.bundle import ONNX, Bundle
from ..engines.errors import EdgeTurboError, UsageError
from ..runtime.translator import Translator
from .devices import find
from .energy import SECONDS as ENERGY_SECONDS
from .energy import measure_energy
from .environment import finished, read_environment
from .feeds import (
    GOLDENS,
    PYTORCH,
    Case,
    cases_of_frames,
    cases_of_goldens,
    digest_of,
    expecting,
    image_of,
    load_frames,
    random_case,
)
from .latency import StoppingRule, measure_until, ratio
from .memory import measure_memory
from .quality import compare
from .quality_verdict import verdict
from .result import BenchResult, MeasuredBundle, Options, RowResult
from .roofline import look_up_costs
from .rows import RowPlan, Setting, plan_rows, refuse_other_checkpoint
from .stage_clock import clock_stages
from .steadiness import judge
from .throughput import SECONDS as THROUGHPUT_SECONDS
from .throughput import measure_stream, measure_throughput

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from .gpu_check.subject import Subject
    from .steadiness import Steadiness

    Pictures = list[NDArray[np.uint8]]

LATENCY, QUALITY, THROUGHPUT, MEMORY, ENERGY, STREAM = (
    "latency", "quality", "throughput", "memory", "energy", "stream",
)  # fmt: skip
SUITES = (LATENCY, QUALITY, THROUGHPUT, MEMORY, ENERGY, STREAM)
_OWN, _AGAIN, _OTHER = "own", "again", "other"
# By what a row computes in, whose limits its pictures are held to; bf16 has none of its own.
_LIMITS = {"fp32": "fp32", "f32": "fp32", "fp16": "fp16", "f16": "fp16"}
Tell = Callable[[str], None]
_Calls = dict[str, Callable[[], object]]


@dataclass(frozen=True)
class BenchOptions:
    """``suites`` of SUITES and ``against`` of ``rows.AGAINST``; ``frames``: a folder or glob of pictures, or None for
    the bundle's goldens. ``rule`` ends each latency measurement; ``rest_s`` lies
    before every run; seconds are of each energy and throughput figure.
    ``predict``: devices to estimate, as ``devices.find`` takes them.
    """

    suites: tuple[str, ...] = SUITES
    against: tuple[str, ...] = ()
    frames: str | None = None
    rule: StoppingRule = field(default_factory=StoppingRule)
    warmup: int = 3
    rest_s: float = 0.2
    energy_seconds: float = ENERGY_SECONDS
    throughput_seconds: float = THROUGHPUT_SECONDS
    stream_rate: float = 30.0
    stream_seconds: float = 10.0
    predict: str | None = None

    def __post_init__(self) -> None:
        unknown = [name for name in self.suites if name not in SUITES]
        if unknown or not self.suites:
            raise UsageError(
                "--suite names what is not known", expected=", ".join(SUITES), got=", ".join(unknown) or "nothing"
            )


@dataclass(frozen=True)
class Shown:
    """Pictures for the report, all RGB uint8: the frame, what is expected of it, and what the row made of it."""

    frame: NDArray[np.uint8]
    expected: NDArray[np.uint8]
    got: NDArray[np.uint8]


@dataclass
class Bench:
    """One run: ``result`` is the data, ``shown`` the worst frame's pictures by row."""

    result: BenchResult
    shown: dict[str, Shown] = field(default_factory=dict)


@dataclass(frozen=True)
class _Work:
    """What every row is measured on."""

    setting: Setting
    bundle: Bundle
    options: BenchOptions
    frames: tuple[Case, ...]
    judged: tuple[Case, ...]
    tell: Tell


def run_bench(setting: Setting, options: BenchOptions, command: str, tell: Tell = lambda _: None) -> Bench:
    """Measure the bundle and what it is held against. Raises UsageError for options that cannot be meant, and what
    opening the bundle raises; a row of another engine that fails is noted in the result and the others go on.
    """
    plans, not_run = plan_rows(setting, options.against)
    return run_rows(setting, options, plans, command, not_run=not_run, tell=tell)


def run_rows(
    setting: Setting, options: BenchOptions, plans: list[RowPlan], command: str, *,
    not_run: dict[str, str] | None = None, tell: Tell = lambda _: None,
) -> Bench:  # fmt: skip
    """As ``run_bench``, for rows that are planned already; the first is the bundle's own and stays open throughout."""
    environment = read_environment()
    devices = find(options.predict) if options.predict else ()  # a name that nobody knows is said before the work
    bundle = Bundle.open(setting.bundle)
    work, reference = _prepared(setting, bundle, options, tell)
    missing = dict(not_run or {})
    if QUALITY in options.suites and not work.judged:
        missing[QUALITY] = "the bundle has no goldens, and no --ckpt was given: there is nothing to hold pictures to"
    shown: dict[str, Shown] = {}
    rows, steadiness = _rows(work, plans, shown, environment.busy)
    stream = None
    if STREAM in options.suites:
        with Translator(setting.bundle) as translator:
            stream = measure_stream(translator, rate=options.stream_rate, seconds=options.stream_seconds, tell=tell)
    roofline, predictions = look_up_costs(bundle, plans[0].choice, devices, missing)
    frames = [case.frame for case in work.frames]
    asked = Options(
        options.suites,
        options.against,
        len(frames),
        digest_of(frames),
        options.warmup,
        f"{options.rule}, {options.rest_s:g} s of rest before each run",
    )
    result = BenchResult(
        command, finished(environment), _facts(bundle), asked, tuple(rows), reference, steadiness, stream, roofline,
        predictions, missing,
    )  # fmt: skip
    return Bench(result, shown)


def _prepared(setting: Setting, bundle: Bundle, options: BenchOptions, tell: Tell) -> tuple[_Work, str]:
    """The cases of latency and of quality, and what the latter's expected pictures are."""
    goldens = cases_of_goldens(bundle)
    given = [] if options.frames is None else cases_of_frames(bundle, load_frames(options.frames))
    frames = given or goldens or [random_case(bundle)]
    judged, reference = goldens, GOLDENS if goldens else ""
    if QUALITY not in options.suites:
        judged, reference = [], ""
    elif setting.ckpt is not None:
        from ..export.oracle import pytorch_engine

        tell("reference, PyTorch FP32")
        refuse_other_checkpoint(bundle, setting.ckpt)
        with pytorch_engine(setting.bundle, setting.ckpt, setting.base) as engine:
            judged, reference = expecting(frames, bundle, engine), PYTORCH
    return _Work(setting, bundle, options, tuple(frames), tuple(judged), tell), reference


def _rows(
    work: _Work, plans: list[RowPlan], shown: dict[str, Shown], busy: str | None
) -> tuple[list[RowResult], Steadiness | None]:
    own, *others = plans
    work.tell(f"opening, {own.key}")
    with own.open(work.frames[0].feeds) as subject:
        first, steadiness = _own_latency(work, subject, own, busy)
        rows = [_completed(work, own, subject, first, shown)]
        for plan in others:
            work.tell(f"opening, {plan.key}")
            rows.append(_other_row(work, plan, subject, shown))
    return [_with_memory(work, plan, row) for plan, row in zip(plans, rows, strict=True)], steadiness


def _other_row(work: _Work, plan: RowPlan, own: Subject, shown: dict[str, Shown]) -> RowResult:
    try:
        with plan.open(work.frames[0].feeds) as subject:
            row = _blank(subject, plan)
            if LATENCY in work.options.suites:
                row = _beside(work, row, subject, own)
            return _completed(work, plan, subject, row, shown)
    except (EdgeTurboError, RuntimeError, MemoryError) as error:
        # A peer that fails is a finding about the peer; our own row's errors end the run.
        why = error.what if isinstance(error, EdgeTurboError) else f"{type(error).__name__}: {error}"
        return RowResult(plan.key, plan.role, plan.key.partition("/")[0], "", "", not_run={"row": why})


def _blank(subject: Subject, plan: RowPlan) -> RowResult:
    return RowResult(
        subject.name, plan.role, subject.backend, subject.precision, subject.engine_clock, facts=subject.facts
    )


def _own_latency(work: _Work, subject: Subject, plan: RowPlan, busy: str | None) -> tuple[RowResult, Steadiness | None]:
    """The bundle's own latency, measured twice in the same rounds: where the two differ, the machine does."""
    row = _blank(subject, plan)
    if LATENCY not in work.options.suites:
        return row, None
    work.tell(f"latency, {plan.key}")
    calls: _Calls = {_OWN: subject.once, "frame": partial(_translate, work, subject), _AGAIN: subject.once}
    found = measure_until(calls, work.options.rule, warmup=work.options.warmup, rest_s=work.options.rest_s)
    timed = found.latencies
    steadiness = judge(timed[_OWN], timed[_AGAIN], busy)
    return replace(row, engine=timed[_OWN], frame=timed["frame"], stopped=found.stopped), steadiness


def _beside(work: _Work, row: RowResult, subject: Subject, own: Subject) -> RowResult:
    """Another row's latency in turns with the bundle's own, and how many times as long it takes."""
    work.tell(f"latency, {row.name}")
    calls: _Calls = {
        _OTHER: subject.once, _OWN: own.once,
        "frame": partial(_translate, work, subject), "own_frame": partial(_translate, work, own),
    }  # fmt: skip
    found = measure_until(calls, work.options.rule, warmup=work.options.warmup, rest_s=work.options.rest_s)
    timed = found.latencies
    return replace(
        row, engine=timed[_OTHER], frame=timed["frame"], stopped=found.stopped,
        ratio=ratio(timed[_OTHER], timed[_OWN]),
        own_ms=timed[_OWN].p50_ms, frame_ratio=ratio(timed["frame"], timed["own_frame"]),
    )  # fmt: skip


def _translate(work: _Work, subject: Subject) -> None:
    # Never closed here: that would close the subject's engine.
    translator = Translator(work.bundle.root, engine=subject.engine)
    translator.translate_each([work.frames[0].frame] * work.bundle.manifest.model.batch)


def _completed(work: _Work, plan: RowPlan, subject: Subject, row: RowResult, shown: dict[str, Shown]) -> RowResult:
    """``row`` with every further suite that runs on an open engine."""
    suites = work.options.suites
    not_run = dict(row.not_run)
    if LATENCY in suites:
        row = replace(row, stages=clock_stages(work.bundle, subject.engine, work.frames[0].frame))
    if QUALITY in suites and work.judged:
        row = _with_quality(work, subject, row, shown)
    if ENERGY in suites:
        work.tell(f"energy, {row.name}")
        energy = measure_energy(subject.once, work.bundle.manifest.model.batch, seconds=work.options.energy_seconds)
        if isinstance(energy, str):
            not_run[ENERGY] = energy
        else:
            row = replace(row, energy=energy)
    if THROUGHPUT in suites:
        row, why = _with_throughput(work, plan, row)
        not_run |= why
    return replace(row, not_run=not_run)


def _with_throughput(work: _Work, plan: RowPlan, row: RowResult) -> tuple[RowResult, dict[str, str]]:
    if plan.choice is None:
        return row, {THROUGHPUT: "several streams are measured for engines of the bundle, not for a checkpoint's"}
    work.tell(f"throughput, {row.name}")
    figures = measure_throughput(plan.choice, work.frames[0].feeds, seconds=work.options.throughput_seconds)
    return replace(row, throughput=figures), {}


def _with_quality(work: _Work, subject: Subject, row: RowResult, shown: dict[str, Shown]) -> RowResult:
    work.tell(f"quality, {row.name}")
    got = [image_of(work.bundle, subject.engine, case) for case in work.judged]
    told = [case for case in work.judged if case.expected is not None]
    pairs = [(case.expected, image) for case, image in zip(work.judged, got, strict=True) if case.expected is not None]
    quality = compare(pairs)
    worst = quality.worst_frame
    shown[row.name] = Shown(told[worst].frame, *pairs[worst])
    limits = _LIMITS.get(row.precision)
    return replace(row, quality=quality, verdict=tuple(verdict(quality, limits)) if limits else ())


def _with_memory(work: _Work, plan: RowPlan, row: RowResult) -> RowResult:
    """Every engine is closed by now: the child process has the machine's memory for itself."""
    if MEMORY not in work.options.suites or "row" in row.not_run:
        return row
    work.tell(f"memory, {row.name}")
    try:
        return replace(row, memory=measure_memory(work.setting, plan.key))
    except EdgeTurboError as error:
        return replace(row, not_run={**row.not_run, MEMORY: error.what})


def _facts(bundle: Bundle) -> MeasuredBundle:
    manifest = bundle.manifest
    model, sizes = manifest.model, {name: entry.bytes for name, entry in manifest.files.items()}
    weighed = {name: size for name, size in sizes.items() if name.endswith((".onnx", ".data", ".plan"))}
    return MeasuredBundle(
        _name(bundle.root), model.family, model.direction, model.precision, model.width, model.height, model.batch,
        manifest.files[ONNX].sha256, {**weighed, "bundle": sum(sizes.values())},
        manifest.parity.bf16_psnr_db if manifest.parity else None,
    )  # fmt: skip


def _name(root: Path) -> str:
    return root.resolve().name
