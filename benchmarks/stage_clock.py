"""Where a picture's time goes: decode, resize, engine, resize back, encode."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from ..engines.base import Engine, TensorSpec
from ..runtime.image import load_frame, save_image
from ..runtime.translator import Translator
from .latency import Latency

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from ..engines.base import Tensors
    from ..engines.bundle import Bundle

DECODE, RESIZE, ENGINE, RESIZE_BACK, ENCODE = "decode", "resize", "engine", "resize back", "encode"
STAGES = (DECODE, RESIZE, ENGINE, RESIZE_BACK, ENCODE)
_RUNS, _WARMUP = 7, 1


class _Clocked(Engine):
    """An open engine of somebody else's, with the times when its last run began and ended."""

    backend = "clocked"

    def __init__(self, engine: Engine, clock: Callable[[], float]) -> None:
        super().__init__()
        self._engine, self._clock = engine, clock
        self.began = self.ended = 0.0

    @property
    def inputs(self) -> tuple[TensorSpec, ...]:
        return self._engine.inputs

    @property
    def outputs(self) -> tuple[TensorSpec, ...]:
        return self._engine.outputs

    def _open(self) -> None:
        pass

    def _close(self) -> None:
        pass

    def _run(self, feeds: Tensors, out: Tensors | None) -> Tensors:
        self.began = self._clock()
        results = self._engine.run(feeds, out)
        self.ended = self._clock()
        return results


def clock_stages(
    bundle: Bundle, engine: Engine, frame: NDArray[np.uint8], *, runs: int = _RUNS,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, float]:  # fmt: skip
    """Median milliseconds of each of ``STAGES`` for one picture file, JPEG in and JPEG out, on an open engine.

    ``resize`` is all the host does to a frame before the engine (edges too where the rule asks for them), and
    ``resize back`` all it does after. On a GPU ``engine`` holds the copies to and from it: they are inside ``run``.
    """
    clocked = _Clocked(engine, clock)
    taken: dict[str, list[float]] = {stage: [] for stage in STAGES}
    with tempfile.TemporaryDirectory() as folder, Translator(bundle.root, engine=clocked) as translate:
        source, target = Path(folder) / "frame.jpg", Path(folder) / "image.jpg"
        save_image(frame, source)
        for number in range(-_WARMUP, runs):
            times = [clock()]
            decoded = load_frame(source)
            times.append(clock())
            image = translate(decoded)
            times += [clocked.began, clocked.ended, clock()]
            save_image(image, target)
            times.append(clock())
            if number >= 0:
                for stage, start, end in zip(STAGES, times, times[1:], strict=False):
                    taken[stage].append(end - start)
    return {stage: Latency.of(seconds).p50_ms for stage, seconds in taken.items()}
