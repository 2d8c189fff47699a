"""``python -m edgeturbo.benchmarks.predict_cpu``: how wrong the roofline is on the one device everybody has.

A generator with random weights and a fifth of SD-Turbo's channels runs in FP32 through ONNX Runtime at several sizes,
in turns; the efficiencies are fitted on all sizes but one, and asked for that one.
"""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Annotated

import numpy as np
import typer

from .._console import Console
from ..engines.costs import Costs
from ..engines.files import write_json
from .devices import measure_cpu
from .environment import finished, read_environment
from .latency import Latency, measure
from .passes import GRAPH, write_plain
from .predict_fit import Measurement, fit, fitted_band, leave_one_out
from .synthetic import Architecture, write_base, write_cyclegan

RESULTS = "predict_cpu.json"
FIFTH = Architecture((64, 128, 256, 256), (1, 2, 4, 4), (32, 64, 128, 128), 8, (64, 1, 2), 520)
SIZES = (128, 192, 256, 320, 384)
_WARMUP = 1


def main(
    work: Annotated[Path, typer.Option(help="Where to write the generators; kept for the next time.")],
    results: Annotated[Path, typer.Option(help="Where to put the figures.")] = Path("benchmarks/results"),
    size: Annotated[list[int] | None, typer.Option(help=f"Default: {SIZES}.")] = None,
    runs: Annotated[int, typer.Option(help="Measured runs of each size.")] = 5,
) -> None:
    """Measure, fit, leave one size out, and write the errors down."""
    console = Console()
    with console.reporting_errors():
        console.say(str(record(work, results, tuple(size or SIZES), runs)))


def record(work: Path, results: Path, sizes: tuple[int, ...], runs: int, architecture: Architecture = FIFTH) -> Path:
    """Measure ``sizes`` and write ``results``/predict_cpu.json, whose path returns.

    Raises UsageError below four sizes. The median of the runs counts for each size: they run in turns, so that what
    others do on the machine slows all sizes alike. A fastest run is one size's luck.
    """
    environment = read_environment()
    graphs = {size: _graph(work, size, architecture) for size in sizes}
    device = measure_cpu()
    latencies = _latencies({size: graph for size, (graph, _) in graphs.items()}, runs)
    measurements = [Measurement(graphs[size][1], device, latencies[size].p50_ms / 1e3) for size in sizes]
    band = fitted_band(measurements)
    document = {
        "what": "ONNX Runtime, FP32, random weights, channels of a fifth of SD-Turbo's; the median of the runs counts",
        "environment": asdict(finished(environment)),
        "architecture": asdict(architecture),
        "device": asdict(device),
        "efficiencies": asdict(fit(measurements)),
        "note": band.source,
        "leave_one_size_out": [asdict(residual) for residual in leave_one_out(measurements)],
        "latencies": {f"{size}x{size}": asdict(latencies[size]) for size in sizes},
        "flops": {f"{size}x{size}": costs.flops for size, (_, costs) in graphs.items()},
    }
    target = results / RESULTS
    write_json(target, document, indent=2)
    return target


def _graph(work: Path, size: int, architecture: Architecture) -> tuple[Path, Costs]:
    """A generator for ``size`` x ``size`` in ``work``, written unless it is there, and its cost table."""
    from ..export.costs import cost_table

    if not (work / "cyclegan.pkl").exists():
        write_base(work / "base", architecture)
        write_cyclegan(work / "base", work / "cyclegan.pkl")
    folder = work / f"graph-{size}"
    if not (folder / GRAPH).exists():
        write_plain(work, folder, size)
    return folder / GRAPH, cost_table(folder / GRAPH)


def _latencies(graphs: dict[int, Path], runs: int) -> dict[int, Latency]:
    from ..engines.onnxruntime import OnnxRuntimeEngine

    with ExitStack() as stack:
        calls = {}
        for size, path in graphs.items():
            engine = stack.enter_context(OnnxRuntimeEngine(path))
            frame = np.random.default_rng(0).integers(0, 256, engine.inputs[0].shape, dtype=np.uint8)
            calls[str(size)] = partial(engine.run, {engine.inputs[0].name: frame})
        return {int(size): latency for size, latency in measure(calls, warmup=_WARMUP, runs=runs).items()}


if __name__ == "__main__":
    typer.run(main)
