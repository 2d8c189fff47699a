"""``turbo-export``, ``turbo-run``, ``turbo-inspect``: signatures and texts. The work is done elsewhere."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, Optional

import typer

from ._console import Console
from .engines.errors import UsageError

if TYPE_CHECKING:
    from .engines.base import Engine
    from .export.session import ExportReport
    from .runtime.pictures import PictureFailure, PictureResult

# Typer reads these annotations at run time, on Python 3.10 too: Optional, not X | None.
AsJson = Annotated[bool, typer.Option("--json", help="Print one machine-readable line and nothing else.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Print errors only.")]
Debug = Annotated[bool, typer.Option("--debug", help="Print a traceback with an error.")]
Force = Annotated[bool, typer.Option("--force", "-f", help="Replace existing outputs.")]


def export_main() -> None:
    """Entry point of ``turbo-export``."""
    typer.run(export)


def run_main() -> None:
    """Entry point of ``turbo-run``."""
    typer.run(run)


def inspect_main() -> None:
    """Entry point of ``turbo-inspect``."""
    typer.run(inspect)


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
        str, typer.Option(metavar="WxH", help="The generator's size in pixels, multiples of 8.")
    ] = "512x512",
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
        Literal["auto", "onnx", "tensorrt", "tensorrt-rtx"], typer.Option(help="Which plan to build, if any.")
    ] = "auto",
    target: Annotated[
        str, typer.Option(help="GPU architectures for one tensorrt-rtx plan, comma-separated.")
    ] = "sm_89,sm_120",
    opset: Annotated[int, typer.Option(help="ONNX opset, 18 to 23.")] = 20,
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
        from .export.recipe import ExportOptions
        from .export.events import telling
        from .export.session import export_bundle

        width, height = _size(size)
        options = ExportOptions(
            ckpt=ckpt, out=out, base=base, prompt=prompt, direction=direction, width=width, height=height, batch=batch,
            precision=precision, strength=strength, posterior=posterior, input_prep=input_prep, opset=opset,
            engine=engine, targets=tuple(target.split(",")), parity_frames=parity_frames, force=force,
            command=_command(),
        )  # fmt: skip
        with console.progress() as show:
            report = export_bundle(options, telling(console, show))
        _tell_export(console, report)


def run(
    bundle: Annotated[
        Path, typer.Argument(metavar="ENGINE|BUNDLE", help="A bundle's folder, or a plan or ONNX file in one.")
    ],
    source: Annotated[str, typer.Argument(metavar="INPUT", help="A picture, a folder, or a quoted glob.")],
    output: Annotated[
        Optional[str],
        typer.Argument(
            metavar="[OUTPUT]", help="A picture or a folder; default: <stem>.edgeturbo.png beside the input."
        ),
    ] = None,
    engine: Annotated[
        Literal["auto", "onnxruntime", "tensorrt", "tensorrt-rtx", "pytorch", "null"],
        typer.Option(help="What runs it."),
    ] = "auto",
    ckpt: Annotated[Optional[Path], typer.Option(help="The checkpoint, for --engine pytorch.")] = None,
    base: Annotated[str, typer.Option(help="Its base model, for --engine pytorch.")] = "stabilityai/sd-turbo",
    seed: Annotated[int, typer.Option(help="Of the noise input, as torch.manual_seed.")] = 42,
    noise: Annotated[
        Optional[Path], typer.Option(metavar="F.npy", help="The noise input itself, float32 [1,4,H/8,W/8].")
    ] = None,
    force: Force = False,
    as_json: AsJson = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Translate pictures with a bundle or a plan.

    turbo-run day2night frame.jpg

    turbo-run day2night/engine.plan frames/ night/
    """
    console = Console(as_json, quiet, debug)
    with console.reporting_errors():
        from .runtime.noise import load_noise
        from .runtime.pictures import PictureRequest, plan_files, translate_files
        from .runtime.translator import Translator

        request = PictureRequest(source, output, force)
        chosen = _pytorch_engine(bundle, ckpt, base) if engine == "pytorch" else engine
        translator = Translator(bundle, engine=chosen, seed=seed, noise=None if noise is None else load_noise(noise))
        console.note(f"engine: {translator.reason}")
        plan_files(request)
        with translator:
            summary = translate_files(translator, request, lambda outcome: _tell_picture(console, outcome))
        console.result({
            "engine": translator.choice.backend,
            "pictures": [_picture_data(result) for result in summary.results],
            "failures": [{"input": str(failure.source), "error": str(failure.error)} for failure in summary.failures],
        })  # fmt: skip
        if summary.failures:
            raise SystemExit(summary.failures[0].error.exit_code)


def inspect(
    path: Annotated[Path, typer.Argument(metavar="BUNDLE|PLAN|CKPT", help="A bundle, a plan in one, or a checkpoint.")],
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Say what a bundle, plan or checkpoint is: tensors, sizes, provenance, parity, and what would run it here."""
    console = Console(as_json, quiet=False, debug=debug)
    with console.reporting_errors():
        from .export.describe import describe

        description = describe(path)
        console.result(description)
        _tell_rows(console, description)


def _size(text: str) -> tuple[int, int]:
    width, _, height = text.lower().partition("x")
    if not (width.isdigit() and height.isdigit()):
        raise UsageError("--size is not WIDTHxHEIGHT", expected="for example 512x512", got=text, hint="--size 512x512")
    return int(width), int(height)


def _command() -> str:
    return shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]])


def _pytorch_engine(bundle: Path, ckpt: Path | None, base: str) -> Engine:
    if ckpt is None:
        raise UsageError(
            "--engine pytorch runs the checkpoint itself, which a bundle does not hold",
            hint=f"turbo-run {bundle} INPUT --engine pytorch --ckpt day2night.pkl --base {base}",
        )
    from .export.oracle import pytorch_engine

    return pytorch_engine(bundle, ckpt, base)


def _tell_export(console: Console, report: ExportReport) -> None:
    manifest, root = report.bundle.manifest, report.bundle.root
    model, parity = manifest.model, manifest.parity
    size = sum(entry.bytes for entry in manifest.files.values())
    kind = " ".join(filter(None, (model.family, model.direction, f"{model.width}x{model.height}", model.precision)))
    console.say(f"{root}: {kind}, {size / 1e6:,.1f} MB")
    if parity:
        psnr = "equal" if parity.psnr_db is None else f"{parity.psnr_db:.1f} dB"
        console.say(
            f"  parity with PyTorch FP32: PSNR {psnr}, SSIM {parity.ssim:.4f}, largest difference {parity.max_abs:.2g}"
        )
    for entry in manifest.engines:
        console.say(f"  {entry.plan}: {entry.backend} {entry.version} for {', '.join(entry.targets)}")
        for sentence in entry.unchecked:
            console.say(f"    not checked here: {sentence}")
    console.say(f"  next: turbo-run {shlex.quote(str(root))} frame.jpg")
    console.result({
        "bundle": str(root), "bytes": size, "seconds": report.seconds, "warnings": list(report.warnings),
        "psnr_db": parity.psnr_db if parity else None, "max_abs": parity.max_abs if parity else None,
        "plans": [entry.plan for entry in manifest.engines],
    })  # fmt: skip


def _tell_picture(console: Console, outcome: PictureResult | PictureFailure) -> None:
    from .runtime.pictures import PictureFailure

    if isinstance(outcome, PictureFailure):
        sys.stderr.write(f"error: {outcome.error}\n")
        return
    if outcome.note:
        console.note(f"{outcome.source}: {outcome.note}")
    console.say(f"{outcome.source} -> {outcome.target}  ({outcome.translate_ms:,.0f} ms)")


def _picture_data(result: PictureResult) -> dict[str, Any]:
    return {
        "input": str(result.source), "output": str(result.target), "decode_ms": round(result.decode_ms, 2),
        "translate_ms": round(result.translate_ms, 2), "encode_ms": round(result.encode_ms, 2),
    }  # fmt: skip


def _tell_rows(console: Console, description: dict[str, Any], indent: str = "") -> None:
    """Nested data as indented lines: short values on one line, lists and tables below their name."""
    for name, value in description.items():
        if isinstance(value, dict):
            console.say(f"{indent}{name}:")
            _tell_rows(console, value, indent + "  ")
        elif isinstance(value, list):
            console.say(f"{indent}{name}:{'' if value else ' none'}")
            for item in value:
                console.say(f"{indent}  - {item}")
        else:
            console.say(f"{indent}{name}: {value}")
