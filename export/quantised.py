"""The step of an export that puts products on eight bits: calibrated on frames, and told to the manifest."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..engines.errors import UsageError
from ..engines.manifest import Block, Mixture, Quantisation
from ..engines.parity import rounded_db
from .quantise.apply import DEFAULT_MIN_PSNR, QUANTISATIONS, Predict, Quantised, QuantiseOptions, quantise_file
from .quantise.thresholds import DEFAULT_METHODS, METHODS
from .samples import batches

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ..engines.base import TensorSpec
    from .calibration import Calibration
    from .recipe import ExportOptions

_OLDEST_OPSET = 19  # the first whose QuantizeLinear takes FP16 scales
_HIGHEST_PSNR = 100.0


@dataclass(frozen=True)
class Target:
    """The device that a mixture of precisions is to be fast on: its name, and its estimate for a graph."""

    device: str
    predict: Predict


def refuse_quantisation(options: ExportOptions) -> None:
    """Raise UsageError for options of a quantisation that cannot be meant. Cheap: nothing is read."""
    mixed = options.precision.startswith("mixed:")
    if options.precision in QUANTISATIONS and options.opset < _OLDEST_OPSET:
        raise UsageError(
            f"--precision {options.precision} needs scales in FP16", expected=f"--opset {_OLDEST_OPSET} or later",
            got=f"--opset {options.opset}", hint=f"--opset {_OLDEST_OPSET}",
        )  # fmt: skip
    if mixed and options.target is None:
        raise UsageError(
            "a mixture of precisions is the fastest for a device, and none was named",
            hint=f"--precision {options.precision} --device agx-orin",
        )
    if options.min_psnr is not None and not (mixed and 0 < options.min_psnr <= _HIGHEST_PSNR):
        raise UsageError(
            f"--min-psnr {options.min_psnr:g} does not work", expected=f"0 to {_HIGHEST_PSNR:g} dB, for mixed:int8 and "
            "mixed:fp8", hint="--precision mixed:int8 --min-psnr 35",
        )  # fmt: skip
    if options.method is not None and (options.method not in METHODS or not _is_calibrated(options)):
        raise UsageError(
            f"--calibration {options.method} does not work",
            expected=f"{', '.join(METHODS)}, for int8, fp8 and mixtures",
            hint="--precision int8 --calibration mse",
        )  # fmt: skip


def quantise(onnx: Path, options: ExportOptions, frames: Calibration, inputs: tuple[TensorSpec, ...]) -> Quantisation:
    """Quantise the FP16 generator ``onnx`` in place as ``options.precision`` says, on the scales that ``frames`` give.

    Raises as ``quantise_file``: RangeError for an activation that is not finite, ParityError when no mixture keeps the
    bound. The bound is held against all of ``frames``.
    """
    least = DEFAULT_MIN_PSNR if options.min_psnr is None else options.min_psnr
    # refuse_quantisation looked at both words
    wanted = QuantiseOptions(options.precision, method=options.method, min_psnr=least)  # type: ignore[arg-type]
    target = options.target

    def feeds() -> Iterable[Mapping[str, NDArray[Any]]]:
        return batches(frames.frames(), inputs)

    done = quantise_file(onnx, wanted, feeds, target.predict if target else None, feeds)
    return _told(done, wanted, "" if wanted.weights_only else frames.source, target.device if target else "")


def _is_calibrated(options: ExportOptions) -> bool:
    return options.precision in QUANTISATIONS and options.precision != "int8-weights"


def _told(done: Quantised, wanted: QuantiseOptions, source: str, device: str) -> Quantisation:
    found = done.search
    front = () if found is None else found.front
    return Quantisation(
        products=done.products, of=done.of, conv_share=round(done.share, 4), frames=done.frames, source=source,
        method="" if wanted.weights_only else wanted.method or DEFAULT_METHODS[wanted.form.name], blocks=done.blocks,
        device=device, min_psnr_db=wanted.min_psnr if wanted.mixed else None,
        front=tuple(
            Mixture(tuple(sorted(m.blocks)), round(m.ms, 3), rounded_db(m.predicted_db), rounded_db(m.measured_db))
            for m in front
        ),
        sensitivity=() if found is None else tuple(
            Block(b.name, rounded_db(b.psnr_db), round(b.saved_ms, 4)) for b in found.blocks
        ),
    )  # fmt: skip
