"""Names that say where a node belongs, instead of metadata that says where it was built."""

from __future__ import annotations

import ast
from collections import Counter
from collections.abc import Iterator

import onnx_ir as ir
from onnx_ir.passes import InPlacePass, PassResult, PostconditionError
from onnx_ir.passes.common import ClearMetadataAndDocStringPass

from ..stages import STAGES, stage_of

# Where torch's exporter notes the module path of every node.
_SCOPES = "pkg.torch.onnx.name_scopes"


class StageNames(InPlacePass):
    """Every node becomes ``<stage>/<module path>/<operator>_<n>``, every value and weight likewise; metadata goes.

    Stack traces and build paths are most of a traced graph's bytes and differ from machine to machine. Graph inputs,
    outputs and the values named in ``keep`` keep their names.
    """

    def __init__(self, keep: frozenset[str] = frozenset()) -> None:
        self.keep = keep

    def call(self, model: ir.Model) -> PassResult:
        scopes = _scopes(model)
        counts: Counter[str] = Counter()
        fixed = {value.name for value in (*model.graph.inputs, *model.graph.outputs)} | self.keep
        for node in model.graph:
            stem = f"{scopes[node]}/{node.op_type}"
            node.name = f"{stem}_{counts[stem]}"
            counts[stem] += 1
            for index, output in enumerate(node.outputs):
                if output.name not in fixed:
                    output.name = node.name if len(node.outputs) == 1 else f"{node.name}.{index}"
        _name_weights(model)
        ClearMetadataAndDocStringPass()(model)
        for value in _values(model):
            value.metadata_props.clear()
            value.doc_string = None
        model.producer_name, model.producer_version = "edgeturbo", None
        model.graph.name = "generator"
        return PassResult(model, modified=True)

    def ensures(self, model: ir.Model) -> None:
        nameless = [node.name for node in model.graph if stage_of(node.name) not in STAGES]
        if nameless:
            raise PostconditionError(f"{len(nameless)} nodes belong to no stage: {nameless[:10]}")
        if any(item.metadata_props for item in (*model.graph, *_values(model))):
            raise PostconditionError("metadata is left")


def _values(model: ir.Model) -> Iterator[ir.Value]:
    yield from model.graph.inputs
    yield from model.graph.initializers.values()
    for node in model.graph:
        yield from node.outputs


def _scopes(model: ir.Model) -> dict[ir.Node, str]:
    """Each node's module path as ``stage/module.path``. A node that a rewrite made belongs where its input does."""
    scopes: dict[ir.Node, str] = {}
    for node in model.graph:
        modules = ast.literal_eval(node.metadata_props.get(_SCOPES, "[]"))[:-1]
        path = modules[-1] if modules else ""
        if path.partition(".")[0] not in STAGES:
            producers = [value.producer() for value in node.inputs if value is not None]
            known = [scopes[producer] for producer in producers if producer is not None]
            scopes[node] = max(known, key=lambda scope: STAGES.index(scope.partition("/")[0]), default=STAGES[0])
        else:
            scopes[node] = "/".join(path.split(".", 1))
    return scopes


def _name_weights(model: ir.Model) -> None:
    """A weight is called after the first node that takes it: ``<node>:<input index>``."""
    weights = list(model.graph.initializers.values())
    taken: set[str] = set()
    order = {node: index for index, node in enumerate(model.graph)}
    model.graph.initializers.clear()
    for value in sorted(weights, key=lambda value: min((order[node], index) for node, index in value.uses())):
        node, index = min(value.uses(), key=lambda use: (order[use[0]], use[1]))
        value.name = f"{node.name}:{index}"
        if value.name in taken:
            raise PostconditionError(f"two weights are called {value.name}")
        taken.add(value.name)
        model.graph.register_initializer(value)
