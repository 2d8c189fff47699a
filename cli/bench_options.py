"""The options of ``turbo-bench``, in the order of its help."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Optional

import typer

# Typer reads these annotations at run time, on Python 3.10 too: Optional, not X | None.
BundlePath = Annotated[Path, typer.Argument(metavar="BUNDLE", help="A bundle's folder, or a plan or ONNX file in one.")]
Against = Annotated[
    Optional[str],
    typer.Option(
        metavar="NAME,…",
        help="What to measure beside it: pytorch, pytorch-compile, onnxruntime, openvino, tensorrt, three-engines.",
    ),
]
Suites = Annotated[str, typer.Option(metavar="NAME,…", help="What to measure.")]
Frames = Annotated[
    Optional[str], typer.Option(metavar="DIR", help="Pictures to measure on; default: the bundle's goldens.")
]
Checkpoint = Annotated[
    Optional[Path], typer.Option(help="The checkpoint it was made from: for PyTorch's rows and as reference.")
]
Base = Annotated[str, typer.Option(help="Its base model.")]
Sizes = Annotated[
    Optional[str], typer.Option(metavar="WxH,…|auto", help="Other sizes too, exported from --ckpt; auto: see --fps.")
]
Batches = Annotated[Optional[str], typer.Option(metavar="N,…", help="Other batches too, exported from --ckpt.")]
Rate = Annotated[Optional[float], typer.Option(help="For --size auto: what --device is to reach at the proposed size.")]
Device = Annotated[Optional[str], typer.Option(metavar="NAME", help="For --size auto: agx-orin, rtx-4090, …")]
Rounds = Annotated[int, typer.Option(metavar="N", help="The most rounds of a latency measurement.")]
Seconds = Annotated[float, typer.Option(help="The most seconds of one.")]
Predict = Annotated[
    Optional[str], typer.Option(metavar="DEVICE,…", help="Estimate these too, e.g. agx-orin,rtx-4090, or all.")
]
MetricWeights = Annotated[
    Optional[Path], typer.Option(metavar="DIR", help="Weights for LPIPS, Clean-FID and DINO-Struct-Dist.")
]
MetricPython = Annotated[
    Optional[Path], typer.Option(metavar="F", help='The Python that has "edgeturbo\\[metrics]" installed.')
]
MetricTarget = Annotated[
    Optional[str], typer.Option(metavar="DIR", help="Real pictures of the target domain, for Clean-FID.")
]
JsonFile = Annotated[Optional[Path], typer.Option("--json", metavar="F", help="Write the result here.")]
ReportFolder = Annotated[
    Optional[Path], typer.Option(metavar="DIR", help="Write a report here: HTML, Markdown and the result.")
]
Compare = Annotated[
    Optional[Path], typer.Option(metavar="OLD.json", help="Exit with 5 if anything got worse since this result.")
]
