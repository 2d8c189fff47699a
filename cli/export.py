"""``turbo-export``: a checkpoint becomes a bundle."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, Optional

import typer

from .._console import Console
from ..engines.errors import UsageError
from ..engines.frame_layout import size_of
from ..export.base import DEFAULT_BASE
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
    ckpt: Annotated[Path, typer.Option(help="The checkpoint: CycleGAN-Turbo or pix2pix-Turbo, .pkl.")],
    base: Annotated[str, typer.Option(help="The base model: a diffusers folder or a hub id.")] = DEFAULT_BASE,
    prompt: Annotated[
        Optional[str], typer.Option(help="The caption it was trained with; known for released files.")
    ] = None,
    direction: Annotated[
        Optional[Literal["a2b", "b2a"]], typer.Option(help="For CycleGAN-Turbo; known for released files.")
    ] = None,
    size: Annotated[
        str, typer.Option(metavar="WxH|auto", help="The generator's size, multiples of 8; auto: see --fps.")
    ] = "512x512",
    fps: Annotated[
        Optional[float], typer.Option(help="For --size auto: the size that --device is estimated to reach it at.")
    ] = None,
    device: Annotated[
        Optional[str], typer.Option(metavar="NAME", help="For --size auto and mixed precisions: agx-orin, rtx-4090, …")
    ] = None,
    frame: CameraFrame = None,
    frame_format: FrameFormat = None,
    output_format: OutputFormat = None,
    colour_matrix: ColourMatrix = None,
    colour_range: ColourRange = None,
    batch: Annotated[int, typer.Option(help="Frames per run.")] = 1,
    precision: Annotated[
        Literal["fp32", "fp16", "int8", "fp8", "mixed:int8", "mixed:fp8", "int8-weights"],
        typer.Option(help="What the graph computes in; the eight-bit ones beside FP16."),
    ] = "fp16",
    strength: Annotated[
        Optional[float], typer.Option(metavar="R", help="0 to 1, stochastic checkpoints only; default 0.4.")
    ] = None,
    posterior: Annotated[
        Literal["mean", "sample"], typer.Option(help="'sample' adds a posterior_noise input.")
    ] = "mean",
    input_prep: Annotated[
        Optional[Literal["raw", "canny", "sketch"]], typer.Option(help="What the network is shown of a frame.")
    ] = None,
    engine: Annotated[
        Literal["auto", "onnx", "tensorrt", "tensorrt-rtx", "openvino"],
        typer.Option(help="Which plan to build, if any."),
    ] = "auto",
    target: Annotated[
        str, typer.Option(help="GPU architectures for one tensorrt-rtx plan, comma-separated.")
    ] = "sm_89,sm_120",
    opset: Annotated[int, typer.Option(help="ONNX opset, 18 to 23.")] = 20,
    passes: Annotated[
        str, typer.Option(metavar="auto|none|NAME,…", help="Exact rewrites of the graph; see docs/performance.md.")
    ] = "auto",
    parity_frames: Annotated[
        Optional[int], typer.Option(help="Frames to hold against PyTorch; default 3, or 1 at full size.")
    ] = None,
    calibrate: Annotated[
        Optional[Path], typer.Option(metavar="DIR", help="Pictures to measure ranges on, up to 64 of them.")
    ] = None,
    calibration: Annotated[
        Optional[Literal["max", "entropy", "percentile", "mse"]],
        typer.Option(help="How ranges become eight bits' scales; default: the best for the format."),
    ] = None,
    min_psnr: Annotated[
        Optional[float], typer.Option(metavar="DB", help="For mixed precisions: the bound to keep; default 35.")
    ] = None,
    fp16_margin: Annotated[
        float, typer.Option(metavar="FACTOR", help="The room that those ranges must leave to FP16's 65,504.")
    ] = 2.0,
    out: Annotated[Optional[Path], typer.Option(help="The bundle's folder; default: the checkpoint's name.")] = None,
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
    """What a mixture of precisions is to be fast on: a device, by the roofline over a graph's cost table."""
    if device is None:
        return None
    from ..benchmarks.devices import find_one
    from ..benchmarks.predict import predict
    from ..export.costs import counted
    from ..export.quantised import Target

    found = find_one(device)
    return Target(found.name, lambda model: predict(counted(model.graph, Path("generator.onnx")), found).ms)


def _passes(text: str) -> tuple[str, ...] | None:
    if text == "auto":
        return None
    return () if text == "none" else tuple(text.split(","))
