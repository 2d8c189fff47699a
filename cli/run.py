"""``turbo-run``: a bundle translates pictures, videos and cameras."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, Optional

import typer

from .._console import Console
from ..engines.errors import UsageError
from ..export.base import DEFAULT_BASE
from .options import AsJson, Debug, Force, Quiet
from .present import picture_data, tell_picture
from .stream_options import (
    Backend,
    Buffer,
    Duration,
    Headless,
    InputCodec,
    InputFlip,
    InputHeight,
    InputLatency,
    InputLoop,
    InputRate,
    InputWidth,
    MaxFrames,
    NoSignal,
    OnBadFrame,
    OutputBitrate,
    OutputCodec,
    PrintUnit,
    Service,
    SkipSimilar,
    Token,
)

if TYPE_CHECKING:
    from ..engines.base import Engine
    from ..engines.select import Choice
    from ..runtime.pictures import PictureRequest
    from ..runtime.translator import Translator


def main() -> None:
    """Entry point of ``turbo-run``."""
    typer.run(run)


def run(
    bundle: Annotated[
        Path, typer.Argument(metavar="ENGINE|BUNDLE", help="A bundle's folder, or a plan or ONNX file in one.")
    ],
    source: Annotated[
        str,
        typer.Argument(
            metavar="INPUT",
            help="Picture, folder, quoted glob, video, /dev/video0 (or 0), csi://0, rtsp://…, http://…, gst://…, "
            "test://ball, or - for raw frames.",
        ),
    ],
    output: Annotated[
        Optional[str],
        typer.Argument(
            metavar="[OUTPUT]",
            help="Picture, folder, out.mp4, rtsp://…, http://:8080 (a page), display://0, null://, -. Default: "
            "<stem>.edgeturbo.png or .mp4 beside the input; a page for a camera.",
        ),
    ] = None,
    outputs: Annotated[
        Optional[list[str]], typer.Option("--output", metavar="OUTPUT", help="A further output; may be repeated.")
    ] = None,
    engine: Annotated[
        Literal["auto", "tensorrt", "tensorrt-rtx", "onnxruntime-cuda", "openvino", "onnxruntime", "pytorch", "null"],
        typer.Option(help="What runs it."),
    ] = "auto",
    precision: Annotated[
        Optional[Literal["f32", "bf16", "f16"]], typer.Option(help="What openvino computes in; for it alone.")
    ] = None,
    rebuild: Annotated[
        Literal["never", "auto"], typer.Option(help="'auto' builds the plan again if it does not fit this machine.")
    ] = "never",
    ckpt: Annotated[Optional[Path], typer.Option(help="The checkpoint, for --engine pytorch.")] = None,
    base: Annotated[str, typer.Option(help="Its base model, for --engine pytorch.")] = DEFAULT_BASE,
    seed: Annotated[int, typer.Option(help="Of the noise input, as torch.manual_seed.")] = 42,
    noise: Annotated[
        Optional[Path], typer.Option(metavar="F.npy", help="The noise input itself, float32 [1,4,H/8,W/8].")
    ] = None,
    input_width: InputWidth = None,
    input_height: InputHeight = None,
    input_rate: InputRate = None,
    input_codec: InputCodec = None,
    input_flip: InputFlip = "none",
    input_loop: InputLoop = 0,
    input_latency: InputLatency = None,
    backend: Backend = "auto",
    output_codec: OutputCodec = None,
    output_bitrate: OutputBitrate = None,
    headless: Headless = False,
    buffer: Buffer = None,
    max_frames: MaxFrames = None,
    duration: Duration = None,
    skip_similar: SkipSimilar = None,
    no_signal: NoSignal = "card",
    on_bad_frame: OnBadFrame = None,
    service: Service = False,
    token: Token = None,
    print_unit: PrintUnit = False,
    force: Force = False,
    as_json: AsJson = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Translate pictures, videos or a camera with a bundle or a plan.

    turbo-run day2night frame.jpg

    turbo-run day2night drive.mp4 night.mp4

    turbo-run day2night/engine.plan rtsp://camera/live http://:8080
    """
    console = Console(as_json, quiet, debug)
    with console.reporting_errors():
        from ..runtime.options import StreamOptions
        from ..runtime.pictures import PictureRequest
        from .stream import StreamWishes, are_pictures, print_unit_file, run_stream

        wanted = [*([output] if output else []), *(outputs or [])]
        options = StreamOptions(
            input_width=input_width, input_height=input_height, input_rate=input_rate, input_codec=input_codec,
            flip=input_flip, loop=input_loop, latency_ms=input_latency, output_codec=output_codec,
            output_bitrate=output_bitrate, headless=headless, buffer=buffer, max_frames=max_frames,
            duration_s=duration, backend=backend, force=force,
        )  # fmt: skip
        wishes = StreamWishes(source, tuple(wanted), options, skip_similar, no_signal, on_bad_frame, service, token)
        if print_unit:
            print_unit_file(console, bundle, wishes)
            return
        chosen = _chosen(console, bundle, engine, precision, rebuild, ckpt, base)
        translator = _translator(console, bundle, chosen, seed, noise)
        if are_pictures(wishes):
            request = PictureRequest(source, wanted[0] if wanted else None, force, on_bad_frame or "error")
            _run_pictures(console, translator, request)
        else:
            run_stream(console, translator, wishes)


def _chosen(
    console: Console,
    bundle: Path,
    engine: str,
    precision: str | None,
    rebuild: str,
    ckpt: Path | None,
    base: str,
) -> Engine | Choice:
    """What runs it: PyTorch with its checkpoint, or what fits this machine, built again if that was asked for."""
    from ..engines.select import choose

    if engine == "pytorch":
        return _pytorch_engine(bundle, ckpt, base)
    if rebuild == "auto":
        from ..export.events import telling
        from ..export.plans import renew_plan

        with console.progress() as show:
            renewed = renew_plan(bundle, engine, telling(console, show))
        if renewed is not None:
            console.note(f"rebuilt {renewed.entry.plan}: {renewed.reason}")
            bundle = renewed.bundle.root / renewed.entry.plan if bundle.suffix == ".plan" else renewed.bundle.root
    return choose(bundle, engine, precision)


def _pytorch_engine(bundle: Path, ckpt: Path | None, base: str) -> Engine:
    if ckpt is None:
        raise UsageError(
            "--engine pytorch runs the checkpoint itself, which a bundle does not hold",
            hint=f"turbo-run {bundle} INPUT --engine pytorch --ckpt day2night.pkl --base {base}",
        )
    from ..export.oracle import pytorch_engine

    return pytorch_engine(bundle, ckpt, base)


def _translator(console: Console, bundle: Path, chosen: Engine | Choice, seed: int, noise: Path | None) -> Translator:
    from ..runtime.noise import load_noise
    from ..runtime.translator import Translator

    translator = Translator(bundle, engine=chosen, seed=seed, noise=None if noise is None else load_noise(noise))
    console.note(f"engine: {translator.reason}")
    return translator


def _run_pictures(console: Console, translator: Translator, request: PictureRequest) -> None:
    from ..runtime.pictures import plan_files, translate_files

    plan_files(request)
    with translator:
        summary = translate_files(translator, request, lambda outcome: tell_picture(console, outcome))
    console.result({
        "engine": translator.choice.backend,
        "pictures": [picture_data(result) for result in summary.results],
        "failures": [{"input": str(failure.source), "error": str(failure.error)} for failure in summary.failures],
    })  # fmt: skip
    if summary.failures:
        raise SystemExit(summary.failures[0].error.exit_code)
