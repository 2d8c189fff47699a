"""What is measured: an opened engine, and a call that runs the network alone."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from ...engines.base import Engine
from ...engines.manifest import FRAME

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ...engines._plan_engine import PlanEngine

HOST_CLOCK = "wall clock around run(), copies from and to host memory included"
RESIDENT_CLOCK = "wall clock from call to completion, tensors already on the device"


@dataclass
class Subject:
    """``once`` runs the network alone and returns when it is done (or what SelfTimed says); ``engine`` is open.

    ``facts`` are what the engine tells of itself.
    """

    name: str
    backend: str
    precision: str
    engine: Engine
    once: Callable[[], object]
    engine_clock: str = HOST_CLOCK
    facts: dict[str, str] = field(default_factory=dict)


@contextmanager
def engine_subject(name: str, precision: str, engine: Engine, frame: NDArray[np.uint8]) -> Iterator[Subject]:
    """``engine``, opened and closed here, timed around ``run``. ``frame``: uint8 [H, W, 3] at the model's size."""
    with engine:
        feeds = {FRAME: frame[None]}
        out = {spec.name: np.empty(spec.shape, spec.dtype) for spec in engine.outputs}
        yield Subject(name, engine.backend, precision, engine, lambda: engine.run(feeds, out))


@contextmanager
def plan_subject(name: str, engine: PlanEngine, frame: NDArray[np.uint8]) -> Iterator[Subject]:
    """A plan, opened and closed here, timed on the frame that lies in its own input buffer on the GPU."""
    with engine:
        engine.run({FRAME: frame[None]})  # leaves the frame in the buffer
        resident = engine.device_inputs
        facts = {key: str(value) for key, value in asdict(engine.facts).items() if value is not None}
        yield Subject(name, engine.backend, "fp16", engine, lambda: engine.run_device(resident), RESIDENT_CLOCK, facts)
