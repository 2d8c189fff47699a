"""The published code's goldens (``tests/golden``), exported here and run through every engine there is here.

They are tiny: this proves that an engine computes the right thing, not how fast it is.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ...engines.errors import MissingComponentError, ParityError
from ...engines.manifest import FRAME, IMAGE, NOISE
from ...engines.select import choose, engine_of_plan, open_engine
from .bench import parity_of
from .engine_stages import add_plan, refuse_unusable
from .needs import GOLDEN

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ...engines.base import Engine
    from ...engines.manifest import GoldenParity
    from .context import Context

# As export/verify.py: what FP16 must reach against FP32 PyTorch.
_FLOOR_DB = 35.0
# What a figure says where the pictures are equal and the PSNR is infinite.
EQUAL_DB = 100.0
_RUNNING = {"cpu": ("onnxruntime", "openvino"), "cuda": ("onnxruntime", "onnxruntime-cuda")}
_BUILT = {"cpu": (), "cuda": ("tensorrt", "tensorrt-rtx")}


@dataclass(frozen=True)
class Golden:
    """A checkpoint, what it is exported with, and the golden's arrays: the network's input ``x`` and ``output``."""

    name: str
    checkpoint: str
    prompt: str
    width: int
    height: int
    output: str = "y"
    direction: str | None = None
    strength: float | None = None
    signed_input: bool = False


GOLDENS = (
    Golden("cyclegan_a2b", "cyclegan.pkl", "driving in the night", 128, 128, direction="a2b", signed_input=True),
    Golden("pix2pix", "pix2pix.pkl", "a photo of a cat", 128, 136),
    Golden("pix2pix_stochastic", "pix2pix_stochastic.pkl", "a sketch of a fish", 128, 128, "y_0.4", strength=0.4),
)


def goldens(context: Context) -> None:
    """Export each golden's checkpoint in FP16, run each engine, and hold its picture to the published code's.

    Figures ``<golden>/<engine>_db``; 100 where the pictures are equal. Raises ParityError below 35 dB.
    """
    far: list[str] = []
    for golden in GOLDENS:
        bundle = _bundle(context, golden)
        for name, engine in _engines(context, bundle):
            parity = _parity(engine, golden)
            reached = EQUAL_DB if parity.psnr_db is None else parity.psnr_db
            context.figure(f"{golden.name}/{name}_db", reached)
            if reached < _FLOOR_DB:
                far.append(f"{golden.name} through {name}: {reached} dB")
    if far:
        raise ParityError("goldens are missed", expected=f"PSNR of at least {_FLOOR_DB:g} dB", got="; ".join(far))


def _bundle(context: Context, golden: Golden) -> Path:
    from ...export.recipe import ExportOptions
    from ...export.session import export_bundle

    folder = context.options.work / "goldens" / golden.name
    if not folder.is_dir():
        export_bundle(
            ExportOptions(
                GOLDEN / golden.checkpoint, folder, base=str(GOLDEN / "base"), prompt=golden.prompt,
                direction=golden.direction, width=golden.width, height=golden.height, strength=golden.strength,
                engine="onnx", parity_frames=1, command="gpu-check",
            )
        )  # fmt: skip
    return folder


def _engines(context: Context, bundle: Path) -> list[tuple[str, Engine]]:
    """Every engine that can run the bundle here; why another cannot is noted."""
    device = context.options.device
    openers: dict[str, Callable[[], Engine]] = {name: _opener(bundle, name) for name in _RUNNING[device]}
    openers |= {name: _builder(context, bundle, name) for name in _BUILT[device]}
    engines = []
    for name, opener in openers.items():
        try:
            engines.append((name, opener()))
        except MissingComponentError as error:
            context.note(f"{bundle.name}: {name} left out: {error.what}")
    return engines


def _opener(bundle: Path, wanted: str) -> Callable[[], Engine]:
    return lambda: open_engine(choose(bundle, wanted))


def _builder(context: Context, bundle: Path, backend: str) -> Callable[[], Engine]:
    def build() -> Engine:
        refuse_unusable(backend)
        return engine_of_plan(backend, add_plan(context, bundle, backend))

    return build


def _parity(engine: Engine, golden: Golden) -> GoldenParity:
    with np.load(GOLDEN / f"{golden.name}.npz") as arrays:
        feeds: dict[str, NDArray[Any]] = {FRAME: _frame(arrays["x"][0], signed=golden.signed_input)[None]}
        if NOISE in arrays:
            feeds[NOISE] = arrays[NOISE]
        expected = _levels(arrays[golden.output][0])
    with engine:
        image = np.asarray(engine.run(feeds)[IMAGE][0], dtype=np.uint8)
    return parity_of(image, expected)


def _frame(x: NDArray[np.float32], *, signed: bool) -> NDArray[np.uint8]:
    """The uint8 frame [H, W, 3] that the network's input was made from, as every golden's was."""
    levels = (x * 0.5 + 0.5 if signed else x) * 255
    return np.ascontiguousarray(np.rint(levels).astype(np.uint8).transpose(1, 2, 0))


def _levels(y: NDArray[np.float32]) -> NDArray[np.uint8]:
    """The published ToPILImage: ``(y * 0.5 + 0.5) * 255``, truncated."""
    return np.floor((y.clip(-1, 1) * 0.5 + 0.5) * np.float32(255)).astype(np.uint8).transpose(1, 2, 0)
