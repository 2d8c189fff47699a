"""Measures subjects in turns with the common row, so that ratios hold within a stage and across stages."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from ...engines.manifest import FRAME, IMAGE, GoldenParity
from ...engines.parity import likeness
from ...runtime.translator import Translator
from ..latency import Latency, Ratio, measure, ratio
from .context import Context
from .device import release_unused, used_bytes
from .options import CheckOptions
from .record import Row
from .subject import Subject

if TYPE_CHECKING:
    from numpy.typing import NDArray

Opener = Callable[[], AbstractContextManager[Subject]]

# A camera's frame; the model's own size is the other one.
_HD = (720, 1280, 3)
_SETTLING_RUNS = 3


class Bench:
    """``frame`` is uint8 [H, W, 3] at the model's size, ``expected`` what unmerged FP32 PyTorch makes of it."""

    def __init__(self, context: Context, frame: NDArray[np.uint8], expected: NDArray[np.uint8]) -> None:
        self._context = context
        self._options: CheckOptions = context.options
        self._frame = frame
        self._expected = expected
        self._hd = np.random.default_rng(0).integers(0, 256, _HD, dtype=np.uint8)

    @classmethod
    def of(cls, context: Context) -> Bench:
        """With the frame and the image that the stage ``prepare-reference`` left."""
        with np.load(context.options.reference) as arrays:
            return cls(context, arrays["frame"], arrays["image"])

    @property
    def frame(self) -> NDArray[np.uint8]:
        return self._frame

    def rows(self, common: Opener, others: tuple[Opener, ...]) -> None:
        """Measure the common row, then each of ``others`` in turns with it; each is closed before the next opens."""
        with self._opened(common) as (subject, taken):
            self._context.common(subject.name)
            self._context.row(self._measured(subject, None, taken))
            for other in others:
                self._rival_row(other, subject)

    def _rival_row(self, opener: Opener, common: Subject) -> None:
        # A call of its own: what it opened is freed when it returns, before the next one's memory is looked at.
        with self._opened(opener) as (subject, taken):
            self._context.row(self._measured(subject, common, taken))

    @contextmanager
    def _opened(self, opener: Opener) -> Iterator[tuple[Subject, int | None]]:
        """The opened subject, and the GPU memory that it took before anything else ran again."""
        release_unused()
        before = used_bytes(self._options.device)
        with opener() as subject:
            for _ in range(_SETTLING_RUNS):
                subject.once()
            after = used_bytes(self._options.device)
            yield subject, None if before is None or after is None else after - before

    def _measured(self, subject: Subject, common: Subject | None, taken: int | None) -> Row:
        calls = {"engine": subject.once}
        translate = self._translator(subject)
        calls |= {"frame": partial(translate, self._frame), "frame_hd": partial(translate, self._hd)}
        if common is not None:
            calls |= {"common": common.once, "common_frame": partial(self._translator(common), self._frame)}
        timed = measure(calls, warmup=self._options.warmup, runs=self._options.runs)
        return Row(
            name=subject.name,
            backend=subject.backend,
            precision=subject.precision,
            engine=timed["engine"],
            engine_clock=subject.engine_clock,
            frame=timed["frame"],
            frame_hd=timed["frame_hd"],
            ratio=_ratio(timed, "common", "engine"),
            frame_ratio=_ratio(timed, "common_frame", "frame"),
            device_bytes=taken,
            parity=self._parity(subject),
            facts=subject.facts,
        )

    def _translator(self, subject: Subject) -> Translator:
        # Never closed here: that would close the subject's engine.
        return Translator(self._options.bundle, engine=subject.engine)

    def _parity(self, subject: Subject) -> GoldenParity:
        image = np.asarray(subject.engine.run({FRAME: self._frame[None]})[IMAGE][0], dtype=np.uint8)
        return parity_of(image, self._expected)


def parity_of(image: NDArray[np.uint8], expected: NDArray[np.uint8]) -> GoldenParity:
    """One picture against another, uint8 [H, W, 3]; a PSNR of None says that they are equal."""
    found = likeness([(expected, image)])
    return GoldenParity(1, found.psnr_db, found.ssim, found.max_levels)


def _ratio(timed: dict[str, Latency], slow: str, fast: str) -> Ratio | None:
    return ratio(timed[slow], timed[fast]) if slow in timed else None
