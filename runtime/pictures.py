"""Pictures in files, translated to pictures in files: what ``turbo-run`` does, as a function."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ..engines.errors import ImageError
from .image import Frame, frame_note, load_frame, save_image, size_note
from .jobs import Job, jobs_of, names_one_picture

if TYPE_CHECKING:
    from .translator import Translator


@dataclass(frozen=True)
class PictureRequest:
    """``input`` is a picture, a folder of pictures or a glob pattern.

    ``output`` is a picture's path for one input, or a folder, which is made when it does not exist; None writes
    ``<stem>.edgeturbo.png`` beside each input. ``force`` allows existing outputs to be replaced, never an input.
    """

    input: Path | str
    output: Path | str | None = None
    force: bool = False


@dataclass(frozen=True)
class PictureResult:
    """One picture done. Times in milliseconds; ``translate_ms`` is a batch's time divided by its frames.

    ``frame_size`` and ``image_size`` are ``(width, height)`` in pixels. ``note`` is for the user, as ``size_note`` or,
    for a bundle that takes a camera's own frames, ``frame_note``.
    """

    source: Path
    target: Path
    frame_size: tuple[int, int]
    image_size: tuple[int, int]
    decode_ms: float
    translate_ms: float
    encode_ms: float
    note: str | None


@dataclass(frozen=True)
class PictureFailure:
    """One picture that could not be decoded, among others that could."""

    source: Path
    error: ImageError


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

    Every output is checked before the first frame is translated. Among several pictures one that cannot be decoded is
    reported and the others are still done; when the input names one picture, its ImageError is raised.

    Raises UsageError for inputs or outputs that cannot be meant, OutputExistsError for existing outputs without
    ``force``; what ``Translator`` raises; DiskFullError. Pictures written before that stay.
    """
    jobs = plan_files(request)
    one_picture = names_one_picture(request.input)
    outcomes: list[PictureResult | PictureFailure] = []
    for outcome in _outcomes(translator, jobs):
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


def _outcomes(translator: Translator, jobs: tuple[Job, ...]) -> Iterator[PictureResult | PictureFailure]:
    """Batch by batch: failures as they are met, and results as soon as a batch is full."""
    batch = translator.bundle.manifest.model.batch
    pending: list[_Decoded] = []
    for job in jobs:
        try:
            pending.append(_decode(job))
        except ImageError as error:
            yield PictureFailure(job.source, error)
        if len(pending) == batch:
            yield from _translate(translator, pending)
            pending = []
    if pending:
        yield from _translate(translator, pending)


def _decode(job: Job) -> _Decoded:
    started = time.perf_counter()
    frame = load_frame(job.source)
    return _Decoded(job, frame, _ms_since(started))


def _translate(translator: Translator, batch: list[_Decoded]) -> Iterator[PictureResult]:
    started = time.perf_counter()
    images = translator.translate_each([decoded.frame for decoded in batch])
    translate_ms = _ms_since(started) / len(batch)
    for decoded, image in zip(batch, images, strict=True):
        started = time.perf_counter()
        save_image(image, decoded.job.target)
        yield _result(translator, decoded, image, (translate_ms, _ms_since(started)))


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
