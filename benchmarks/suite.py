"""Everything ``turbo-bench`` measures, in order, with what could not be measured and why."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from ..engines.bundle import ONNX, Bundle
from ..engines.errors import EdgeTurboError, UsageError
from ..runtime.translator import Translator
from .apart import call_apart
from .devices import find
from .environment import finished, read_environment
from .feeds import (
    GOLDENS,
    PYTORCH,
    Case,
    cases_of_frames,
    cases_of_goldens,
    digest_of,
    expecting,
    load_frames,
    random_case,
)
from .metrics_child.weights import metrics_available
from .result import BenchResult, MeasuredBundle, Options
from .rivals import own_row, refuse_other_checkpoint
from .roofline import look_up_costs, propose_size
from .row_suite import QUALITY, STREAM, SUITES, RowOptions, Shown, Work, measure_rows
from .rows import RowPlan, Setting, plan_rows
from .sweep import export_sweep, refuse_without_checkpoint
from .throughput import measure_stream

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

Tell = Callable[[str], None]


@dataclass(frozen=True)
class BenchOptions(RowOptions):
    """``suites`` of SUITES and ``against`` of ``rows.AGAINST``; ``frames``: a folder or glob of pictures, or None for
    the bundle's goldens. ``predict``: devices to estimate, as ``devices.find`` takes them. ``auto_size``: a
    device and a rate to propose a size for. The rest is in RowOptions.
    """

    against: tuple[str, ...] = ()
    frames: str | None = None
    stream_rate: float = 30.0
    stream_seconds: float = 10.0
    predict: str | None = None
    auto_size: tuple[str, float] | None = None

    def __post_init__(self) -> None:
        unknown = [name for name in self.suites if name not in SUITES]
        if unknown or not self.suites:
            raise UsageError(
                "--suite names what is not known", expected=", ".join(SUITES), got=", ".join(unknown) or "nothing"
            )


@dataclass
class Bench:
    """One run: ``result`` is the data, ``shown`` the worst frame's pictures by row."""

    result: BenchResult
    shown: dict[str, Shown] = field(default_factory=dict)


def run_bench(setting: Setting, options: BenchOptions, command: str, tell: Tell = lambda _: None) -> Bench:
    """Measure the bundle and what it is held against. Raises UsageError for options that cannot be meant, and what
    opening the bundle raises; a row of another engine that fails is noted in the result and the others go on.
    """
    refuse_without_checkpoint(setting, options.sweep)
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
    proposed = None if options.auto_size is None else propose_size(bundle, options.auto_size)
    missing = dict(not_run or {})
    measures = _measures(options, missing)
    work, reference = _prepared(setting, bundle, options, tell)
    work = replace(work, measures=measures)
    if QUALITY in options.suites and not work.judged:
        missing[QUALITY] = "the bundle has no goldens, and no --ckpt was given: there is nothing to hold pictures to"
    own = _own_pictures(work, missing)
    with _swept(work, plans[0], missing) as further:
        rows, steadiness = measure_rows(work, [*plans, *further], own, environment.busy)
    stream = None
    if STREAM in options.suites:
        with Translator(setting.bundle) as translator:
            stream = measure_stream(translator, rate=options.stream_rate, seconds=options.stream_seconds, tell=tell)
    roofline, predictions = look_up_costs(bundle, plans[0].choice, devices, missing)
    result = BenchResult(
        command, finished(environment), _facts(bundle), _asked(options, work), tuple(rows), reference, steadiness,
        stream, roofline, predictions, missing, proposed,
    )  # fmt: skip
    return Bench(result, work.shown)


@contextmanager
def _swept(work: Work, own: RowPlan, missing: dict[str, str]) -> Iterator[list[RowPlan]]:
    """Rows for further sizes and batches, whose bundles are there as long as the block."""
    with TemporaryDirectory(prefix="edgeturbo-sweep-") as folder:
        found = []
        if work.options.sweep and own.choice is not None:
            found = export_sweep(work.setting, work.options.sweep, own.choice, Path(folder), work.tell)
        missing |= {f"{own.key}{one.label}": one.why for one in found if one.plan is None}
        yield [one.plan for one in found if one.plan is not None]


def _measures(options: BenchOptions, missing: dict[str, str]) -> tuple[str, ...]:
    """The measures with weights that can be tried; why not the others, goes to ``missing``."""
    if QUALITY not in options.suites:
        return ()
    reasons = metrics_available(options.weights.folder, options.weights.python)
    missing |= {name: why.removeprefix("not run: ") for name, why in reasons.items() if why is not None}
    return tuple(name for name, why in reasons.items() if why is None)


def _own_pictures(work: Work, missing: dict[str, str]) -> RowPlan | None:
    """PyTorch's own pictures in the bundle's precision, where there is a checkpoint to make them from."""
    if QUALITY not in work.options.suites or work.setting.ckpt is None:
        return None
    try:
        return own_row(work.setting, work.bundle)
    except EdgeTurboError as error:
        missing["PyTorch's own pictures"] = error.what
        return None


def _asked(options: BenchOptions, work: Work) -> Options:
    frames = [case.frame for case in work.frames]
    rule = f"{options.rule}, {options.rest_s:g} s of rest before each run"
    return Options(options.suites, options.against, len(frames), digest_of(frames), options.warmup, rule)


def _prepared(setting: Setting, bundle: Bundle, options: BenchOptions, tell: Tell) -> tuple[Work, str]:
    """The cases of latency and of quality, and what the latter's expected pictures are."""
    goldens = cases_of_goldens(bundle)
    given = [] if options.frames is None else cases_of_frames(bundle, load_frames(options.frames))
    frames = given or goldens or [random_case(bundle)]
    judged, reference = goldens, GOLDENS if goldens else ""
    if QUALITY not in options.suites:
        judged, reference = [], ""
    elif setting.ckpt is not None:
        tell("reference, PyTorch FP32")
        refuse_other_checkpoint(bundle, setting.ckpt)
        judged, reference = call_apart(_expecting, setting, frames), PYTORCH
    return Work(setting, bundle, options, tuple(frames), tuple(judged), tell, target=_target(options)), reference


def _expecting(setting: Setting, frames: list[Case]) -> list[Case]:
    """In a process of its own: the model in FP32 is the largest thing here, and gone with it."""
    from ..export.oracle import pytorch_engine

    if setting.ckpt is None:
        raise UsageError("the reference needs --ckpt")
    with pytorch_engine(setting.bundle, setting.ckpt, setting.base) as engine:
        return expecting(frames, Bundle.open(setting.bundle), engine)


def _target(options: BenchOptions) -> tuple[NDArray[np.uint8], ...]:
    """Real pictures of the domain that the model turns frames into, for Clean-FID."""
    return () if options.weights.target is None else tuple(load_frames(options.weights.target))


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
