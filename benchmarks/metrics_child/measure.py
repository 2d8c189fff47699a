"""Hands pictures to the child, hears its figures, and keeps a reason for every measure that has none."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...engines._build_process import run
from ...engines.errors import BuildError, DeviceError, UsageError
from ...runtime.image import save_image
from .weights import WEIGHTED, metrics_available

Picture = NDArray[np.uint8]
_CHILD = Path(__file__).with_name("child.py")
_LOG_LINES = 15


@dataclass(frozen=True)
class PictureSets:
    """uint8 ``[H, W, 3]`` RGB pictures: ``reference`` and ``engine`` in step, one or more of each.

    ``inputs``: the frames that both were made from, in step, for the structure distance of the paper. ``target``: real
    pictures of the domain that the model turns frames into, any number, for its FID.
    """

    reference: Sequence[Picture]
    engine: Sequence[Picture]
    inputs: Sequence[Picture] = ()
    target: Sequence[Picture] = ()


@dataclass(frozen=True)
class Figures:
    """One measure: ``series`` has a figure for each frame (Clean-FID: one for the whole set) by pair.

    Pairs are ``reference-engine``, ``input-engine``, ``input-reference``, ``target-engine``, ``target-reference``.
    ``mean`` is over the frames. ``versions``: of the packages that measured.
    """

    title: str
    unit: str
    series: dict[str, tuple[float, ...]]
    mean: dict[str, float]
    versions: dict[str, str]


@dataclass
class Metrics:
    """Every measure of ``WEIGHTED`` is in one of the two: its ``figures``, or the reason why it was ``not_run``."""

    frames: int
    figures: dict[str, Figures] = field(default_factory=dict)
    not_run: dict[str, str] = field(default_factory=dict)

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


# Measure, pictures done, pictures in all.
Report = Callable[[str, int, int], None]


def run_metrics(sets: PictureSets, weights: Path | None, python: Path | None, report: Report | None = None) -> Metrics:
    """Measure with the user's ``weights`` under the interpreter ``python``; what cannot be measured says why.

    Without weights or interpreter nothing is started. The child runs on the CPU, in a process of its own which ends
    with this one's Ctrl-C, and writes nothing but a temporary folder that is removed. Raises UsageError for sets that
    do not fit together and for paths that are not there, DeviceError when the child cannot start, dies, or says
    something that is not its protocol.

    The three measures themselves were never run where this was written: there were no weights and no torchvision.
    """
    _refuse_misfit(sets)
    metrics = Metrics(len(sets.reference))
    metrics.not_run |= {name: reason for name, reason in metrics_available(weights, python).items() if reason}
    tried = [name for name in WEIGHTED if name not in metrics.not_run]
    if not tried or weights is None or python is None:
        return metrics
    with tempfile.TemporaryDirectory(prefix="edgeturbo-metrics-") as name:
        folder = Path(name)
        _write(sets, folder)
        command = [str(python), str(_CHILD), "--weights", str(weights.resolve()), "--pictures", name]
        _converse([*command, "--measures", ",".join(tried)], folder / "log", metrics, report)
    silent = [name for name in tried if name not in metrics.figures and name not in metrics.not_run]
    if silent:
        raise DeviceError(f"the process of the measures said nothing of {', '.join(silent)}")
    return metrics


def _refuse_misfit(sets: PictureSets) -> None:
    counts = {len(sets.reference), len(sets.engine), len(sets.inputs) or len(sets.reference)}
    if len(counts) != 1 or not sets.reference:
        raise UsageError(
            "these sets of pictures do not go together",
            expected="as many of the engine as of the reference, and as many frames, or none",
            got=f"{len(sets.reference)} of the reference, {len(sets.engine)} of the engine, {len(sets.inputs)} frames",
        )


def _write(sets: PictureSets, folder: Path) -> None:
    folders: Mapping[str, Sequence[Picture]] = {
        "reference": sets.reference,
        "engine": sets.engine,
        "input": sets.inputs,
        "target": sets.target,
    }
    for name, pictures in folders.items():
        for index, picture in enumerate(pictures):
            save_image(picture, folder / name / f"{index:06d}.png")


def _converse(command: list[str], log: Path, metrics: Metrics, report: Report | None) -> None:
    listener = _Listener(metrics, report)
    try:
        with log.open("wb") as stream:
            code = run(command, stream, listener.hear)
    except BuildError as error:
        raise DeviceError("cannot start the process of the measures", got=str(error)) from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DeviceError(
            "the process of the measures does not speak our protocol", got=f"{error}\n{_tail(log)}"
        ) from error
    if code != 0 or not listener.done:
        raise DeviceError(f"the process of the measures ended with exit code {code}", got=_tail(log))


class _Listener:
    """Files what the child says; see ``child.py`` for its lines."""

    def __init__(self, metrics: Metrics, report: Report | None) -> None:
        self._metrics, self._tell = metrics, report or (lambda *_: None)
        self.done = False

    def hear(self, line: str) -> None:
        if not line.endswith("\n"):
            return  # the process was killed while it wrote
        message = json.loads(line)
        event = message["event"]
        if event == "progress":
            self._tell(message["measure"], message["done"], message["of"])
        elif event == "measured":
            self._metrics.figures[message["measure"]] = _figures(message)
        elif event == "not_run":
            self._metrics.not_run[message["measure"]] = message["reason"]
        elif event == "done":
            self.done = True
        else:
            raise ValueError(f"unknown event {event!r}")


def _figures(message: dict[str, Any]) -> Figures:
    one = WEIGHTED[message["measure"]]
    series = {pair: tuple(float(figure) for figure in figures) for pair, figures in message["series"].items()}
    mean = {pair: float(np.mean(figures)) for pair, figures in series.items()}
    return Figures(one.title, one.unit, series, mean, message["versions"])


def _tail(log: Path) -> str:
    return "\n".join(log.read_text(encoding="utf-8", errors="replace").splitlines()[-_LOG_LINES:]) or "an empty log"
