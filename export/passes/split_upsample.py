"""A nearest 2x upsample and the 3x3 convolution behind it, computed before the upsample: four 2x2 convolutions.

Nine taps of the convolution fall on at most four different pixels, because the upsample repeats each pixel in a 2x2
square. Which of them coincide depends on the parity of row and column alone: so each of the four parities is a 2x2
convolution of the small picture, whose weights are sums of the 3x3 ones, and DepthToSpace interleaves the four. That
takes 16 multiplications where there were 36; the kernels hold 16 numbers where there were 9.

Per axis, output 2i reads the upsampled pixels 2i-1, 2i, 2i+1, which repeat the pixels i-1, i, i; output 2i+1 reads
2i, 2i+1, 2i+2, which repeat i, i, i+1. The zero padding coincides, too: pixel -1 of the upsampled picture stands for
pixel -1 of the small one, and pixel 2n for pixel n, both outside.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray
from onnx_ir.passes import InPlacePass, PassResult, PostconditionError

from .edit import Block, forget_unused, is_plain_3x3, only_user, sizes, weight_of

# _TAPS[parity, tap of the 2x2 kernel, tap of the 3x3 kernel]: which 3x3 taps fall on the same small pixel.
_TAPS = np.array([[[1, 0, 0], [0, 1, 1]], [[1, 1, 0], [0, 0, 1]]], dtype=np.float64)
_PARITIES = ((0, 0), (0, 1), (1, 0), (1, 1))


class SplitUpsample(InPlacePass):
    """Replaces each nearest 2x Resize with a 3x3 Conv behind it by four 2x2 Convs and a DepthToSpace.

    Requires: a float32 graph with static shapes. Ensures: no nearest Resize is left in front of a Conv.
    """

    def call(self, model: ir.Model) -> PassResult:
        convolutions = [node for node in model.graph if _is_upsampled(node)]
        for node in convolutions:
            _split(model, node)
        forget_unused(model)
        return PassResult(model, modified=bool(convolutions))

    def ensures(self, model: ir.Model) -> None:
        left = [node.name for node in model.graph if node.op_type == "Conv" and _resize_before(node) is not None]
        if left:
            raise PostconditionError(f"{len(left)} convolutions behind a Resize are of no known form: {left[:10]}")


def split_kernel(kernel: NDArray[np.float64]) -> NDArray[np.float64]:
    """[out, in, 3, 3] to [2, 2, out, in, 2, 2]: for each parity of row and of column, the 2x2 kernel."""
    rows = np.einsum("pau,oiuv->poiav", _TAPS, kernel)
    return np.asarray(np.einsum("qbv,poiav->pqoiab", _TAPS, rows))


def _is_upsampled(node: ir.Node) -> bool:
    """Whether ``node`` is a 3x3 Conv that keeps its input's size and alone takes a nearest 2x Resize."""
    resize = _resize_before(node) if node.op_type == "Conv" else None
    return resize is not None and only_user(resize.outputs[0]) is node and _doubles(resize) and is_plain_3x3(node)


def _resize_before(node: ir.Node) -> ir.Node | None:
    value = node.inputs[0]
    producer = value.producer() if value is not None else None
    return producer if producer is not None and producer.op_type == "Resize" else None


def _doubles(resize: ir.Node) -> bool:
    """Whether it repeats every pixel in a 2x2 square: for a factor of two, "asymmetric" and "floor" mean that."""
    scales = weight_of(resize, 2)
    words = {name: resize.attributes[name].as_string() for name in ("coordinate_transformation_mode", "nearest_mode")
             if name in resize.attributes}  # fmt: skip
    mode = resize.attributes["mode"].as_string() if "mode" in resize.attributes else "nearest"
    return (
        scales is not None
        and scales.tolist() == [1, 1, 2, 2]
        and mode == "nearest"
        and words == {"coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}
    )


def _split(model: ir.Model, node: ir.Node) -> None:
    resize, kernel = _resize_before(node), weight_of(node, 1)
    small = resize.inputs[0] if resize is not None else None
    if small is None or kernel is None:
        raise ValueError(f"{node.name} is not the convolution that was looked for")
    block = Block(model, node)
    batch, _, height, width = sizes(small)
    channels = kernel.shape[0]
    bias = [value for value in node.inputs[2:] if value is not None]
    kernels = split_kernel(kernel)
    parts = [
        block.add(
            "Conv", [small, block.weight(kernels[row, column]), *bias], [batch, channels, height, width],
            kernel_shape=[2, 2], pads=[1 - row, 1 - column, row, column],
        )
        for row, column in _PARITIES
    ]  # fmt: skip
    stacked = block.add("Concat", parts, [batch, 4 * channels, height, width], axis=1)
    # "DCR", the default: the four parities are the outermost of the channels, row parity first.
    block.instead(block.add("DepthToSpace", [stacked], [batch, channels, 2 * height, 2 * width], blocksize=2))
