"""Pictures in files, translated to pictures in files: what ``turbo-run`` does, as a function."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from ..engines.errors import BadFrameError, ImageError, UsageError
from .guard import Guard, OnBadFrame
from .image import Frame, frame_note, load_frame, save_image, size_note
from .jobs import Job, jobs_of, names_one_picture

if TYPE_CHECKING:
    from .translator import Translator


@dataclass(frozen=True)
class PictureRequest:
    """``input`` is a picture, a folder of pictures or a glob pattern.

    ``output`` is a picture's path for one input, or a folder, which is made when it does not exist; None writes
    ``<stem>.edgeturbo.png`` beside each input. ``force`` allows existing outputs to be replaced, never an input.
    ``on_bad_frame``: ``error`` writes nothing for a picture that broke in the network (``guard.py``), ``pass`` writes
    it. There is no ``last``: another picture's translation under this one's name would be a lie.
    """

    input: Path | str
    output: Path | str | None = None
    force: bool = False
    on_bad_frame: OnBadFrame = "error"

    def __post_init__(self) -> None:
        """Raises UsageError for ``last``."""
        if self.on_bad_frame == "last":
            raise UsageError(
                "--on-bad-frame last means nothing for pictures, of which none comes after another",
                expected="error or pass",
                hint="turbo-run BUNDLE folder/ out/ --on-bad-frame last takes a folder as a stream",
            )


@dataclass(frozen=True)
class PictureResult:
    """One picture done. Times in milliseconds; ``translate_ms`` is a batch's time divided by its frames.

    ``frame_size`` and ``image_size`` are ``(width, height)`` in pixels. ``note`` is for the user, as ``size_note`` or,
    for a bundle that takes a camera's own frames, ``frame_note``. ``fault``: what is wrong with the picture, which was
    passed on as it is; None for nothing.
    """

    source: Path
    target: Path
    frame_size: tuple[int, int]
    image_size: tuple[int, int]
    decode_ms: float
    translate_ms: float
    encode_ms: float
    note: str | None
    fault: str | None = None


@dataclass(frozen=True)
class PictureFailure:
    """One picture that could not be decoded, or whose translation broke in the network, among others that did not."""

    source: Path
    error: ImageError | BadFrameError


@dataclass(frozen=True)
class Summary:
    results: tuple[PictureResult, ...]
    failures: tuple[PictureFailure, ...]


@dataclass(frozen=True)
class _Decoded:
    job: Job
    frame: Frame
    decode_ms: float


def translate_files(
    translator: Translator,
    request: PictureRequest,
    on_result: Callable[[PictureResult | PictureFailure], None] = lambda _: None,
) -> Summary:
    """Translate every picture of ``request``; ``on_result`` hears of each as soon as it is written or has failed.

    Every output is checked before the first frame is translated. Among several pictures one that cannot be decoded, or
    whose translation is bad, is reported and the others are still done; when the input names one picture, its
    ImageError or BadFrameError is raised. The translator's own ``on_bad_frame`` means nothing here.

    Raises UsageError for inputs or outputs that cannot be meant, OutputExistsError for existing outputs without
    ``force``; what ``Translator`` raises; DiskFullError. Pictures written before that stay.
    """
    jobs = plan_files(request)
    one_picture = names_one_picture(request.input)
    outcomes: list[PictureResult | PictureFailure] = []
    for outcome in _outcomes(translator, jobs, Guard(request.on_bad_frame)):
        if one_picture and isinstance(outcome, PictureFailure):
            raise outcome.error
        outcomes.append(outcome)
        on_result(outcome)
    return Summary(
        results=tuple(outcome for outcome in outcomes if isinstance(outcome, PictureResult)),
        failures=tuple(outcome for outcome in outcomes if isinstance(outcome, PictureFailure)),
    )


def plan_files(request: PictureRequest) -> tuple[Job, ...]:
    """Which picture will be written where, and that it may be: the checks of ``translate_files``, without its work."""
    return jobs_of(request.input, request.output, force=request.force)


def _outcomes(translator: Translator, jobs: tuple[Job, ...], guard: Guard) -> Iterator[PictureResult | PictureFailure]:
    """Batch by batch: failures as they are met, and results as soon as a batch is full."""
    batch = translator.bundle.manifest.model.batch
    pending: list[_Decoded] = []
    for job in jobs:
        try:
            pending.append(_decode(job))
        except ImageError as error:
            yield PictureFailure(job.source, error)
        if len(pending) == batch:
            yield from _translate(translator, pending, guard)
            pending = []
    if pending:
        yield from _translate(translator, pending, guard)


def _decode(job: Job) -> _Decoded:
    started = time.perf_counter()
    frame = load_frame(job.source)
    return _Decoded(job, frame, _ms_since(started))


def _translate(translator: Translator, batch: list[_Decoded], guard: Guard) -> Iterator[PictureResult | PictureFailure]:
    started = time.perf_counter()
    images = translator.translate_unguarded([decoded.frame for decoded in batch])
    translate_ms = _ms_since(started) / len(batch)
    for decoded, image in zip(batch, images, strict=True):
        fault = translator.fault_of(image, decoded.frame)
        try:
            guard.note(fault)
        except BadFrameError as error:
            yield PictureFailure(decoded.job.source, error)
            continue
        started = time.perf_counter()
        save_image(image, decoded.job.target)
        result = _result(translator, decoded, image, (translate_ms, _ms_since(started)))
        yield replace(result, fault=fault)


def _result(
    translator: Translator, decoded: _Decoded, image: Frame, translate_and_encode_ms: tuple[float, float]
) -> PictureResult:
    manifest = translator.bundle.manifest
    frame_size = (decoded.frame.shape[1], decoded.frame.shape[0])
    if manifest.frame_layout is None:
        model_size = (manifest.model.width, manifest.model.height)
        note = size_note(frame_size, model_size, manifest.frame_rules.resize)
    else:
        note = frame_note(frame_size, manifest.frame_layout)
    return PictureResult(
        source=decoded.job.source,
        target=decoded.job.target,
        frame_size=frame_size,
        image_size=(image.shape[1], image.shape[0]),
        decode_ms=decoded.decode_ms,
        translate_ms=translate_and_encode_ms[0],
        encode_ms=translate_and_encode_ms[1],
        note=note,
    )


def _ms_since(started: float) -> float:
    return (time.perf_counter() - started) * 1e3
