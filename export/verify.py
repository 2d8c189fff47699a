"""The parity gate: the bundle through ONNX Runtime against the unmerged PyTorch model in FP32."""

from __future__ import annotations

import gc
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ..engines.errors import ParityError
from ..engines.manifest import IMAGE, NOISE, POSTERIOR_NOISE, Parity
from ..engines.parity import EIGHT_BITS, PSNR_FLOOR_DB, PSNR_TARGET_DB, likeness
from ..runtime.colour import from_rgb
from ..runtime.image import restore
from .probe import probing
from .samples import Sample, batches
from .trace import UNQUANTISED

if TYPE_CHECKING:
    import onnx_ir as ir

    from .native import Border
    from .reference import Reference, ReferenceInputs

# In [-1, 1]: an eighth of a grey level. FP32's own rounding sets it: on two pictures of 512x512 the demo's model in
# PyTorch departs from itself in FP64 by 2.1e-4 and 2.5e-4 with two threads, by 4.3e-4 and 2.6e-4 with one. The goldens,
# up to 192x128 pixels, keep within a tenth of the bound: what does not is told.
FP32_MAX_ABS, FP32_TOLD = 1e-3, 1e-4


@dataclass(frozen=True)
class Outputs:
    """``images``: uint8, as the engine gives them, without the batch axis; ``unquantised``: float32 [3, H, W] in
    [-1, 1], at the model's size; one of each per sample."""

    images: tuple[NDArray[np.uint8], ...]
    unquantised: tuple[NDArray[np.float32], ...]


@dataclass(frozen=True)
class ReferenceOutputs:
    """What PyTorch computes: ``fp32`` is the oracle, ``bf16`` the same model in BF16, for comparison."""

    fp32: Outputs
    bf16: Outputs


def reference_outputs(
    load: Callable[[], Reference], taken: tuple[Sample, ...], *, signed: bool, border: Border | None = None
) -> ReferenceOutputs:
    """Run the reference that ``load`` makes, in FP32 and then in BF16; it is freed before this returns.

    ``border``: None, or what the graph does around the networks: the host does it here, with PIL and in numpy.
    """
    import torch

    reference = load()
    fp32 = _run(reference, taken, signed=signed, border=border)
    bf16 = _run(reference.to(torch.bfloat16), taken, signed=signed, border=border)
    del reference
    gc.collect()
    return ReferenceOutputs(fp32, bf16)


def bundle_outputs(onnx: Path, taken: tuple[Sample, ...]) -> Outputs:
    """Run a saved generator on the CPU, with the tensor before quantisation as a further output."""
    import onnx_ir as ir

    model = ir.load(onnx)
    model.graph.outputs.append(_value(model, UNQUANTISED))
    images: list[Any] = []
    unquantised: list[Any] = []
    with probing(model, onnx) as engine:
        for feed in batches(taken, engine.inputs):
            results = engine.run(feed)
            images.extend(results[IMAGE])
            unquantised.extend(results[UNQUANTISED])
    return Outputs(tuple(images[: len(taken)]), tuple(unquantised[: len(taken)]))


def compare(got: Outputs, reference: ReferenceOutputs) -> Parity:
    """The figures of the worst frame. Only as many frames of ``got`` count as the reference has."""
    ours, torch_bf16 = (
        likeness(list(zip(reference.fp32.images, other.images, strict=False))) for other in (got, reference.bf16)
    )
    return Parity(
        reference="PyTorch FP32, unmerged, live adapters",
        frames=len(reference.fp32.images),
        max_abs=_largest_difference(reference.fp32, got),
        psnr_db=ours.psnr_db,
        ssim=ours.ssim,
        bf16_psnr_db=torch_bf16.psnr_db,
        bf16_ssim=torch_bf16.ssim,
    )


def refuse_departure(parity: Parity, precision: str) -> str | None:
    """Raise ParityError for a bundle that departs from the reference; return a warning for one that nearly does."""
    reached = math.inf if parity.psnr_db is None else parity.psnr_db
    floor, target = PSNR_FLOOR_DB[precision], PSNR_TARGET_DB[precision]
    if precision == "fp32" and not parity.max_abs <= FP32_MAX_ABS:
        raise _too_far(f"largest difference at most {FP32_MAX_ABS:g} in [-1, 1]", f"{parity.max_abs:.3g}", precision)
    # In FP32, too: what stands behind the tensor before quantisation shows in the pictures alone.
    if not (reached >= floor and math.isfinite(parity.max_abs)):
        raise _too_far(f"PSNR of at least {floor:g} dB", f"{reached:.1f} dB", precision)
    if reached < target:
        return f"PSNR is {reached:.1f} dB: above the {floor:g} dB floor, below the {target:g} dB target"
    if precision == "fp32" and parity.max_abs > FP32_TOLD:
        return f"largest difference is {parity.max_abs:.2g} in [-1, 1]: within {FP32_MAX_ABS:g}, above {FP32_TOLD:g}"
    return None


def _largest_difference(reference: Outputs, got: Outputs) -> float:
    differences = [float(np.abs(a - b).max()) for a, b in zip(reference.unquantised, got.unquantised, strict=False)]
    # A NaN is a difference beyond all bounds, not one that max() may pass over.
    return max(math.inf if math.isnan(d) else d for d in differences)


def _too_far(expected: str, got: str, precision: str) -> ParityError:
    wider = "mixed:int8 --device NAME, or fp16" if precision in EIGHT_BITS else "fp32"
    hint = f"--precision {wider}; if that fails too, please report it with the output of turbo-inspect CKPT"
    return ParityError(
        "the bundle does not compute what the PyTorch reference computes; nothing was written",
        expected=expected,
        got=got,
        hint=hint,
    )


def _run(reference: Reference, taken: tuple[Sample, ...], *, signed: bool, border: Border | None) -> Outputs:
    unquantised = [reference(_inputs(sample, signed=signed))[0].numpy() for sample in taken]
    return Outputs(tuple(_bordered(_quantised(image), border) for image in unquantised), tuple(unquantised))


def _bordered(image: NDArray[np.uint8], border: Border | None) -> NDArray[np.uint8]:
    if border is None:
        return image
    layout = border.layout
    return from_rgb(restore(image, layout.width, layout.height, "squash"), layout.output_format, border.coding)


def _inputs(sample: Sample, *, signed: bool) -> ReferenceInputs:
    import torch

    from .reference import ReferenceInputs

    unit = torch.from_numpy(sample.shown).permute(2, 0, 1)[None].float() / 255
    noises = {name: torch.from_numpy(noise) for name, noise in sample.noises.items()}
    return ReferenceInputs((unit - 0.5) / 0.5 if signed else unit, noises.get(NOISE), noises.get(POSTERIOR_NOISE))


def _quantised(image: NDArray[np.float32]) -> NDArray[np.uint8]:
    """The published ToPILImage: ``(y * 0.5 + 0.5) * 255``, truncated."""
    unit = np.nan_to_num(image) * np.float32(0.5) + np.float32(0.5)
    return (unit * np.float32(255)).astype(np.uint8).transpose(1, 2, 0)


def _value(model: ir.Model, name: str) -> ir.Value:
    return next(output for node in model.graph for output in node.outputs if output.name == name)
