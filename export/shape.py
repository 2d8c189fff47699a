"""A traced graph becomes the generator's: specialised, rewritten, named by stages, in the precision asked for."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    import onnx_ir as ir
    from numpy.typing import NDArray


@dataclass(frozen=True)
class Shaped:
    """``islands``: the nodes that stay in FP32 in an FP16 graph. ``originals``: the weights that FP16 cannot hold."""

    islands: tuple[str, ...] = ()
    originals: dict[str, NDArray[np.float32]] = field(default_factory=dict)


def shape_graph(model: ir.Model, passes: tuple[str, ...], *, half: bool) -> Shaped:
    """Make ``model``, as ``onnx_from_generator`` gives it, the graph of a bundle, in place: in FP16 if ``half``.

    Raises UsageError for unknown ``passes``.
    """
    from .passes.choice import chosen_passes
    from .passes.exact_norm import ExactNorm
    from .passes.half import Half
    from .passes.specialise import Specialise
    from .passes.stage_names import StageNames
    from .precision import is_island
    from .ranges import lossy_weights
    from .trace import UNQUANTISED

    Specialise()(model)
    for step in chosen_passes(passes):
        step(model)
    if not half:
        ExactNorm()(model)
    StageNames(frozenset({UNQUANTISED}))(model)
    # It was an output so that it got its name and type; it is none of the generator's.
    model.graph.outputs.pop()
    if not half:
        return Shaped()
    originals = lossy_weights(model)
    narrowed = Half(is_island)
    narrowed(model)
    return Shaped(tuple(narrowed.islands), originals)
