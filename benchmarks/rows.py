"""What a bundle can be measured against here, each opened in one way: an engine, and a call that runs it alone."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ..engines.bundle import Bundle
from ..engines.errors import EdgeTurboError, MissingComponentError, UsageError
from ..engines.select import GPU_PLANS, ONNXRUNTIME_CUDA, choose, open_engine
from ..export.base import DEFAULT_BASE
from .gpu_check.subject import HOST_CLOCK, RESIDENT_CLOCK, Subject
from .result import FAIR, OWN, PEER, PUBLISHED, SUBJECT

if TYPE_CHECKING:
    from ..engines.base import Engine, Tensors
    from ..engines.select import Choice

AGAINST = ("pytorch", "pytorch-compile", "onnxruntime", "openvino", "tensorrt", "three-engines")
_NEED_CHECKPOINT = ("pytorch", "pytorch-compile", "three-engines")


@dataclass(frozen=True)
class Setting:
    """``bundle``: a bundle's folder, or a plan or ONNX file in it. ``ckpt`` and ``base`` are what it was made from."""

    bundle: Path
    ckpt: Path | None = None
    base: str = DEFAULT_BASE


@dataclass(frozen=True)
class RowPlan:
    """A row not yet opened. ``key`` names it on a command line; ``open(feeds)`` loads it, and closes it at the end.

    ``choice`` is what opens further engines of the same kind; None for rows that run a checkpoint. ``setting`` is where
    ``plan_row`` finds it again, in a process of its own; a row without one runs in ours. ``label`` follows its name.
    """

    key: str
    role: str
    open: Callable[[Tensors], AbstractContextManager[Subject]]
    choice: Choice | None = None
    setting: Setting | None = None
    label: str = ""


def plan_rows(setting: Setting, against: tuple[str, ...]) -> tuple[list[RowPlan], dict[str, str]]:
    """The bundle's own row, then one or more for each name of ``against``; and the names that cannot run, with why.

    Raises UsageError for an unknown name and for rows that need the checkpoint where none was given.
    """
    _refuse_unknown(setting, against)
    bundle = Bundle.open(setting.bundle)
    choice = choose(setting.bundle)
    rows = [RowPlan("bundle", SUBJECT, partial(_bundle_row, choice), choice)]
    not_run: dict[str, str] = {}
    for name in against:
        try:
            rows += _rows_of(name, setting, bundle, choice)
        except EdgeTurboError as error:
            not_run[name] = error.what
    return [replace(row, setting=setting) for row in rows], not_run


def plan_row(setting: Setting, key: str) -> RowPlan:
    """The row that ``plan_rows`` calls ``key``: for a child process. Raises UsageError when there is none."""
    if key == OWN:
        from .rivals import own_row

        return own_row(setting, Bundle.open(setting.bundle))
    rows, not_run = plan_rows(setting, () if key == "bundle" else (key.partition("/")[0],))
    for row in rows:
        if row.key == key:
            return row
    raise UsageError(f"no row {key} here", got="; ".join(not_run.values()) or None)


def _refuse_unknown(setting: Setting, against: tuple[str, ...]) -> None:
    unknown = [name for name in against if name not in AGAINST]
    if unknown:
        raise UsageError("--against names what is not known", expected=", ".join(AGAINST), got=", ".join(unknown))
    needing = [name for name in against if name in _NEED_CHECKPOINT]
    if needing and setting.ckpt is None:
        raise UsageError(
            f"{', '.join(needing)}: a bundle holds no checkpoint, and these rows run the checkpoint itself",
            expected="--ckpt and --base, from which the bundle was made",
            hint=f"turbo-bench {setting.bundle} --against {','.join(against)} --ckpt day2night.pkl "
            f"--base {setting.base}",
        )


def _rows_of(name: str, setting: Setting, bundle: Bundle, choice: Choice) -> list[RowPlan]:
    if name in _NEED_CHECKPOINT:
        return _checkpoint_rows(name, setting, bundle, choice)
    wanted = ONNXRUNTIME_CUDA if name == "onnxruntime" and is_on_gpu(choice) else name
    peer = choose(bundle.root, wanted)
    if (peer.backend, peer.plan) == (choice.backend, choice.plan):
        raise UsageError(f"{name} is what runs the bundle itself: it is the first row")
    return [RowPlan(name, PEER, partial(_engine_row, peer, peer.reason.partition(":")[0]), peer)]


def is_on_gpu(choice: Choice) -> bool:
    return choice.backend in (*GPU_PLANS, ONNXRUNTIME_CUDA)


def _bundle_row(choice: Choice, feeds: Tensors) -> AbstractContextManager[Subject]:
    return _engine_row(choice, f"edgeturbo, {choice.reason.partition(':')[0]}", feeds)


@contextmanager
def _engine_row(choice: Choice, name: str, feeds: Tensors) -> Iterator[Subject]:
    precision = choice.precision or choice.bundle.manifest.model.precision
    with open_engine(choice) as engine:
        yield engine_subject(name, precision, engine, feeds)


def engine_subject(name: str, precision: str, engine: Engine, feeds: Tensors) -> Subject:
    """An open engine with the call that runs it alone: a plan on tensors that lie on the GPU, others on the host's."""
    if engine.backend in GPU_PLANS:
        engine.run(feeds)  # leaves them in the plan's own buffers
        resident = engine.device_inputs  # type: ignore[attr-defined]
        facts = {key: str(value) for key, value in vars(engine.facts).items() if value is not None}  # type: ignore[attr-defined]
        return Subject(
            name, engine.backend, precision, engine, lambda: engine.run_device(resident), RESIDENT_CLOCK, facts
        )
    out = {spec.name: np.empty(spec.shape, spec.dtype) for spec in engine.outputs}
    return Subject(name, engine.backend, precision, engine, lambda: engine.run(feeds, out), HOST_CLOCK)


def _checkpoint_rows(name: str, setting: Setting, bundle: Bundle, choice: Choice) -> list[RowPlan]:
    refuse_unfit(bundle, name)
    from .rivals import Rival

    rival = Rival(setting, bundle, "cuda" if is_on_gpu(choice) else "cpu")
    if name == "three-engines":
        return [RowPlan(name, PEER, rival.three_engines)]
    if name == "pytorch-compile":
        return [RowPlan(name, PEER, rival.compiled)]
    return [
        RowPlan("pytorch/published", PUBLISHED, rival.live),
        RowPlan("pytorch/fair", FAIR, partial(rival.merged, rival.precision)),
        RowPlan("pytorch/bf16", PEER, partial(rival.merged, "bf16")),
    ]


def refuse_unfit(bundle: Bundle, name: str) -> None:
    manifest = bundle.manifest
    if len(manifest.inputs) > 1 or manifest.frame_layout is not None:
        raise MissingComponentError(
            f"{name} takes one RGB frame at the model's size and nothing else; this bundle takes noise or a camera's "
            "own frames"
        )
    if name == "three-engines" and (manifest.model.batch != 1 or manifest.model.width != manifest.model.height):
        raise MissingComponentError(f"{name} is exported for one square frame; this bundle is not")
