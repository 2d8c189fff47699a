"""The rows of the full-size study on a CPU: how each is written, opened and run, in a process of its own."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ..engines._build_job import peak_rss_bytes
from .apart import call_apart
from .full_size import cyclegan_options
from .latency import clocked

if TYPE_CHECKING:
    from ..engines.base import Engine
    from .gpu_check.pytorch_model import Parts

Frame = NDArray[np.uint8]
Run = Callable[[Frame], Any]

EAGER = "pytorch-fp32"
PRODUCTS = "products-f32"  # no generator: as many operations, in products of matrices, the best that a CPU is at
ROWS = (
    EAGER, PRODUCTS, "pytorch-bf16", "pytorch-compile-fp32", "onnxruntime-fp32", "onnxruntime-fp16", "openvino-f32",
    "openvino-f32-plan", "openvino-f32-split", "openvino-f32-winograd", "openvino-bf16", "three-openvino-f32",
)  # fmt: skip
_GRAPH, _DATA = "generator.onnx", "generator.onnx.data"
_PLAN = "openvino-f32.plan"
# The passes that a row's graph has beyond an export's own, by how the row's name ends.
_ALGEBRA = {"split": "split-upsample", "winograd": "winograd"}
_SIDE = 2048  # 3 x 17 MB; larger ones are no faster
_FIRST = -20  # the highest of Linux's priorities, setpriority(2)


@dataclass(frozen=True)
class Case:
    """The generator of ``work``/cyclegan.pkl at one size, in pixels."""

    work: Path
    width: int
    height: int

    def graph(self, precision: str) -> Path:
        return self.work / f"sizes-{self.width}x{self.height}" / precision / _GRAPH

    @property
    def plan(self) -> Path:
        """What `turbo-build --engine openvino` makes of the FP16 graph."""
        return self.work / f"sizes-{self.width}x{self.height}" / _PLAN

    @property
    def costs(self) -> Path:
        """The graph's cost table: kept when the graph is deleted."""
        return self.work / "costs" / f"{self.width}x{self.height}.json"

    def picture(self, row: str) -> Path:
        """Where a row's image of the frame is kept, uint8 [H, W, 3]."""
        return self.work / "pictures" / f"{row}-{self.width}x{self.height}.npy"

    def frame(self) -> Frame:
        """Random pixels, uint8 [1, H, W, 3], the same for every row."""
        return np.random.default_rng(0).integers(0, 256, (1, self.height, self.width, 3), dtype=np.uint8)


@dataclass(frozen=True)
class Turn:
    """One process's work. ``seconds`` by the clock and ``cpu_seconds`` of the processors for each measured frame;
    ``open_s``: to load, and for a compiler to compile. ``note``: why there are no figures.
    """

    row: str
    width: int
    height: int
    round: int
    open_s: float = 0.0
    warmup_s: float = 0.0
    seconds: tuple[float, ...] = ()
    cpu_seconds: tuple[float, ...] = ()
    peak_rss_bytes: int = 0
    note: str = ""

    def is_of(self, row: str, case: Case, round_: int) -> bool:
        return (self.row, self.width, self.height, self.round) == (row, case.width, case.height, round_)


def write_graphs(case: Case, rows: tuple[str, ...], tell: Callable[[str], None]) -> None:
    """Write the ONNX files that ``rows`` need and that are not there yet."""
    wanted = {precision for row in rows for precision in _graphs_of(row)}
    missing = sorted(name for name in wanted if not case.graph(name).exists())
    if not missing:
        return
    tell(f"writing {case.width}x{case.height}: {', '.join(missing)}")
    if "three" in missing:
        from .three_engines import export_three

        case.graph("three").parent.mkdir(parents=True, exist_ok=True)
        export_three(_parts(case).merged(), case.width, case.graph("three").parent)
        case.graph("three").write_text("the three are beside this file", encoding="utf-8")
    for precision in missing:
        if precision != "three":
            _write_generator(case, precision)
    if "openvino-f32-plan" in rows and not case.plan.exists():
        call_apart(_write_plan, case)


def take_turn(case: Case, row: str, round_: int, warmup: int, runs: int) -> Turn:
    """Open ``row``, run the frame, and say what it took. What the row raises is the turn's note."""
    frame = case.frame()
    began = time.perf_counter()
    try:
        with _opened(case, row) as run:
            open_s, before = time.perf_counter() - began, time.perf_counter()
            for _ in range(warmup):
                run(frame)
            warmup_s = time.perf_counter() - before
            seconds, cpu_seconds = [], []
            with _first_in_line():
                for _ in range(runs):
                    image, taken, worked = clocked(partial(run, frame))
                    seconds.append(taken)
                    cpu_seconds.append(worked)
            peak = peak_rss_bytes() or 0
    except (RuntimeError, MemoryError) as error:
        return Turn(row, case.width, case.height, round_, note=f"{type(error).__name__}: {error}"[:300])
    _keep(case.picture(row), image)
    return Turn(
        row, case.width, case.height, round_, round(open_s, 2), round(warmup_s, 2), tuple(seconds),
        tuple(cpu_seconds), peak,
    )  # fmt: skip


@contextmanager
def _first_in_line() -> Iterator[None]:
    """Every thread of this process goes before all others of the machine, where the system lets it: a neighbour then
    takes next to nothing away, and waits."""
    tasks = Path("/proc/self/task")
    threads = [int(task.name) for task in tasks.iterdir()] if tasks.is_dir() else []
    with suppress(PermissionError):
        for thread in threads:
            os.setpriority(os.PRIO_PROCESS, thread, _FIRST)
    yield
    with suppress(PermissionError):
        for thread in threads:
            os.setpriority(os.PRIO_PROCESS, thread, 0)


def _graphs_of(row: str) -> tuple[str, ...]:
    if row.startswith("three"):
        return ("three",)
    if row == PRODUCTS:
        return ("fp16",)  # its costs
    if row.startswith("pytorch"):
        return ()
    if row == "onnxruntime-fp32":
        return ("fp32",)
    added = _ALGEBRA.get(row.rpartition("-")[2])
    return ("fp16",) if added is None else (f"fp16-{added}",)


def _keep(path: Path, image: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    np.save(path, np.asarray(image)[0])


@contextmanager
def _opened(case: Case, row: str) -> Iterator[Run]:
    if row == PRODUCTS:
        yield _products(case)
        return
    if row.startswith("pytorch"):
        yield _torch_run(case, row)
        return
    engine = _engine(case, row)
    with engine:
        name, image = engine.inputs[0].name, engine.outputs[0].name
        yield lambda frame: engine.run({name: frame})[image]


def _engine(case: Case, row: str) -> Engine:
    from ..engines.onnxruntime import OnnxRuntimeEngine
    from ..engines.openvino import OpenVinoEngine, OpenVinoOptions

    if row.startswith("onnxruntime"):
        return OnnxRuntimeEngine(case.graph(row.rpartition("-")[2]))
    options = OpenVinoOptions(precision=row.removeprefix("three-").split("-")[1])
    if row.startswith("openvino"):
        return OpenVinoEngine(case.plan if row.endswith("plan") else case.graph(*_graphs_of(row)), options)
    from .three_engines import NAMES, EngineChain

    folder = case.graph("three").parent
    return EngineChain(*(OpenVinoEngine(folder / f"{name}.onnx", options) for name in NAMES))


def _torch_run(case: Case, row: str) -> Run:
    import torch

    from .gpu_check.pytorch_model import merged_module

    dtype = torch.bfloat16 if row.endswith("bf16") else torch.float32
    channels_last = row != EAGER
    module: Any = merged_module(_parts(case).merged(), "cpu", dtype, channels_last=channels_last)
    if "compile" in row:
        module = torch.compile(module)

    def run(frame: Frame) -> Any:
        with torch.no_grad():
            return module(frame=torch.from_numpy(frame)).numpy()

    return run


def _products(case: Case) -> Run:
    """Products of square FP32 matrices, as many as have the operations of the case's graph; gives the frame back."""
    import torch

    from ..engines.costs import read_costs

    times = round(read_costs(case.costs).flops / (2 * _SIDE**3))
    one, other = torch.rand(2, _SIDE, _SIDE)

    def run(frame: Frame) -> Any:
        for _ in range(times):
            torch.mm(one, other)
        return frame

    return run


def _parts(case: Case) -> Parts:
    from .gpu_check.pytorch_model import Parts

    return Parts.of(cyclegan_options(case.work, case.width, case.height))


def _write_generator(case: Case, precision: str) -> None:
    """The graph that an export of this precision writes, its default passes included."""
    import onnx_ir as ir

    from ..engines.select import OPENVINO
    from ..export.costs import write_costs
    from ..export.passes.choice import default_passes
    from ..export.passes.specialise import release
    from ..export.shape import shape_graph
    from ..export.trace import onnx_from_generator

    parts, path = _parts(case), case.graph(precision)
    number, _, added = precision.partition("-")
    model = onnx_from_generator(parts.merged(), parts.recipe.shape)
    shape_graph(model, (*default_passes(OPENVINO), *filter(None, added.split("+"))), half=number == "fp16")
    path.parent.mkdir(parents=True, exist_ok=True)
    ir.save(model, path, external_data=_DATA)
    release(model)
    if added:
        return  # what a size costs is counted without it, for every row alike
    case.costs.parent.mkdir(parents=True, exist_ok=True)
    write_costs(path, case.costs)


def _write_plan(case: Case) -> None:
    from ..engines.files import replacing
    from ..engines.openvino import OpenVinoEngine

    with OpenVinoEngine(case.graph("fp16")) as engine, replacing(case.plan) as path, path.open("wb") as stream:
        engine.write_plan(stream)
