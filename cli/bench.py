"""``turbo-bench``: how fast, how faithful and how large a bundle is here, beside what else could run it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import typer

from .._console import Console
from ..engines.errors import UsageError
from ..engines.frame_layout import size_of
from ..export.base import DEFAULT_BASE
from .bench_options import (
    Against,
    Base,
    Batches,
    BundlePath,
    Checkpoint,
    Compare,
    Device,
    Frames,
    JsonFile,
    MetricPython,
    MetricTarget,
    MetricWeights,
    Predict,
    Rate,
    ReportFolder,
    Rounds,
    Seconds,
    Sizes,
    Suites,
)
from .options import Debug, Quiet, typed_command

if TYPE_CHECKING:
    from ..benchmarks.compare import Comparison
    from ..benchmarks.result import BenchResult
    from ..benchmarks.suite import Bench
    from ..benchmarks.sweep import Sweep

_SUITES = "latency,quality,throughput,memory,energy,stream"


def main() -> None:
    """Entry point of ``turbo-bench``."""
    typer.run(bench)


def bench(
    bundle: BundlePath,
    against: Against = None,
    suite: Suites = _SUITES,
    frames: Frames = None,
    ckpt: Checkpoint = None,
    base: Base = DEFAULT_BASE,
    size: Sizes = None,
    batch: Batches = None,
    fps: Rate = None,
    device: Device = None,
    repeat: Rounds = 200,
    seconds: Seconds = 60.0,
    predict: Predict = None,
    metric_weights: MetricWeights = None,
    metric_python: MetricPython = None,
    metric_target: MetricTarget = None,
    json_file: JsonFile = None,
    report: ReportFolder = None,
    compare: Compare = None,
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
        from ..benchmarks.latency import StoppingRule
        from ..benchmarks.report import refuse_foreign_folder
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
        _write(console, found, json_file, report)
        if earlier is not None:
            _hold_against(console, earlier, found.result)


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


def _write(console: Console, found: Bench, json_file: Path | None, report: Path | None) -> None:
    from ..benchmarks.report import write_report

    if json_file is not None:
        found.result.save(json_file)
        console.say(f"written: {json_file}")
    if report is not None:
        console.say(f"written: {write_report(report, found.result, found.shown)}")


def _hold_against(console: Console, earlier: BenchResult, result: BenchResult) -> None:
    from ..benchmarks.compare import compare_results

    comparison = compare_results(earlier, result)
    tell_comparison(console, comparison)
    comparison.refuse_regressions()


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
