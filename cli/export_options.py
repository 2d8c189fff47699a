"""The options of ``turbo-export`` that no other command has, in the order of its help."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, Optional

import typer

# Typer reads these annotations at run time, on Python 3.10 too: Optional, not X | None.
Checkpoint = Annotated[Path, typer.Option(help="The checkpoint: CycleGAN-Turbo or pix2pix-Turbo, .pkl.")]
Base = Annotated[str, typer.Option(help="The base model: a diffusers folder or a hub id.")]
Prompt = Annotated[Optional[str], typer.Option(help="The caption it was trained with; known for released files.")]
Direction = Annotated[
    Optional[Literal["a2b", "b2a"]], typer.Option(help="For CycleGAN-Turbo; known for released files.")
]
Size = Annotated[str, typer.Option(metavar="WxH|auto", help="The generator's size, multiples of 8; auto: see --fps.")]
Rate = Annotated[
    Optional[float], typer.Option(help="For --size auto: the size that --device is estimated to reach it at.")
]
Device = Annotated[
    Optional[str], typer.Option(metavar="NAME", help="For --size auto and mixed precisions: agx-orin, rtx-4090, …")
]
Batch = Annotated[int, typer.Option(help="Frames per run.")]
Precision = Annotated[
    Literal["fp32", "fp16", "int8", "fp8", "mixed:int8", "mixed:fp8", "int8-weights"],
    typer.Option(help="What the graph computes in; the eight-bit ones beside FP16."),
]
Strength = Annotated[
    Optional[float], typer.Option(metavar="R", help="0 to 1, stochastic checkpoints only; default 0.4.")
]
Posterior = Annotated[Literal["mean", "sample"], typer.Option(help="'sample' adds a posterior_noise input.")]
InputPrep = Annotated[
    Optional[Literal["raw", "canny", "sketch"]], typer.Option(help="What the network is shown of a frame.")
]
Engine = Annotated[
    Literal["auto", "onnx", "tensorrt", "tensorrt-rtx", "openvino"], typer.Option(help="Which plan to build, if any.")
]
Targets = Annotated[str, typer.Option(help="GPU architectures for one tensorrt-rtx plan, comma-separated.")]
Opset = Annotated[int, typer.Option(help="ONNX opset, 18 to 23.")]
Passes = Annotated[
    str, typer.Option(metavar="auto|none|NAME,…", help="Exact rewrites of the graph; see docs/performance.md.")
]
ParityFrames = Annotated[
    Optional[int], typer.Option(help="Frames to hold against PyTorch; default 3, or 1 at full size.")
]
Calibrate = Annotated[
    Optional[Path], typer.Option(metavar="DIR", help="Pictures to measure ranges on, up to 64 of them.")
]
Calibration = Annotated[
    Optional[Literal["max", "entropy", "percentile", "mse"]],
    typer.Option(help="How ranges become eight bits' scales; default: the best for the format."),
]
MinPsnr = Annotated[
    Optional[float], typer.Option(metavar="DB", help="For mixed precisions: the bound to keep; default 35.")
]
Fp16Margin = Annotated[
    float, typer.Option(metavar="FACTOR", help="The room that those ranges must leave to FP16's 65,504.")
]
Out = Annotated[Optional[Path], typer.Option(help="The bundle's folder; default: the checkpoint's name.")]
