"""Where a generator can be quantised: its products with weights, what each multiplies, and the block it belongs to."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING

from ..costs import operations
from ..precision import is_island
from .formats import Format

if TYPE_CHECKING:
    from collections.abc import Iterable

    import onnx_ir as ir

# Tensor cores multiply eight-bit matrices in steps of 16 and more channels; with fewer, most of what is multiplied is
# padding (the rule of ModelOpt's find_nodes_from_convs_to_exclude). This leaves out the convolutions at the picture
# and at the latent (3, 4 and 8 channels): the first and the last ones, the most sensitive, under 1 % of the arithmetic.
_CHANNELS = 16

_WHOLE = ("encoder", "decoder", "network")  # modules that are a stage's all


@dataclass(frozen=True)
class Site:
    """A convolution or matrix product of ``activation`` with ``weight``, whose output channels are its ``axis``."""

    node: ir.Node
    activation: ir.Value
    weight: ir.Value
    axis: int

    @property
    def name(self) -> str:
        return str(self.node.name)

    @property
    def block(self) -> str:
        return block_of(self.name)

    @property
    def operations(self) -> int:
        """Floating-point operations of one run, a multiply-add as 2."""
        return operations(self.node)

    @property
    def is_convolution(self) -> bool:
        return self.node.op_type == "Conv"

    def fits(self, form: Format) -> bool:
        """Whether there are kernels of that format for its shape."""
        shape = _shape(self.weight)
        return min(shape[0], shape[1]) >= _CHANNELS and prod(shape[2:]) <= form.kernel


def sites(graph: ir.Graph) -> tuple[Site, ...]:
    """The products with weights of a graph in FP16 or FP32, in its order.

    Those are convolutions in one group, and products with one matrix. Attention's products of two activations are
    none: their kernels keep scores in registers, which a scale between them would break apart. Nodes that stay in FP32
    in an FP16 generator (``precision.is_island``) are none either.

    NVIDIA documents FP8 in TensorRT for RTX for matrix products alone; there FP8 convolutions store less and are
    computed in FP16. TensorRT has FP8 convolutions from 10.2 on.
    """
    return tuple(site for node in graph if not is_island(node) and (site := _site(node)) is not None)


def block_of(name: str) -> str:
    """``vae_decoder/decoder.up_blocks.3.resnets.0.conv1/Conv_0`` belongs to ``vae_decoder/up_blocks.3``.

    Blocks are those of the networks' papers: what stands between two changes of resolution. There are about 25.
    """
    stage, _, rest = name.partition("/")
    parts = [part for part in rest.partition("/")[0].split(".") if part not in _WHOLE]
    return "/".join([stage, ".".join(parts[:2] if len(parts) > 1 and parts[1].isdigit() else parts[:1])])


def share_of_convolutions(graph: ir.Graph, names: Iterable[str]) -> float:
    """The nodes of those ``names`` among the arithmetic of all the graph's convolutions, 0 to 1."""
    counted = {str(node.name): operations(node) for node in graph if node.op_type == "Conv"}
    chosen = set(names)
    return sum(figure for name, figure in counted.items() if name in chosen) / max(1, sum(counted.values()))


def _site(node: ir.Node) -> Site | None:
    if node.op_type == "Conv" and node.attributes.get_int("group", 1) == 1:
        axis = 0
    elif node.op_type == "MatMul":
        axis = 1
    elif node.op_type == "Gemm" and not node.attributes.get_int("transA", 0):
        axis = 0 if node.attributes.get_int("transB", 0) else 1
    else:
        return None
    activation, weight = node.inputs[0], node.inputs[1]
    if activation is None or weight is None or weight.const_value is None or activation.const_value is not None:
        return None
    if node.op_type != "Conv" and len(_shape(weight)) != 2:
        return None  # a stack of matrices: the keys and values of a prompt that was folded into the graph
    return Site(node, activation, weight, axis)


def _shape(value: ir.Value) -> list[int]:
    return [int(size) for size in value.shape or () if isinstance(size, int)]
