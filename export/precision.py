"""Which nodes keep FP32 in an FP16 generator, and why."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .stages import stage_of

if TYPE_CHECKING:
    import onnx_ir as ir

# frame_in, image_out: pixels are exact integers up to 255, and quantisation truncates: half a level would show.
# latent, x0: the step from noise to image amplifies an error 14.6 times; a few thousand values cost nothing.
_FP32_STAGES = frozenset({"frame_in", "latent", "x0", "image_out"})


def is_island(node: ir.Node) -> bool:
    """Whether ``node`` computes in FP32 whatever the precision of the rest."""
    return stage_of(node.name) in _FP32_STAGES
