"""``turbo-build``: a plan for this machine, or for others, from a bundle."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, Optional

import typer

from .._console import Console
from .options import AsJson, Debug, Quiet, bytes_of
from .present import tell_build


def main() -> None:
    """Entry point of ``turbo-build``."""
    typer.run(build)


def build(
    bundle: Annotated[Path, typer.Argument(metavar="BUNDLE", help="A bundle's folder, as turbo-export writes it.")],
    engine: Annotated[
        Literal["auto", "tensorrt", "tensorrt-rtx", "openvino"],
        typer.Option(help="What builds the plan, and will run it; auto takes what this machine has."),
    ] = "auto",
    target: Annotated[
        Optional[str],
        typer.Option(
            metavar="sm_NN[,…]", help="GPUs that tensorrt-rtx builds for; default: this one, or sm_89,sm_120."
        ),
    ] = None,
    preset: Annotated[
        Optional[Literal["jetson-orin", "jetson-thor", "desktop", "server"]],
        typer.Option(help="Memory limits and effort; default: what this machine is."),
    ] = None,
    workspace: Annotated[
        Optional[str], typer.Option(metavar="SIZE", help="The most scratch memory a layer may use, such as 2G.")
    ] = None,
    optimization_level: Annotated[
        Optional[int], typer.Option(metavar="0..5", help="How long to search for fast kernels.")
    ] = None,
    timing_cache: Annotated[
        Optional[Path], typer.Option(metavar="F", help="Kernel timings, read if there and written back.")
    ] = None,
    precision: Annotated[
        Optional[Literal["f32", "bf16", "f16"]], typer.Option(help="What openvino computes in; for it alone.")
    ] = None,
    force: Annotated[
        bool, typer.Option("--force", "-f", help="Build even if a plan is there that could be used.")
    ] = False,
    force_memory: Annotated[
        bool, typer.Option("--force-memory", help="Build even if too little memory seems to be free.")
    ] = False,
    as_json: AsJson = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Build a plan for this machine from a bundle's ONNX file. Needs no torch and no checkpoint.

    turbo-build day2night

    turbo-build day2night --engine tensorrt --preset jetson-orin --workspace 2G
    """
    console = Console(as_json, quiet, debug)
    with console.reporting_errors():
        from ..engines.bundle import Bundle
        from ..export.events import telling
        from ..export.plans import BuildOptions, add_plan

        options = BuildOptions(
            backend=None if engine == "auto" else engine, targets=None if target is None else tuple(target.split(",")),
            preset=preset, workspace_bytes=None if workspace is None else bytes_of(workspace),
            optimization_level=optimization_level, timing_cache=timing_cache, precision=precision,
            ignore_memory=force_memory, force=force,
        )  # fmt: skip
        opened = Bundle.open(bundle)
        with console.progress() as show:
            report = add_plan(opened, options, telling(console, show))
        tell_build(console, report)
