"""What the other stages measure, made on the machine itself: random weights of the right size and scale.

The published weights cannot be shipped; sizes, layers and time are the same, the pictures mean nothing. What is there
already is kept, so weights and bundles made elsewhere can be put into WORK: ``base/``, ``cyclegan.pkl``, ``bundle/``.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ...engines.files import replacing, replacing_folder
from ...engines.manifest import FRAME, IMAGE
from ...runtime.image import load_frame
from ..synthetic import write_base, write_cyclegan
from . import needs
from .flops import generator_flops
from .options import DIRECTION, PROMPT, CheckOptions

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from .context import Context


def weights(context: Context) -> None:
    """The base model (4.8 GB) and a CycleGAN-Turbo checkpoint with both directions (1.2 GB), and what they compute."""
    options = context.options
    if not _kept(context, options.base, needs.weights(options)):
        with _timed(context, "write_weights_s"):
            with replacing_folder(options.base) as folder:
                write_base(folder, options.architecture)
            with replacing(options.checkpoint) as path:
                write_cyclegan(options.base, path, rank_unet=options.lora_rank)
    for name, flops in generator_flops(options.base, options.pixels).items():
        context.figure(f"{name}_tflop", round(flops / 1e12, 6))


def bundle(context: Context) -> None:
    """The FP16 bundle, ONNX alone: plans are built by the stages that measure them."""
    from ...export.recipe import ExportOptions
    from ...export.session import export_bundle

    options = context.options
    if _kept(context, options.bundle, needs.bundle(options)):
        return
    with _timed(context, "export_s"):
        report = export_bundle(
            ExportOptions(
                options.checkpoint, options.bundle, base=str(options.base), prompt=PROMPT, direction=DIRECTION,
                width=options.pixels, height=options.pixels, engine="onnx", command="gpu-check",
            )
        )  # fmt: skip
    parity = report.bundle.manifest.parity
    if parity is not None and parity.psnr_db is not None:
        context.figure("export_parity_db", parity.psnr_db)


def reference(context: Context) -> None:
    """One frame through the unmerged model with live adapters in FP32 on the CPU: what every row is held to."""
    from ...export.oracle import pytorch_engine

    options = context.options
    frame = sample_frame(options)
    with (
        _timed(context, "reference_s"),
        pytorch_engine(options.bundle, options.checkpoint, str(options.base)) as engine,
    ):
        image = engine.run({FRAME: frame[None]})[IMAGE][0]
    with replacing(options.reference) as path, path.open("wb") as stream:
        np.savez_compressed(stream, frame=frame, image=image)


def three(context: Context) -> None:
    """The three networks that ``three-engines`` runs, from the same modules as the bundle."""
    from ..three_engines import export_three

    options = context.options
    if _kept(context, options.three, needs.three(options)):
        return
    from .pytorch_model import load_parts

    with _timed(context, "export_three_s"), replacing_folder(options.three) as folder:
        export_three(load_parts(options).merged(), options.pixels, folder)


def sample_frame(options: CheckOptions) -> NDArray[np.uint8]:
    """The bundled daytime photograph, uint8 [H, W, 3] at the model's size."""
    from ...export.demo import demo_frames
    from ...runtime.image import prepare

    return prepare(load_frame(demo_frames()[0]), options.pixels, options.pixels, "raw")


def _kept(context: Context, path: Path, missing: str | None) -> bool:
    if missing is not None:
        return False
    context.note(f"{path.name} was there and is used as it is; delete it to have it made again")
    return True


@contextmanager
def _timed(context: Context, name: str) -> Iterator[None]:
    started = time.perf_counter()
    yield
    context.figure(name, round(time.perf_counter() - started, 1))
