"""How far an engine's pictures are from the reference's: per frame, over all frames, and the worst of each measure.

Every measure here needs no weights. Those that do are in ``metrics_child``.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from ..engines.errors import MissingComponentError, UsageError
from ..engines.parity import SSIM_WINDOW, decibels, psnr, ssim
from . import quality_faults as faults
from . import quality_measures as measures
from .quality_measures import Picture


@dataclass(frozen=True)
class Measure:
    """A measure's ``unit``, and whether ``higher`` figures mean more alike pictures."""

    unit: str
    higher: bool


# Field of FrameQuality: how to read it. These have a mean and a worst frame.
MEASURES = {
    "psnr_db": Measure("dB", higher=True),
    "ssim": Measure("1", higher=True),
    "ms_ssim": Measure("1", higher=True),
    "flip": Measure("1", higher=False),
    "max_levels": Measure("grey levels", higher=False),
    "p999_levels": Measure("grey levels", higher=False),
    "edge_f1": Measure("1", higher=True),
    "hausdorff_px": Measure("pixels", higher=False),
    "tone_levels": Measure("grey levels", higher=False),
}


@dataclass(frozen=True)
class FrameQuality:
    """One picture against its reference. A figure is None where ``unmeasured`` has the reason, by the field's name.

    - ``psnr_db``: dB, peak 255; None, without a reason, means infinite: the pictures are equal.
    - ``ssim``, ``ms_ssim``: at most 1, which equal pictures have. ``flip``: 0 (no difference to be seen) to 1.
    - ``max_levels``, ``p999_levels``: the largest absolute difference and its 99.9th percentile (linear between order
      statistics) over all values, in grey levels.
    - ``edge_f1``: 0 to 1. ``hausdorff_px``: between the canny edges, in pixels.
    - ``bias_levels``: mean of ``got - reference`` for R, G, B, and ``tone_levels``: its largest magnitude over the
      tones, both in grey levels. ``channel_order``: ``rgb``, or the order in which got's channels fit better.
      ``shift_px``: x to the right and y down. See ``quality_faults``.

    When the two pictures change places ``shift_px`` changes its sign and ``channel_order`` becomes the inverse order;
    ``bias_levels`` and ``tone_levels``, which sort by the reference's tones, and FLIP become others (the bias with
    roughly the other sign); nothing else changes.
    """

    psnr_db: float | None
    ssim: float | None
    ms_ssim: float | None
    flip: float | None
    max_levels: int
    p999_levels: float
    edge_f1: float | None
    hausdorff_px: float | None
    tone_levels: float | None
    bias_levels: tuple[float | None, float | None, float | None]
    channel_order: str
    shift_px: tuple[float, float] | None
    unmeasured: dict[str, str]

    @property
    def equal(self) -> bool:
        """Whether every value of the two pictures is the same."""
        return self.max_levels == 0


@dataclass(frozen=True)
class Worst:
    """The frame, counted from 0, where a measure is worst, and its figure; None is an infinite PSNR."""

    index: int
    value: float | None


@dataclass(frozen=True)
class Quality:
    """All frames of one engine. ``mean`` and ``worst`` have every one of ``MEASURES`` that any frame has.

    The mean PSNR is that of the mean squared error (each frame counts once), so a single equal frame does not make it
    infinite; None when all frames are equal. The other means are over the frames that have the figure. ``worst`` is the
    first of equally bad frames. ``unmeasured``: the reasons of the frames, by measure, ``;`` between different ones.
    """

    frames: tuple[FrameQuality, ...]
    mean: dict[str, float | None]
    worst: dict[str, Worst]
    unmeasured: dict[str, str]

    @property
    def worst_frame(self) -> int:
        """The frame of the lowest PSNR: the one to show."""
        return self.worst["psnr_db"].index

    def as_json(self) -> dict[str, Any]:
        """Plain types only; no infinity, no NaN."""
        return {**asdict(self), "measures": {name: asdict(measure) for name, measure in MEASURES.items()}}


def compare_frame(reference: Picture, got: Picture) -> FrameQuality:
    """Measure one picture against its reference, both uint8 ``[H, W, 3]`` RGB; neither is changed or kept.

    Raises UsageError for other arrays, or two of different shapes. A measure whose package is missing, or that these
    pictures are too small for, is not left out silently: ``unmeasured`` says so.
    """
    _refuse_no_pictures(reference, got)
    unmeasured: dict[str, str] = {}
    error = psnr(reference, got)
    difference = np.abs(reference.astype(np.int16) - got)
    edges = _edges(reference, got, unmeasured)
    biases, tone, shift = _faults(reference, got, unmeasured)
    return FrameQuality(
        psnr_db=None if math.isinf(error) else error,
        ssim=_if_large(ssim, SSIM_WINDOW, reference, got, unmeasured),
        ms_ssim=_if_large(measures.ms_ssim, measures.MS_SSIM_SIDE, reference, got, unmeasured),
        flip=_flip(reference, got, unmeasured),
        max_levels=int(difference.max()),
        p999_levels=float(np.percentile(difference, 99.9)),
        edge_f1=edges[0],
        hausdorff_px=edges[1],
        tone_levels=tone,
        bias_levels=biases,
        channel_order=faults.channel_order(reference, got),
        shift_px=shift,
        unmeasured=unmeasured,
    )


def compare(frames: Iterable[tuple[Picture, Picture]]) -> Quality:
    """Measure pairs of (reference, got), one after the other: an iterator need hold only one pair at a time.

    Raises UsageError when there is no pair, or for a pair that ``compare_frame`` refuses.
    """
    return summarise([compare_frame(reference, got) for reference, got in frames])


def summarise(frames: Sequence[FrameQuality]) -> Quality:
    """Means and worst frames of what ``compare_frame`` measured. Raises UsageError when there is no frame."""
    if not frames:
        raise UsageError("there is no frame to compare", expected="1 or more", got="0")
    reasons: dict[str, dict[str, None]] = {}
    for frame in frames:
        for name, reason in frame.unmeasured.items():
            reasons.setdefault(name, {})[reason] = None
    mean: dict[str, float | None] = {"psnr_db": _pooled_psnr(frames)}
    worst = {"psnr_db": _lowest_psnr(frames)}
    for name, measure in MEASURES.items():
        found = [(getattr(frame, name), i) for i, frame in enumerate(frames) if getattr(frame, name) is not None]
        if name == "psnr_db" or not found:
            continue
        mean[name] = float(np.mean([value for value, _ in found]))
        sign = 1.0 if measure.higher else -1.0
        value, index = min(found, key=lambda pair: sign * pair[0])
        worst[name] = Worst(index, value)
    return Quality(tuple(frames), mean, worst, {name: "; ".join(texts) for name, texts in reasons.items()})


def _pooled_psnr(frames: Sequence[FrameQuality]) -> float | None:
    errors = [0.0 if frame.psnr_db is None else 10.0 ** (-frame.psnr_db / 10.0) for frame in frames]
    error = float(np.mean(errors))
    return None if error == 0.0 else decibels(error)


def _lowest_psnr(frames: Sequence[FrameQuality]) -> Worst:
    index = min(range(len(frames)), key=lambda i: math.inf if (db := frames[i].psnr_db) is None else db)
    return Worst(index, frames[index].psnr_db)


def _refuse_no_pictures(reference: Picture, got: Picture) -> None:
    for picture in (reference, got):
        if picture.dtype != np.uint8 or picture.ndim != 3 or picture.shape[2] != 3 or picture.shape != reference.shape:
            raise UsageError(
                "these are not two pictures of one size",
                expected="uint8 [H,W,3], twice",
                got=f"{reference.dtype.name} {list(reference.shape)} and {got.dtype.name} {list(got.shape)}",
            )


def _if_large(measure: Any, side: int, reference: Picture, got: Picture, unmeasured: dict[str, str]) -> float | None:
    if min(reference.shape[:2]) >= side:
        return float(measure(reference, got))
    height, width = reference.shape[:2]
    unmeasured[measure.__name__] = f"not defined: needs {side} pixels on a side, the picture is {width}x{height}"
    return None


def _flip(reference: Picture, got: Picture, unmeasured: dict[str, str]) -> float | None:
    try:
        return measures.flip(reference, got)
    except MissingComponentError as error:
        unmeasured["flip"] = f"not run: {error.hint}"
        return None


def _edges(reference: Picture, got: Picture, unmeasured: dict[str, str]) -> tuple[float | None, float | None]:
    try:
        agreement = measures.edge_agreement(reference, got)
    except MissingComponentError as error:
        unmeasured |= dict.fromkeys(("edge_f1", "hausdorff_px"), f"not run: {error.hint}")
        return None, None
    if agreement.hausdorff_px is None:
        unmeasured["hausdorff_px"] = "not defined: only one of the two pictures has edges"
    return agreement.f1, agreement.hausdorff_px


def _faults(
    reference: Picture, got: Picture, unmeasured: dict[str, str]
) -> tuple[tuple[float | None, float | None, float | None], float | None, tuple[float, float] | None]:
    biases, tone = faults.bias(reference, got), faults.tone(reference, got)
    shift = faults.shift(reference, got)
    if None in biases:
        unmeasured["bias_levels"] = "not defined: a channel has too few values of a middle tone"
    if tone is None:
        unmeasured["tone_levels"] = "not defined: too few values of any middle tone"
    if shift is None:
        unmeasured["shift_px"] = "not defined: too flat, or striped in one direction"
    return biases, tone, shift
