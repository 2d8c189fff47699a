"""One step, one prompt, one size: whatever follows from constants alone becomes a constant.

That is the time embedding and its projections, the cross-attention's keys and values, shapes, and transposed weights.
"""

from __future__ import annotations

import onnx_ir as ir
from onnx_ir.passes import InPlacePass, PassResult, PostconditionError, common
from onnxscript import optimizer
from onnxscript.rewriter import rewrite
from onnxscript.rewriter.rules.common import (
    add_0_rule,
    cast_cast_rule,
    div_by_1_rule,
    fuse_pad_into_conv_rule,
    mul_by_1_rule,
    no_op_cast_rule,
    no_op_expand_rule,
    no_op_transpose_rule,
    normalize_pad_format_conv_rule,
    remove_optional_bias_from_conv_rule,
    remove_optional_bias_from_gemm_rule,
    sub_0_rule,
    transpose_transpose_rule,
    unsqueeze_unsqueeze_rule,
)

# The optimizer's limits guard general graphs from growing; here folding is the point, and the sizes are known.
_NO_LIMIT = 1 << 40
_ROUNDS = 2
# What can be said shorter in a diffusion model as torch writes it. `optimizer.optimize_ir` tries twice as many rules,
# among them one for pairs of slices that alone takes longer than all of this.
_RULES = (
    *mul_by_1_rule.commute(), *add_0_rule.commute(), sub_0_rule, div_by_1_rule, cast_cast_rule, no_op_cast_rule,
    no_op_expand_rule, no_op_transpose_rule, transpose_transpose_rule, unsqueeze_unsqueeze_rule,
    normalize_pad_format_conv_rule, fuse_pad_into_conv_rule, remove_optional_bias_from_conv_rule,
    remove_optional_bias_from_gemm_rule,
)  # fmt: skip
_TIDY = ir.passes.Sequential(
    common.RemoveUnusedNodesPass(), common.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0),
    common.DeduplicateInitializersPass(), common.CommonSubexpressionEliminationPass(), common.NameFixPass(),
)  # fmt: skip


class Specialise(InPlacePass):
    """Ensures: no node depends on constants alone, no node is without effect."""

    def call(self, model: ir.Model) -> PassResult:
        before, weights = len(model.graph), list(model.graph.initializers.values())
        for _ in range(_ROUNDS):
            optimizer.fold_constants_ir(
                model, onnx_shape_inference=True, input_size_limit=_NO_LIMIT, output_size_limit=_NO_LIMIT
            )
            common.RemoveUnusedNodesPass()(model)
            rewrite(model, _RULES)
        _TIDY(model)
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
