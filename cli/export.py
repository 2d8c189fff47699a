"""``turbo-export``: a checkpoint becomes a bundle."""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer

from .._console import Console
from ..engines.errors import UsageError
from ..engines.frame_layout import size_of
from ..export.base import DEFAULT_BASE
from .export_options import (
    Base,
    Batch,
    Calibrate,
    Calibration,
    Checkpoint,
    Device,
    Direction,
    Engine,
    Fp16Margin,
    InputPrep,
    MinPsnr,
    Opset,
    Out,
    ParityFrames,
    Passes,
    Posterior,
    Precision,
    Prompt,
    Rate,
    Size,
    Strength,
    Targets,
)
from .options import (
    AsJson,
    CameraFrame,
    ColourMatrix,
    ColourRange,
    Debug,
    Force,
    FrameFormat,
    OutputFormat,
    Quiet,
    typed_command,
)
from .present import tell_export

if TYPE_CHECKING:
    from ..export.quantised import Target


def main() -> None:
    """Entry point of ``turbo-export``."""
    typer.run(export)


def export(
    ckpt: Checkpoint,
    base: Base = DEFAULT_BASE,
    prompt: Prompt = None,
    direction: Direction = None,
    size: Size = "512x512",
    fps: Rate = None,
    device: Device = None,
    frame: CameraFrame = None,
    frame_format: FrameFormat = None,
    output_format: OutputFormat = None,
    colour_matrix: ColourMatrix = None,
    colour_range: ColourRange = None,
    batch: Batch = 1,
    precision: Precision = "fp16",
    strength: Strength = None,
    posterior: Posterior = "mean",
    input_prep: InputPrep = None,
    engine: Engine = "auto",
    target: Targets = "sm_89,sm_120",
    opset: Opset = 20,
    passes: Passes = "auto",
    parity_frames: ParityFrames = None,
    calibrate: Calibrate = None,
    calibration: Calibration = None,
    min_psnr: MinPsnr = None,
    fp16_margin: Fp16Margin = 2.0,
    out: Out = None,
    force: Force = False,
    as_json: AsJson = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Turn a checkpoint into a bundle: merge, trace, specialise, check against PyTorch, build a plan.

    turbo-export --ckpt day2night.pkl

    turbo-export --ckpt mine.pkl --direction a2b --prompt "driving in the night" --size 768x432
    """
    console = Console(as_json, quiet, debug)
    with console.reporting_errors():
        from ..export.events import telling
        from ..export.recipe import ExportOptions
        from ..export.session import export_bundle

        target_device = device if precision.startswith("mixed:") else None
        width, height = _sized(console, size, fps, device if size == "auto" or target_device is None else None)
        options = ExportOptions(
            ckpt=ckpt, out=out, base=base, prompt=prompt, direction=direction, width=width, height=height, batch=batch,
            precision=precision, strength=strength, posterior=posterior, input_prep=input_prep, opset=opset,
            engine=engine, targets=tuple(target.split(",")), parity_frames=parity_frames, force=force,
            frame=None if frame is None else size_of(frame, "--frame"), frame_format=frame_format,
            output_format=output_format, colour_matrix=colour_matrix, colour_range=colour_range,
            passes=_passes(passes), calibrate=calibrate, fp16_margin=fp16_margin, method=calibration,
            min_psnr=min_psnr, target=_target(target_device), command=typed_command(),
        )  # fmt: skip
        with console.progress() as show:
            report = export_bundle(options, telling(console, show))
        tell_export(console, report)


def _sized(console: Console, size: str, fps: float | None, device: str | None) -> tuple[int, int]:
    """What ``--size`` says, or what a device is estimated to reach a rate at."""
    if size != "auto":
        if fps is not None or device is not None:
            raise UsageError("--fps and --device choose a size, and one was given", got=size, hint="--size auto")
        return size_of(size, "--size")
    if fps is None or device is None:
        raise UsageError("--size auto wants a rate and a device", hint="--size auto --fps 15 --device agx-orin")
    from ..benchmarks.devices import find_one
    from ..benchmarks.predict import auto_size, sd_turbo_costs

    proposed = auto_size(sd_turbo_costs(), find_one(device), fps)
    console.note(f"size: {proposed.width}x{proposed.height}, {proposed.note}")
    return proposed.width, proposed.height


def _target(device: str | None) -> Target | None:
    if device is None:
        return None
    from ..benchmarks.devices import find_one
    from ..benchmarks.roofline import mixture_target

    return mixture_target(find_one(device))


def _passes(text: str) -> tuple[str, ...] | None:
    if text == "auto":
        return None
    return () if text == "none" else tuple(text.split(","))
