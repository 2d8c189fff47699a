"""The parity gate on the device: a plan's pictures against the goldens that travel in its bundle.

The goldens are ONNX Runtime's, which the export held to PyTorch. Another device's arithmetic may differ in a grey level
here and there; a library that computes something else differs by much more (TensorRT 10.3 on Orin was reported to:
ros2-depth-anything-v3-trt#16).
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from ..engines.errors import ParityError
from ..engines.manifest import FRAME, IMAGE, GoldenParity
from ..engines.parity import PSNR_FLOOR_DB, PSNR_TARGET_DB, likeness
from .goldens import read_goldens

if TYPE_CHECKING:
    from ..engines.base import Engine
    from ..engines.bundle import Bundle


def check_goldens(bundle: Bundle, engine: Engine) -> GoldenParity | None:
    """Run every golden frame of ``bundle`` through the open ``engine``; None when the bundle has no goldens.

    Raises BundleError for damaged goldens, DeviceError when the engine fails.
    """
    goldens = read_goldens(bundle)
    batch = bundle.manifest.model.batch
    pairs = []
    for frame, image in goldens.pairs:
        feeds = {FRAME: np.repeat(frame[None], batch, axis=0), **goldens.noises}
        pairs += [(image, got) for got in engine.run(feeds)[IMAGE]]
    if not pairs:
        return None
    worst = likeness(pairs)
    return GoldenParity(len(goldens.pairs), worst.psnr_db, worst.ssim, worst.max_levels)


def refuse_wrong_pictures(parity: GoldenParity, precision: str, who: str) -> str | None:
    """Raise ParityError for pictures too far from the goldens; return a warning for those that nearly are."""
    reached = math.inf if parity.psnr_db is None else parity.psnr_db
    figures = f"PSNR {reached:.1f} dB, SSIM {parity.ssim:.4f}, up to {parity.max_levels} grey levels"
    floor, target = PSNR_FLOOR_DB[precision], PSNR_TARGET_DB[precision]
    if not reached >= floor:
        raise ParityError(
            f"{who} does not compute what the bundle's goldens show",
            expected=f"PSNR of at least {floor:g} dB on {parity.frames} frames",
            got=figures,
            hint="the plan was not kept; try another version of the library, or turbo-run --engine onnxruntime",
        )
    return f"{figures}: above the {floor:g} dB floor, below the {target:g} dB target" if reached < target else None
