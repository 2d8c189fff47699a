"""An opened row and all that is measured on it alone, whichever process it runs in."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from ..runtime.translator import Translator
from .energy import measure_energy
from .feeds import image_of
from .stage_clock import clock_stages
from .throughput import measure_throughput

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from ..engines.bundle import Bundle
    from .feeds import Case
    from .gpu_check.subject import Subject
    from .result import EnergyFigures, ThroughputFigure
    from .rows import RowPlan

    Pictures = list[NDArray[np.uint8]]

NOT_THE_BUNDLES = "several streams are measured for engines of the bundle, not for a checkpoint's"


@dataclass(frozen=True)
class About:
    """What a row tells of itself once it is open; ``clock`` names what times its engine alone."""

    name: str
    backend: str
    precision: str
    clock: str
    facts: dict[str, str] = field(default_factory=dict)


class Runner(Protocol):
    """An open row. Each method raises what the row's engine raises."""

    @property
    def about(self) -> About: ...

    def once(self) -> object:
        """Run the network alone; returns when it is done, with SelfTimed where that knows better than a clock here."""

    def frame(self) -> object:
        """A batch of RGB frames in memory to RGB images in memory, host work included; returns as ``once`` does."""

    def stages(self) -> dict[str, float]:
        """``clock_stages``."""

    def images(self, cases: Sequence[Case]) -> Pictures:
        """What the engine makes of each case: ``image_of``."""

    def energy(self, seconds: float) -> EnergyFigures | str:
        """``measure_energy``."""

    def throughput(self, seconds: float) -> tuple[ThroughputFigure, ...] | str:
        """``measure_throughput``, or why it says nothing of this row."""


class Here:
    """A Runner in this process, on ``case``."""

    def __init__(self, plan: RowPlan, subject: Subject, bundle: Bundle, case: Case) -> None:
        self._plan, self._subject, self._bundle, self._case = plan, subject, bundle, case
        self.about = About(
            subject.name + plan.label, subject.backend, subject.precision, subject.engine_clock, subject.facts
        )
        # Never closed here: that would close the subject's engine.
        self._translator = Translator(bundle.root, engine=subject.engine)

    def once(self) -> object:
        return self._subject.once()

    def frame(self) -> object:
        return self._translator.translate_each([self._case.frame] * self._batch)

    def stages(self) -> dict[str, float]:
        return clock_stages(self._bundle, self._subject.engine, self._case.frame)

    def images(self, cases: Sequence[Case]) -> Pictures:
        return [image_of(self._bundle, self._subject.engine, case) for case in cases]

    def energy(self, seconds: float) -> EnergyFigures | str:
        return measure_energy(self._subject.once, self._batch, seconds=seconds)

    def throughput(self, seconds: float) -> tuple[ThroughputFigure, ...] | str:
        if self._plan.choice is None:
            return NOT_THE_BUNDLES
        return measure_throughput(self._plan.choice, self._case.feeds, seconds=seconds)

    @property
    def _batch(self) -> int:
        return self._bundle.manifest.model.batch


@contextmanager
def run_here(plan: RowPlan, bundle: Bundle, case: Case) -> Iterator[Runner]:
    """Open ``plan`` in this process; closed at the end."""
    with plan.open(case.feeds) as subject:
        yield Here(plan, subject, bundle, case)
