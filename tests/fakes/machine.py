"""A simulated GPU with one version of one library, in place of the real ones while a test runs."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from edgeturbo.engines import cuda, vendor
from edgeturbo.engines._plan_engine import PlanEngine, PlanOptions
from edgeturbo.engines.tensorrt import TensorRtEngine
from edgeturbo.engines.tensorrt_rtx import TensorRtRtxEngine

from .cuda import FakeCuda
from .tensorrt import INPUTS, Behaviour, Library, expected, plan_bytes

APIS = ["8.6", "10.3", "11", "rtx"]
Feeds = dict[str, np.ndarray]


class Machine:
    """A simulated GPU with one version of one library, and a plan for it."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, folder: Path, api: str, seed: int | None = None) -> None:
        self.cuda = FakeCuda(seed)
        self.library = Library(self.cuda, api)
        self.plan = folder / f"{api}.plan"
        self.plan.write_bytes(plan_bytes(api))
        monkeypatch.setitem(sys.modules, "cuda.bindings.runtime", self.cuda.module)
        monkeypatch.setitem(sys.modules, "cuda.core.utils", self.cuda.utils)
        monkeypatch.setitem(sys.modules, self.library.module.__name__, self.library.module)
        monkeypatch.setattr(cuda, "driver_problem", lambda: None)
        # The real library's one logger stays as it is: only these tests see another.
        monkeypatch.setattr(vendor, "_logger", functools.cache(vendor._logger.__wrapped__))

    @property
    def behaviour(self) -> Behaviour:
        return self.library.behaviour

    def engine(self, **options: object) -> PlanEngine:
        kind = TensorRtRtxEngine if self.library.api == "rtx" else TensorRtEngine
        return kind(self.plan, PlanOptions(**options))  # type: ignore[arg-type]

    def write_plan(self, **content: object) -> None:
        self.plan.write_bytes(plan_bytes(self.library.api, **content))

    def left(self) -> dict[str, int]:
        """What was not given back."""
        alive = [type(thing).__name__ for thing in self.behaviour.alive]
        return {**self.cuda.counts(), **{name: alive.count(name) for name in alive}}


MachineMaker = Callable[..., Machine]


def frames(count: int) -> list[Feeds]:
    """The same frames each time, every one different."""
    random = np.random.default_rng(7)
    return [
        {name: (random.random(shape) * 255).astype(kind) for name, (kind, shape) in INPUTS.items()}
        for _ in range(count)
    ]


def check(results: object, feeds: Feeds) -> None:
    """``results`` are what the plan makes of ``feeds``, to the bit."""
    assert isinstance(results, dict)
    for name, values in expected(feeds).items():
        np.testing.assert_array_equal(results[name], values, strict=True)
