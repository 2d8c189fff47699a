"""A generator run piece by piece, so that thousands of activations can be looked at and none has to be kept.

ONNX Runtime gives back all outputs of a run at once. Every activation that calibration wants is 2 to 4 GB at full size,
on top of what the run itself takes. So the graph is cut into sections whose wanted activations fit a budget: each frame
goes through all of them once, and between two sections only that lives on which a later one takes.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from numpy.typing import NDArray

from ...engines.onnxruntime import LEAN, OnnxRuntimeEngine
from ..costs import bytes_of

if TYPE_CHECKING:
    import onnx_ir as ir

Visitor = Callable[[str, NDArray[Any]], None]

BUDGET = 600_000_000  # bytes of wanted activations in one section


@dataclass(frozen=True)
class _Section:
    nodes: tuple[ir.Node, ...]
    inputs: tuple[ir.Value, ...]
    outputs: tuple[ir.Value, ...]


def visit(
    model: ir.Model, beside: Path, feeds: Iterable[Mapping[str, NDArray[Any]]], wanted: Collection[str],
    visitor: Visitor, budget: int = BUDGET,
) -> int:  # fmt: skip
    """Run ``model`` on each of ``feeds`` and show ``visitor`` every value named in ``wanted``; returns how many feeds.

    ``beside`` is the file that the model was loaded from: its weights stay there, and the sections' graphs are written
    into the same folder and removed. An array shown is only good during the call. Values without a producer (graph
    inputs) cannot be wanted. Raises ValueError for a name that no node makes.
    """
    names = set(wanted)
    made = {str(output.name) for node in model.graph for output in node.outputs}
    if not made.issuperset(names):
        raise ValueError(f"no node makes {sorted(names - made)[:10]}")
    sections = _cut(model.graph, names, budget)
    count = 0
    with ExitStack() as stack:
        engines = [stack.enter_context(_opened(model, section, beside, i)) for i, section in enumerate(sections)]
        last = {value: i for i, section in enumerate(sections) for value in section.inputs}
        for feed in feeds:
            count += 1
            alive: dict[str, NDArray[Any]] = dict(feed)
            for index, (section, engine) in enumerate(zip(sections, engines, strict=True)):
                results = engine.run({str(value.name): alive[str(value.name)] for value in section.inputs})
                for name in names & results.keys():
                    visitor(name, results[name])
                alive.update(results)
                keep = {str(value.name) for value, until in last.items() if until > index}
                alive = {name: array for name, array in alive.items() if name in keep}
                del results
    return count


def _cut(graph: ir.Graph, wanted: set[str], budget: int) -> list[_Section]:
    """Runs of nodes in the graph's order, each with at most ``budget`` bytes of wanted values or with one of them."""
    runs: list[list[ir.Node]] = [[]]
    held = 0
    for node in graph:
        size = sum(bytes_of(output) for output in node.outputs if output.name in wanted)
        if size and held and held + size > budget:
            runs.append([])
            held = 0
        held += size
        runs[-1].append(node)
    if len(runs) > 1 and not runs[-1]:
        runs.pop()
    where = {node: index for index, run in enumerate(runs) for node in run}
    return [_section(run, index, where, wanted) for index, run in enumerate(runs)]


def _section(run: list[ir.Node], index: int, where: Mapping[ir.Node, int], wanted: set[str]) -> _Section:
    inside = {output for node in run for output in node.outputs}
    taken = dict.fromkeys(value for node in run for value in node.inputs if value is not None)
    outputs = [
        value
        for value in (output for node in run for output in node.outputs)
        if value.name in wanted or any(where[user] > index for user, _ in value.uses())
    ]
    inputs = [value for value in taken if value not in inside and not value.is_initializer()]
    if not outputs:  # the last one, behind everything that is wanted: ONNX Runtime wants an output
        outputs = [output for node in run[-1:] for output in node.outputs]
    return _Section(tuple(run), tuple(inputs), tuple(outputs))


@contextmanager
def _opened(model: ir.Model, section: _Section, beside: Path, index: int) -> Iterator[OnnxRuntimeEngine]:
    path = beside.with_name(f".{beside.stem}.section-{index}.onnx")
    try:
        path.write_bytes(_proto(model, section))
        with OnnxRuntimeEngine(path, options=replace(LEAN, optimise=False)) as engine:
            path.unlink()  # read by now; the weights' file is another one
            yield engine
    finally:
        path.unlink(missing_ok=True)


def _proto(model: ir.Model, section: _Section) -> bytes:
    import onnx
    import onnx_ir as ir

    weights = dict.fromkeys(
        value for node in section.nodes for value in node.inputs if value is not None and value.is_initializer()
    )
    graph = onnx.GraphProto(name="section")
    graph.node.extend(ir.to_proto(node) for node in section.nodes)
    graph.input.extend(ir.to_proto(value) for value in section.inputs)
    graph.output.extend(ir.to_proto(value) for value in section.outputs)
    for value in weights:
        if value.const_value is not None:
            tensor = ir.to_proto(value.const_value)
            tensor.name = str(value.name)
            graph.initializer.append(tensor)
    opsets = [
        onnx.OperatorSetIdProto(domain=domain, version=version) for domain, version in model.opset_imports.items()
    ]
    proto = onnx.ModelProto(ir_version=model.ir_version or 10, graph=graph, opset_import=opsets)
    return bytes(proto.SerializeToString())
