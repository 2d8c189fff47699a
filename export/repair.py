"""Makes a saved FP16 graph hold its ranges: measured, mended, and measured again until it does or is refused.

What FP16 does not hold is multiplied by a power of two where the graph's rules allow it (``repair_scales``,
``repair_solver``), which costs nothing while it runs. Where they do not, the node that makes it computes in FP32, and
those that take it where they cannot take it scaled: one step at a time, the solver having another try after each. No
name is looked at, only what was measured.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ..engines.errors import RangeError
from ..engines.manifest import RangeLedger, Repair
from .ranges import FP16_LIMIT, Measured, Problem, inaccurate, ledger_of, measure, overflows
from .repair_bounds import Bounds, Ranges, moved_bytes, node_bytes, vanishing
from .samples import Sample
from .saving import save_over
from .stages import stage_of

if TYPE_CHECKING:
    import onnx_ir as ir

    from .passes.widen import Widening

_MOST_ROUNDS = 5  # one is enough unless a sum's parts were hidden behind larger ones
_MOST_ISLANDS = 400  # nodes in one round
_NAMED = 64
_NO_NUMBER = "turbo-inspect CKPT: the checkpoint itself makes what is no number, in FP32, too"


@dataclass(frozen=True)
class Request:
    """``frames()`` gives the calibration frames, anew each time; ``source`` says what they are. ``margin``: at least 1,
    the factor between what is measured and FP16's largest number. ``originals``: weights in FP32, by name, that FP16
    lost when the graph was saved (``ranges.lossy_weights``)."""

    frames: Callable[[], Iterable[Sample]]
    source: str
    margin: float
    originals: dict[str, NDArray[np.float32]] = field(default_factory=dict)


@dataclass(frozen=True)
class Outcome:
    """The ``ledger`` of the graph as it now is, with its repairs; ``islands``: the nodes that compute in FP32 since."""

    ledger: RangeLedger
    islands: tuple[str, ...]


def hold_ranges(onnx: Path, request: Request) -> Outcome:
    """Measure the graph in ``onnx`` and mend it in place, both files at once; one that needs nothing is not touched.

    Raises RangeError, naming tensors, for what is no number in FP32 either and for what is left after five rounds.
    """
    originals = dict(request.originals)
    repairs: list[Repair] = []
    islands: list[str] = []
    for _ in range(_MOST_ROUNDS):
        measured = measure(onnx, request.frames(), originals)
        problems = _problems(onnx, measured, request.margin)
        if not problems:
            return Outcome(ledger_of(measured, request.margin, request.source, (), tuple(repairs)), tuple(islands))
        _refuse([problem for problem in problems if not np.isfinite(problem.reached)], _NO_NUMBER)
        round_ = _Round(onnx, measured, problems, request.margin, originals)
        repairs += round_.mend()
        islands += round_.islands
    _refuse(_problems(onnx, measure(onnx, request.frames(), originals), request.margin), "--precision fp32")
    raise RangeError("the last round of repairs was not needed")  # pragma: no cover


def _problems(onnx: Path, measured: Measured, margin: float) -> list[Problem]:
    """What FP16 does not hold, in the graph's order: of what follows from another the other comes first."""
    import onnx_ir as ir

    graph = ir.load(onnx).graph
    found = [*overflows(measured, margin), *vanishing(graph, measured), *inaccurate(measured)]
    order: dict[str, int] = {}
    for node in graph:
        for value in (*node.inputs, *node.outputs):
            if value is not None:
                order.setdefault(str(value.name), len(order))
    return sorted(found, key=lambda problem: order.get(problem.tensor, -1))


def _refuse(problems: list[Problem], hint: str) -> None:
    if problems:
        listing = "; ".join(_reached(problem) for problem in problems[:10])
        raise RangeError(
            f"{len(problems)} tensors do not fit FP16, and no repair makes them: on a GPU this picture can turn black",
            expected=f"magnitudes up to {FP16_LIMIT:,.0f}",
            got=listing + (f"; and {len(problems) - 10} more" if len(problems) > 10 else ""),
            hint=hint,
        )


def _reached(problem: Problem) -> str:
    return f"{problem.tensor} reaches {problem.reached:,.0f}" if problem.kind == "overflow" else str(problem)


@dataclass
class _Island:
    nodes: list[str] = field(default_factory=list)
    bytes: int = 0


class _Round:
    """One look at a saved graph and all that it asks for."""

    def __init__(
        self, onnx: Path, measured: Measured, problems: list[Problem], margin: float,
        originals: dict[str, NDArray[np.float32]],
    ) -> None:  # fmt: skip
        import onnx_ir as ir

        from .passes.widen import Widening

        self._onnx = onnx
        self._problems = problems
        self._originals = originals
        self._model = ir.load(onnx)
        self._ranges = Ranges(self._model.graph, measured, margin)
        self._widening: Widening = Widening(self._model, originals)
        self._moved = moved_bytes(self._model.graph)
        self._islands: dict[str, _Island] = {}
        self._owners: dict[ir.Node, str] = {}

    @property
    def islands(self) -> tuple[str, ...]:
        return tuple(name for island in self._islands.values() for name in island.nodes)

    def mend(self) -> list[Repair]:
        """Settle every problem, write the graph, and say what was done."""
        from .passes.rescale import Rescale

        for problem in self._problems:
            if problem.kind == "accuracy":
                self._widen_logits(problem)
        bounds = self._settled()
        rescale = Rescale(bounds.scales, bounds.exponents, self._originals)
        named = {problem: bounds.exponent_of(problem.tensor) for problem in self._problems}
        owners = {problem: bounds.owner(problem.tensor) for problem in self._problems}
        rescale(self._model)
        for product in self._widening.kept():
            island = self._islands[self._owners[product]]
            island.nodes.append(str(product.name))
            island.bytes += node_bytes(product)
        self._widening.drop_idle()
        repairs = []
        for problem in self._problems:
            if exponent := named[problem]:
                touched = tuple(rescale.touched.get(owners[problem], ()))
                repairs.append(_repair(problem, "rescale", touched, exponent=exponent))
            if problem.tensor in self._islands:
                repairs.append(self._told_island(problem, self._islands[problem.tensor]))
        save_over(self._model, self._onnx)
        return repairs

    def _told_island(self, problem: Problem, island: _Island) -> Repair:
        share = island.bytes / self._moved
        return _repair(problem, "island", tuple(island.nodes), moved=island.bytes, share=share)

    def _settled(self) -> Bounds:
        """Exponents with which every FP16 tensor is within its bounds, after as many islands as that takes."""
        tried: set[str] = set()
        for _ in range(_MOST_ISLANDS):
            bounds = Bounds(self._model.graph, self._ranges)
            left = bounds.settle()
            if not left:
                return bounds
            self._widen(left[0], again=left[0].name in tried)
            tried.add(str(left[0].name))
        _refuse([p for p in self._problems if p.kind != "accuracy"], "--precision fp32")
        raise RangeError(f"{_MOST_ISLANDS} FP32 nodes are not enough", hint="--precision fp32")

    def _widen(self, value: ir.Value, *, again: bool) -> None:
        """Take one step towards ``value`` in FP32: who makes it, or who takes what is cast from FP32 already."""
        from .repair_bounds import takes_scaled

        if value.is_initializer():
            nodes = [node for node, _ in value.uses()]
        elif (maker := value.producer()) is not None and maker.op_type != "Cast":
            nodes = [maker]
        else:
            takers = [node for node, _ in value.uses()]
            nodes = [node for node in takers if not takes_scaled(node, value)]
            nodes = takers if again or not nodes else nodes
        for node in nodes:
            self._widen_node(node, self._ranges.origin(str(value.name)))

    def _widen_logits(self, problem: Problem) -> None:
        """The Softmax that takes them, and what makes them."""
        value = next(v for node in self._model.graph for v in node.outputs if v.name == problem.tensor)
        takers = [node for node, _ in value.uses() if node.op_type == "Softmax"]
        if (maker := value.producer()) is not None:
            self._widen_node(maker, problem.tensor)
        for node in takers:
            self._widen_node(node, problem.tensor)

    def _widen_node(self, node: ir.Node, origin: str) -> None:
        from .passes.edit import forget_unused

        before = moved_bytes(self._model.graph, self._widening.borders)
        self._widening.widen(node)
        for border in self._widening.borders:
            self._owners.setdefault(border, origin)
        forget_unused(self._model)
        self._ranges.follow(self._model.graph, self._widening.copies)
        island = self._islands.setdefault(origin, _Island())
        island.nodes.append(str(node.name))
        island.bytes += moved_bytes(self._model.graph, self._widening.borders) - before


def _repair(
    problem: Problem, kind: str, nodes: tuple[str, ...], *, exponent: int = 0, moved: int = 0, share: float = 0.0
) -> Repair:
    return Repair(
        kind=kind, problem=problem.kind, tensor=problem.tensor, stage=stage_of(problem.tensor), reached=problem.reached,
        limit=problem.limit, exponent=exponent, nodes=nodes[:_NAMED], node_count=len(nodes), bytes=moved,
        time_share=share,
    )  # fmt: skip
