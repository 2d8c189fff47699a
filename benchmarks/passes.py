"""``python -m edgeturbo.benchmarks.passes``: what each graph pass gains on the whole generator, on CPU engines.

Every set of passes is measured against the graph without any, in turns: A B C A B C, each turn in a process of its
own, so that a machine that slows down slows all of them down, and one graph's memory is gone before the next one's.
Besides the time by the clock stands the processors' time, which others at work on the machine disturb less.
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from numpy.typing import NDArray

from .._console import Console
from ..engines.base import TensorSpec
from ..engines.errors import UsageError
from ..engines.files import write_json
from .apart import call_apart
from .environment import finished, read_environment
from .full_size import cyclegan_options
from .latency import clocked

GRAPH = "generator.onnx"
_DATA = "generator.onnx.data"
ENGINES = ("onnxruntime-f32", "openvino-f32", "openvino-bf16")
_PLAIN = "none"
_ROUNDS, _RUNS = 3, 2


@dataclass(frozen=True)
class Turn:
    """One process's work: seconds by the clock and of the processors for each frame, and the image in [-1, 1]."""

    seconds: tuple[float, ...]
    cpu_seconds: tuple[float, ...]
    image: NDArray[np.float32]


@dataclass(frozen=True)
class Gain:
    """How a set of passes compares with no passes on one engine; ratios above 1 are gains.

    ``spread`` is the least and the largest of the rounds' ratios; ``max_abs`` the largest difference in the image,
    whose range is [-1, 1], from the graph without passes on the same engine.
    """

    engine: str
    passes: str
    seconds: float
    cpu_seconds: float
    gain: float
    cpu_gain: float
    spread: tuple[float, float]
    cpu_spread: tuple[float, float]
    max_abs: float


def main(
    work: Annotated[Path, typer.Option(help="Holds base/, cyclegan.pkl, and what is written on the way.")] = Path(
        "full-size"
    ),
    results: Annotated[Path, typer.Option(help="Where to put the figures.")] = Path("benchmarks/results"),
    size: Annotated[int, typer.Option(help="Width and height in pixels.")] = 512,
    passes: Annotated[
        list[str] | None, typer.Option(help="A set, NAME or NAME+NAME. Default: each alone, all.")
    ] = None,
    engine: Annotated[list[str] | None, typer.Option(help=f"Default: {', '.join(ENGINES)}.")] = None,
    rounds: Annotated[int, typer.Option(help="Turns of every graph.")] = _ROUNDS,
) -> None:
    """Measure graph passes on ``make full-size``'s random CycleGAN-Turbo checkpoint, in FP32 graphs."""
    console = Console()
    with console.reporting_errors():
        target = measure(console, work, results, Plan(size, tuple(passes or ()), tuple(engine or ENGINES), rounds))
        console.say(str(target))


@dataclass(frozen=True)
class Plan:
    """What to measure: ``sets`` as words of ``NAME+NAME``, empty for each pass alone and all of them together."""

    size: int
    sets: tuple[str, ...]
    engines: tuple[str, ...]
    rounds: int

    def chosen(self) -> tuple[str, ...]:
        """The sets, without the empty one."""
        from ..export.passes.choice import PASSES

        return self.sets or (*PASSES, "+".join(PASSES))


def measure(console: Console, work: Path, results: Path, plan: Plan) -> Path:
    """Write the graphs under ``work``, time them, and add the figures to ``results``/passes.json, whose path returns.

    A graph that stands in ``work``/graph-SIZE already is taken as it is. Raises UsageError for unknown engines and
    passes.
    """
    unknown = [name for name in plan.engines if name not in ENGINES]
    if unknown:
        raise UsageError(f"--engine does not know {', '.join(unknown)}", expected=", ".join(ENGINES))
    environment = read_environment()
    plain = work / f"graph-{plan.size}"
    if not (plain / GRAPH).exists():
        console.note("tracing the generator ...")
        write_plain(work, plain, plan.size)
    graphs = {_PLAIN: _with_passes(plain, work / f"graph-{plan.size}-{_PLAIN}", ())}
    for words in plan.chosen():
        graphs[words] = _with_passes(plain, work / f"graph-{plan.size}-{words}", tuple(words.split("+")))
    gains = [gain for engine in plan.engines for gain in _compare(console, engine, graphs, plan.rounds)]
    return _save(
        results, plan, {name: facts(path) for name, path in graphs.items()}, gains, asdict(finished(environment))
    )


def facts(onnx: Path) -> dict[str, int]:
    """A graph's nodes, bytes of weights, and floating-point operations in Conv and MatMul, 2 per multiply-add."""
    import onnx_ir as ir

    from ..export.costs import operations

    graph = ir.load(onnx).graph
    return {
        "nodes": len(graph),
        "weight_bytes": sum(v.const_value.nbytes for v in graph.initializers.values() if v.const_value is not None),
        "flop": sum(operations(node) for node in graph),
    }


def write_plain(work: Path, folder: Path, size: int) -> None:
    """The graph as an export has it before its precision is decided: FP32, specialised, named by stages."""
    import onnx_ir as ir

    from ..export.passes.specialise import Specialise
    from ..export.passes.stage_names import StageNames
    from ..export.trace import UNQUANTISED, onnx_from_generator
    from .gpu_check.pytorch_model import Parts

    parts = Parts.of(cyclegan_options(work, size, size))
    model = onnx_from_generator(parts.merged(), parts.recipe.shape)
    Specialise()(model)
    StageNames(frozenset({UNQUANTISED}))(model)
    model.graph.outputs.pop()
    folder.mkdir(parents=True, exist_ok=True)
    ir.save(model, folder / GRAPH, external_data=_DATA)


def _with_passes(plain: Path, folder: Path, names: tuple[str, ...]) -> Path:
    """The graph in ``plain`` after the passes, written to ``folder``; the image before quantisation is an output."""
    import onnx_ir as ir

    from ..export.passes.choice import chosen_passes
    from ..export.trace import UNQUANTISED

    steps = chosen_passes(names)
    model = ir.load(plain / GRAPH)
    for step in steps:
        step(model)
    model.graph.outputs.append(next(v for node in model.graph for v in node.outputs if v.name == UNQUANTISED))
    folder.mkdir(parents=True, exist_ok=True)
    ir.save(model, folder / GRAPH, external_data=_DATA)
    return folder / GRAPH


def _compare(console: Console, engine: str, graphs: dict[str, Path], rounds: int) -> list[Gain]:
    turns: dict[str, list[Turn]] = {name: [] for name in graphs}
    for round_ in range(rounds):
        for name, path in graphs.items():
            # What one engine leaves in memory must not be there for the next one.
            turns[name].append(call_apart(take_turn, engine, path))
            console.note(f"round {round_ + 1}, {engine}, {name}: {turns[name][-1].seconds} s")
    return [_gain(engine, name, turns[_PLAIN], turns[name]) for name in graphs]


def take_turn(engine: str, onnx: Path) -> Turn:
    """Open ``onnx`` on ``engine`` and run one random frame a few times; the first counts, it is the same work."""
    run, shape = _opened(engine, onnx)
    frame = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    seconds, cpu_seconds = [], []
    for _ in range(_RUNS):
        image, taken, worked = clocked(partial(run, frame))
        seconds.append(taken)
        cpu_seconds.append(worked)
    return Turn(tuple(seconds), tuple(cpu_seconds), np.array(image))


def _opened(engine: str, onnx: Path) -> tuple[Callable[[Any], Any], tuple[int, ...]]:
    """A function from a frame to the image before quantisation, and the frame's shape."""
    from ..export.trace import UNQUANTISED

    if engine == "onnxruntime-f32":
        from ..engines.onnxruntime import OnnxRuntimeEngine

        opened = OnnxRuntimeEngine(onnx)
        opened.open()
        frame: TensorSpec = opened.inputs[0]
        return lambda values: opened.run({frame.name: values})[UNQUANTISED], frame.shape
    compiled = (
        import_module("openvino")
        .Core()
        .compile_model(str(onnx), "CPU", {"INFERENCE_PRECISION_HINT": engine.rpartition("-")[2]})
    )
    return lambda values: compiled(values)[1], tuple(compiled.input(0).shape)


def _gain(engine: str, name: str, plain: list[Turn], turns: list[Turn]) -> Gain:
    def median(of: list[Turn], what: str) -> float:
        return float(statistics.median(value for turn in of for value in getattr(turn, what)))

    def ratios(what: str) -> tuple[float, float]:
        each = [median([a], what) / max(median([b], what), 1e-9) for a, b in zip(plain, turns, strict=True)]
        return round(min(each), 3), round(max(each), 3)

    return Gain(
        engine, name,
        seconds=round(median(turns, "seconds"), 4),
        cpu_seconds=round(median(turns, "cpu_seconds"), 4),
        gain=round(median(plain, "seconds") / max(median(turns, "seconds"), 1e-9), 3),
        cpu_gain=round(median(plain, "cpu_seconds") / max(median(turns, "cpu_seconds"), 1e-9), 3),
        spread=ratios("seconds"),
        cpu_spread=ratios("cpu_seconds"),
        max_abs=float(max(np.abs(a.image - b.image).max() for a, b in zip(plain, turns, strict=True))),
    )  # fmt: skip


def _save(results: Path, plan: Plan, graphs: dict[str, Any], gains: list[Gain], environment: dict[str, Any]) -> Path:
    """Add this run to passes.json: what was measured at other sizes or on other engines before stays there."""
    target = results / "passes.json"
    runs = json.loads(target.read_text(encoding="utf-8"))["runs"] if target.exists() else []
    run = {
        "size": plan.size, "rounds": plan.rounds, "frames_per_round": _RUNS, "environment": environment,
        "graphs_fp32": graphs, "gains": [asdict(gain) for gain in gains],
    }  # fmt: skip
    write_json(target, {"runs": [*runs, run]}, indent=2)
    return target


if __name__ == "__main__":
    typer.run(main)
