"""``turbo-export``: a checkpoint becomes a bundle."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, Optional

import typer

from .._console import Console
from ..engines.errors import UsageError
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
    size_of,
    typed_command,
)
from .present import tell_export


def main() -> None:
    """Entry point of ``turbo-export``."""
    typer.run(export)


def export(
    ckpt: Annotated[Path, typer.Option(help="The checkpoint: CycleGAN-Turbo or pix2pix-Turbo, .pkl.")],
    base: Annotated[str, typer.Option(help="The base model: a diffusers folder or a hub id.")] = "stabilityai/sd-turbo",
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
        Optional[str], typer.Option(metavar="NAME", help="For --size auto: agx-orin, rtx-4090, …")
    ] = None,
    frame: CameraFrame = None,
    frame_format: FrameFormat = None,
    output_format: OutputFormat = None,
    colour_matrix: ColourMatrix = None,
    colour_range: ColourRange = None,
    batch: Annotated[int, typer.Option(help="Frames per run.")] = 1,
    precision: Annotated[Literal["fp32", "fp16"], typer.Option(help="What the graph computes in.")] = "fp16",
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

        width, height = _sized(console, size, fps, device)
        options = ExportOptions(
            ckpt=ckpt, out=out, base=base, prompt=prompt, direction=direction, width=width, height=height, batch=batch,
            precision=precision, strength=strength, posterior=posterior, input_prep=input_prep, opset=opset,
            engine=engine, targets=tuple(target.split(",")), parity_frames=parity_frames, force=force,
            frame=None if frame is None else size_of(frame, "--frame"), frame_format=frame_format,
            output_format=output_format, colour_matrix=colour_matrix, colour_range=colour_range,
            passes=_passes(passes), command=typed_command(),
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
    from ..benchmarks.devices import find
    from ..benchmarks.predict import auto_size, sd_turbo_costs

    devices = find(device)
    if len(devices) != 1:
        raise UsageError("--device is to name one device", got=device, hint="--device agx-orin")
    proposed = auto_size(sd_turbo_costs(), devices[0], fps)
    console.note(f"size: {proposed.width}x{proposed.height}, {proposed.note}")
    return proposed.width, proposed.height


def _passes(text: str) -> tuple[str, ...] | None:
    if text == "auto":
        return None
    return () if text == "none" else tuple(text.split(","))
