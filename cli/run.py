"""``turbo-run``: a bundle translates pictures, videos and cameras."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from .._console import Console
from ..engines.errors import UsageError
from ..export.base import DEFAULT_BASE
from ..runtime.options import StreamOptions
from .options import AsJson, Debug, Force, Quiet
from .present import picture_data, tell_picture
from .run_options import (
    Base,
    BundlePath,
    Checkpoint,
    FurtherOutputs,
    NoiseFile,
    Output,
    Precision,
    Rebuild,
    RunEngine,
    Seed,
    Source,
)
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
    from .stream import StreamWishes


def main() -> None:
    """Entry point of ``turbo-run``."""
    typer.run(run)


def run(
    bundle: BundlePath,
    source: Source,
    output: Output = None,
    outputs: FurtherOutputs = None,
    engine: RunEngine = "auto",
    precision: Precision = None,
    rebuild: Rebuild = "never",
    ckpt: Checkpoint = None,
    base: Base = DEFAULT_BASE,
    seed: Seed = 42,
    noise: NoiseFile = None,
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
        from .stream import StreamWishes

        wanted = (*([output] if output else []), *(outputs or []))
        options = StreamOptions(
            input_width=input_width, input_height=input_height, input_rate=input_rate, input_codec=input_codec,
            flip=input_flip, loop=input_loop, latency_ms=input_latency, output_codec=output_codec,
            output_bitrate=output_bitrate, headless=headless, buffer=buffer, max_frames=max_frames,
            duration_s=duration, backend=backend, force=force,
        )  # fmt: skip
        wishes = StreamWishes(source, wanted, options, skip_similar, no_signal, on_bad_frame, service, token)
        runner = _Runner(bundle, engine, precision, rebuild, ckpt, base, seed, noise)
        _carry_out(console, runner, wishes, print_unit=print_unit)


@dataclass(frozen=True)
class _Runner:
    """What is to run, as it was typed; ``seed`` and ``noise`` are of its noise input."""

    bundle: Path
    engine: str
    precision: str | None
    rebuild: str
    ckpt: Path | None
    base: str
    seed: int
    noise: Path | None


def _carry_out(console: Console, runner: _Runner, wishes: StreamWishes, *, print_unit: bool) -> None:
    from ..runtime.pictures import PictureRequest
    from .stream import are_pictures, print_unit_file, run_stream

    if print_unit:
        print_unit_file(console, runner.bundle, wishes)
    elif are_pictures(wishes):
        output = wishes.outputs[0] if wishes.outputs else None
        request = PictureRequest(wishes.source, output, wishes.options.force, wishes.on_bad_frame or "error")
        _run_pictures(console, _translator(console, runner), request)
    else:
        run_stream(console, _translator(console, runner), wishes)


def _chosen(console: Console, runner: _Runner) -> Engine | Choice:
    """What runs it: PyTorch with its checkpoint, or what fits this machine, built again if that was asked for."""
    from ..engines.select import choose

    bundle = runner.bundle
    if runner.engine == "pytorch":
        return _pytorch_engine(bundle, runner.ckpt, runner.base)
    if runner.rebuild == "auto":
        from ..export.events import telling
        from ..export.plans import renew_plan

        with console.progress() as show:
            renewed = renew_plan(bundle, runner.engine, telling(console, show))
        if renewed is not None:
            console.note(f"rebuilt {renewed.entry.plan}: {renewed.reason}")
            bundle = renewed.bundle.root / renewed.entry.plan if bundle.suffix == ".plan" else renewed.bundle.root
    return choose(bundle, runner.engine, runner.precision)


def _pytorch_engine(bundle: Path, ckpt: Path | None, base: str) -> Engine:
    if ckpt is None:
        raise UsageError(
            "--engine pytorch runs the checkpoint itself, which a bundle does not hold",
            hint=f"turbo-run {bundle} INPUT --engine pytorch --ckpt day2night.pkl --base {base}",
        )
    from ..export.oracle import pytorch_engine

    return pytorch_engine(bundle, ckpt, base)


def _translator(console: Console, runner: _Runner) -> Translator:
    from ..runtime.noise import load_noise
    from ..runtime.translator import Translator

    chosen = _chosen(console, runner)
    noise = None if runner.noise is None else load_noise(runner.noise)
    translator = Translator(runner.bundle, engine=chosen, seed=runner.seed, noise=noise)
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
