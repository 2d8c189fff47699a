"""The options of ``turbo-run`` that are about what is run, and on what; ``stream_options`` has those of a stream."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, Optional

import typer

# Typer reads these annotations at run time, on Python 3.10 too: Optional, not X | None.
BundlePath = Annotated[
    Path, typer.Argument(metavar="ENGINE|BUNDLE", help="A bundle's folder, or a plan or ONNX file in one.")
]
Source = Annotated[
    str,
    typer.Argument(
        metavar="INPUT",
        help="Picture, folder, quoted glob, video, /dev/video0 (or 0), csi://0, rtsp://…, http://…, gst://…, "
        "test://ball, or - for raw frames.",
    ),
]
Output = Annotated[
    Optional[str],
    typer.Argument(
        metavar="[OUTPUT]",
        help="Picture, folder, out.mp4, rtsp://…, http://:8080 (a page), display://0, null://, -. Default: "
        "<stem>.edgeturbo.png or .mp4 beside the input; a page for a camera.",
    ),
]
FurtherOutputs = Annotated[
    Optional[list[str]], typer.Option("--output", metavar="OUTPUT", help="A further output; may be repeated.")
]
RunEngine = Annotated[
    Literal["auto", "tensorrt", "tensorrt-rtx", "onnxruntime-cuda", "openvino", "onnxruntime", "pytorch", "null"],
    typer.Option(help="What runs it."),
]
Precision = Annotated[
    Optional[Literal["f32", "bf16", "f16"]], typer.Option(help="What openvino computes in; for it alone.")
]
Rebuild = Annotated[
    Literal["never", "auto"], typer.Option(help="'auto' builds the plan again if it does not fit this machine.")
]
Checkpoint = Annotated[Optional[Path], typer.Option(help="The checkpoint, for --engine pytorch.")]
Base = Annotated[str, typer.Option(help="Its base model, for --engine pytorch.")]
Seed = Annotated[int, typer.Option(help="Of the noise input, as torch.manual_seed.")]
NoiseFile = Annotated[
    Optional[Path], typer.Option(metavar="F.npy", help="The noise input itself, float32 [1,4,H/8,W/8].")
]
