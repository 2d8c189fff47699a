"""``turbo-bench``: how fast, how faithful and how large a bundle is here, beside what else could run it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Optional

import typer

from .._console import Console
from ..engines.errors import UsageError
from ..engines.frame_layout import size_of
from ..export.base import DEFAULT_BASE
from .options import Debug, Quiet, typed_command

if TYPE_CHECKING:
    from ..benchmarks.compare import Comparison
    from ..benchmarks.result import BenchResult
    from ..benchmarks.sweep import Sweep

_SUITES = "latency,quality,throughput,memory,energy,stream"


def main() -> None:
    """Entry point of ``turbo-bench``."""
    typer.run(bench)


def bench(
    bundle: Annotated[Path, typer.Argument(metavar="BUNDLE", help="A bundle's folder, or a plan or ONNX file in one.")],
    against: Annotated[
        Optional[str],
        typer.Option(
            metavar="NAME,…",
            help="What to measure beside it: pytorch, pytorch-compile, onnxruntime, openvino, tensorrt, three-engines.",
        ),
    ] = None,
    suite: Annotated[str, typer.Option(metavar="NAME,…", help="What to measure.")] = _SUITES,
    frames: Annotated[
        Optional[str], typer.Option(metavar="DIR", help="Pictures to measure on; default: the bundle's goldens.")
    ] = None,
    ckpt: Annotated[
        Optional[Path], typer.Option(help="The checkpoint it was made from: for PyTorch's rows and as reference.")
    ] = None,
    base: Annotated[str, typer.Option(help="Its base model.")] = DEFAULT_BASE,
    size: Annotated[
        Optional[str],
        typer.Option(metavar="WxH,…|auto", help="Other sizes too, exported from --ckpt; auto: see --fps."),
    ] = None,
    batch: Annotated[
        Optional[str], typer.Option(metavar="N,…", help="Other batches too, exported from --ckpt.")
    ] = None,
    fps: Annotated[
        Optional[float],
        typer.Option(help="For --size auto: what --device is to reach at the proposed size."),
    ] = None,
    device: Annotated[
        Optional[str], typer.Option(metavar="NAME", help="For --size auto: agx-orin, rtx-4090, …")
    ] = None,
    repeat: Annotated[int, typer.Option(metavar="N", help="The most rounds of a latency measurement.")] = 200,
    seconds: Annotated[float, typer.Option(help="The most seconds of one.")] = 60.0,
    predict: Annotated[
        Optional[str], typer.Option(metavar="DEVICE,…", help="Estimate these too, e.g. agx-orin,rtx-4090, or all.")
    ] = None,
    metric_weights: Annotated[
        Optional[Path], typer.Option(metavar="DIR", help="Weights for LPIPS, Clean-FID and DINO-Struct-Dist.")
    ] = None,
    metric_python: Annotated[
        Optional[Path], typer.Option(metavar="F", help='The Python that has "edgeturbo[metrics]" installed.')
    ] = None,
    metric_target: Annotated[
        Optional[str], typer.Option(metavar="DIR", help="Real pictures of the target domain, for Clean-FID.")
    ] = None,
    json_file: Annotated[Optional[Path], typer.Option("--json", metavar="F", help="Write the result here.")] = None,
    report: Annotated[
        Optional[Path], typer.Option(metavar="DIR", help="Write a report here: HTML, Markdown and the result.")
    ] = None,
    compare: Annotated[
        Optional[Path], typer.Option(metavar="OLD.json", help="Exit with 5 if anything got worse since this result.")
    ] = None,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Measure a bundle: latency, likeness, memory, throughput, energy and the camera loop, each with its doubt.

    turbo-bench day2night --report report

    turbo-bench day2night --against pytorch,openvino --ckpt day2night.pkl --base sd-turbo --json today.json

    turbo-bench day2night --suite latency,quality --compare yesterday.json

    turbo-bench day2night --suite latency,memory --size 256x256,384x384 --batch 2,4 --ckpt day2night.pkl
    """
    console = Console(quiet=quiet, debug=debug)
    with console.reporting_errors():
        from ..benchmarks.compare import compare_results
        from ..benchmarks.latency import StoppingRule
        from ..benchmarks.report import refuse_foreign_folder, write_report
        from ..benchmarks.result import load_result
        from ..benchmarks.row_suite import Weights
        from ..benchmarks.rows import Setting
        from ..benchmarks.suite import BenchOptions, run_bench

        earlier = None if compare is None else load_result(compare)
        if report is not None:
            refuse_foreign_folder(report)
        rule = StoppingRule(least=min(10, repeat), most=repeat, seconds=seconds)
        target = _auto_target(size, fps, device)
        options = BenchOptions(
            suites=_words(suite), against=_words(against or ""), frames=frames, rule=rule, predict=predict,
            sweep=_sweep(None if target else size, batch), auto_size=target,
            weights=Weights(metric_weights, metric_python, metric_target),
        )  # fmt: skip
        with console.progress() as show:
            found = run_bench(Setting(bundle, ckpt, base), options, typed_command(), lambda stage: show(stage, None))
        tell_result(console, found.result)
        if json_file is not None:
            found.result.save(json_file)
            console.say(f"written: {json_file}")
        if report is not None:
            console.say(f"written: {write_report(report, found.result, found.shown)}")
        if earlier is not None:
            comparison = compare_results(earlier, found.result)
            tell_comparison(console, comparison)
            comparison.refuse_regressions()


def tell_result(console: Console, result: BenchResult) -> None:
    """The sections of the report as text: a line for each row."""
    from ..benchmarks.report.sections import headline, sections

    for section in sections(result, {}):
        if section.warns:
            for line in section.lines:
                console.warn(line)
        elif section.title not in ("Environment", "The exact command"):
            console.say(section.title)
            for row in section.cells:
                pairs = [f"{name} {cell}" for name, cell in zip(section.head[1:], row[1:], strict=True) if cell != "-"]
                console.say(f"  {row[0]}: {', '.join(pairs)}")
            if not section.cells:
                for line in section.lines:
                    console.say(f"  {line}")
    console.say(headline(result))


def tell_comparison(console: Console, comparison: Comparison) -> None:
    for sentence in comparison.apart:
        console.warn(sentence)
    for change in comparison.changes:
        console.say(f"  {change}")
    console.say(f"{len(comparison.regressions)} of {len(comparison.changes)} figures got worse")


def _sweep(size: str | None, batch: str | None) -> Sweep:
    from ..benchmarks.sweep import Sweep

    batches = _words(batch or "")
    if not all(word.isdigit() and int(word) > 0 for word in batches):
        raise UsageError(
            "--batch is not a list of numbers", expected="for example 1,2,4", got=batch, hint="--batch 2,4"
        )
    return Sweep(tuple(size_of(word, "--size") for word in _words(size or "")), tuple(map(int, batches)))


def _auto_target(size: str | None, fps: float | None, device: str | None) -> tuple[str, float] | None:
    """The device and the rate that a size is proposed for; None unless ``size`` is ``auto``."""
    if size == "auto":
        if fps is None or device is None:
            raise UsageError("--size auto wants a rate and a device", hint="--size auto --fps 15 --device agx-orin")
        return device, fps
    if fps is not None or device is not None:
        raise UsageError("--fps and --device are for --size auto", got=size or "no --size", hint="--size auto")
    return None


def _words(text: str) -> tuple[str, ...]:
    return tuple(dict.fromkeys(word.strip() for word in text.split(",") if word.strip()))
