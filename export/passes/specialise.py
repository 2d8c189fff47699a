"""One step, one prompt, one size: whatever follows from constants alone becomes a constant.

That is the time embedding and its projections, the cross-attention's keys and values, shapes, and transposed weights.
"""

from __future__ import annotations

import onnx_ir as ir
from onnx_ir.passes import InPlacePass, PassResult, PostconditionError
from onnx_ir.passes.common import RemoveUnusedNodesPass
from onnxscript import optimizer

# The optimizer's limits guard general graphs from growing; here folding is the point, and the sizes are known.
_NO_LIMIT = 1 << 40
_ROUNDS = 2


class Specialise(InPlacePass):
    """Ensures: no node depends on constants alone, no node is without effect."""

    def call(self, model: ir.Model) -> PassResult:
        before, weights = len(model.graph), list(model.graph.initializers.values())
        # The optimizer's rewrite rules take time quadratic in nodes, of which folding leaves a third: so it goes first.
        optimizer.fold_constants_ir(
            model, onnx_shape_inference=True, input_size_limit=_NO_LIMIT, output_size_limit=_NO_LIMIT
        )
        RemoveUnusedNodesPass()(model)
        optimizer.optimize_ir(
            model, num_iterations=_ROUNDS, onnx_shape_inference=True, stop_if_no_change=True,
            input_size_limit=_NO_LIMIT, output_size_limit=_NO_LIMIT,
        )  # fmt: skip
        for value in weights:
            if not value.is_initializer():
                value.const_value = None  # folded away; see release for who would keep it
        return PassResult(model, modified=len(model.graph) != before)

    def ensures(self, model: ir.Model) -> None:
        left = constant_nodes(model)
        if left:
            raise PostconditionError(f"{len(left)} nodes depend on constants alone: {[n.name for n in left[:10]]}")


def constant_nodes(model: ir.Model) -> list[ir.Node]:
    """The nodes that need no graph input, directly or through others. A specialised graph has none."""
    varying: set[ir.Value | None] = set(model.graph.inputs)
    constant: list[ir.Node] = []
    for node in model.graph:
        if varying.isdisjoint(node.inputs):
            constant.append(node)
        else:
            varying.update(node.outputs)
    return constant


def release(model: ir.Model) -> None:
    """Let go of the weights of a model that was saved. It cannot be used any more.

    onnxscript's rewrite rules keep the last graph they matched for as long as the process lives, and with it gigabytes.
    """
    for value in model.graph.initializers.values():
        value.const_value = None
