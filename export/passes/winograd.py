"""A 3x3 convolution as Winograd's F(4x4, 3x3): 36 multiplications for each 4x4 square of the output instead of 144.

The input is cut into 6x6 squares that overlap by two, every fourth pixel. With the matrices below, a square D and the
kernel K, the output's square is ``A (G K G^T * B D B^T) A^T``, with * element by element, summed over the channels
(A. Lavin, S. Gray, "Fast Algorithms for Convolutional Neural Networks", CVPR 2016, sections 4.1 and 4.3). As a graph:
``B D B^T`` are depthwise convolutions with stride 4, first down, then across; each of the 36 products is a 1x1
convolution; what A does is sums.

The matrices are Toom's and Cook's for the points below. Lavin and Gray took 0, +-1, +-2; with these, which float32
holds as exactly, random pictures and kernels of 256 channels err by 1.5e-6 instead of 3.2e-6 (root mean square), and
by 1.6e-5 instead of 5.0e-5 at most, where the output has a standard deviation of 1.

For processors that are at their limit of multiplications, in FP32: it moves more memory, and in FP16 its sums lose
digits. Engines for NVIDIA GPUs choose such algorithms themselves, per layer.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray
from onnx_ir.passes import InPlacePass, PassResult

from .edit import Block, forget_unused, is_plain_3x3, sizes, weight_of

_NEAR, _FAR = 0.75, 1.5
_POINTS = (0.0, _NEAR, -_NEAR, _FAR, -_FAR)  # and infinity
_OUT, _IN = 4, 6  # the sides of the squares

# Below, moving the data takes what the multiplications save: on two x86 cores, OpenVINO f32, a layer of 512 channels
# was 1.8 to 1.9 times as fast, one of 256 1.4 times, one of 128 as fast as before.
_CHANNELS, _PIXELS = 256, 64 * 64


class Winograd(InPlacePass):
    """Replaces 3x3 convolutions with many channels and pixels, whose sides are multiples of 4.

    Requires: a float32 graph with static shapes. A kernel takes 36 numbers where it took 9.
    """

    def __init__(self, channels: int = _CHANNELS, pixels: int = _PIXELS) -> None:
        """The fewest input and output channels, and pixels, of a convolution that is replaced."""
        self._channels = channels
        self._pixels = pixels

    def call(self, model: ir.Model) -> PassResult:
        convolutions = [node for node in model.graph if self._pays(node)]
        for node in convolutions:
            _replace(model, node)
        forget_unused(model)
        return PassResult(model, modified=bool(convolutions))

    def _pays(self, node: ir.Node) -> bool:
        if not is_plain_3x3(node) or node.inputs[1] is None:
            return False
        outer, inner = sizes(node.inputs[1])[:2]
        height, width = sizes(node.outputs[0])[2:]
        return (
            min(outer, inner) >= self._channels
            and height * width >= self._pixels
            and height % _OUT == width % _OUT == 0
        )


def matrices() -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """A [4, 6], G [6, 3] and B [6, 6]."""
    points = np.array(_POINTS)
    others = [np.delete(points, index) for index in range(len(points))]
    a = np.zeros((_OUT, _IN))
    a[:, :-1], a[-1, -1] = points ** np.arange(_OUT)[:, None], 1
    g = np.zeros((_IN, 3))
    g[:-1] = [point ** np.arange(3) / np.prod(point - rest) for point, rest in zip(points, others, strict=True)]
    g[-1, -1] = 1
    b = np.zeros((_IN, _IN))
    b[:-1, :-1] = [np.poly(rest)[::-1] for rest in others]
    b[-1] = np.poly(points)[::-1]
    return a, g, b


def _replace(model: ir.Model, node: ir.Node) -> None:
    kernel, picture = weight_of(node, 1), node.inputs[0]
    if kernel is None or picture is None:
        raise ValueError(f"{node.name} is not the convolution that was looked for")
    block = Block(model, node)
    batch, outer, height, width = sizes(node.outputs[0])
    small = [batch, outer, height // _OUT, width // _OUT]
    _, g, _ = matrices()
    kernels = np.einsum("ap,oipq,bq->aboi", g, kernel, g)[..., None, None]
    products = [
        [block.add("Conv", [value, block.weight(kernels[i, j])], small, kernel_shape=[1, 1])
         for j, value in enumerate(row)]
        for i, row in enumerate(_squares(block, picture))
    ]  # fmt: skip
    down = [_gather(block, [row[j] for row in products], small) for j in range(_IN)]
    across = [_gather(block, [column[i] for column in down], small) for i in range(_OUT)]
    stacked = block.add(
        "Concat", [value for row in across for value in row], [batch, _OUT**2 * outer, *small[2:]], axis=1
    )
    # "DCR", the default: the 16 places of the square are the outermost of the channels, row by row.
    result = block.add("DepthToSpace", [stacked], [batch, outer, height, width], blocksize=_OUT)
    for bias in node.inputs[2:]:
        if bias is not None:
            values = block.weight(np.asarray(bias.const_value.numpy(), np.float64).reshape(-1, 1, 1))  # type: ignore[union-attr]
            result = block.add("Add", [result, values], [batch, outer, height, width])
    block.instead(result)


def _squares(block: Block, picture: ir.Value) -> Iterator[list[ir.Value]]:
    """``B D B^T`` of every square, a row of six maps after another, each of a sixteenth of the picture's pixels."""
    batch, channels, height, width = sizes(picture)
    _, _, b = matrices()
    tall = [batch, channels, height // _OUT, width]
    small = [batch, channels, height // _OUT, width // _OUT]
    for down in b:
        row = _combed(block, picture, down[:, None], tall)
        yield [_combed(block, row, across[None, :], small) for across in b]


def _combed(block: Block, value: ir.Value, taps: NDArray[np.float64], shape: list[int]) -> ir.Value:
    """A depthwise convolution along one axis: every fourth place, from one before the picture's edge."""
    channels = shape[1]
    lengths = list(taps.shape)
    weight = block.weight(np.broadcast_to(taps, (channels, 1, *lengths)))
    edges = [1 if length > 1 else 0 for length in lengths]
    return block.add(
        "Conv", [value, weight], shape, kernel_shape=lengths, group=channels, pads=edges * 2,
        strides=[_OUT if length > 1 else 1 for length in lengths],
    )  # fmt: skip


def _gather(block: Block, m: Sequence[ir.Value], shape: list[int]) -> list[ir.Value]:
    """``A m``: six maps to four. The points come in pairs, so sums and differences serve two rows each."""

    def two(operator: str, one: ir.Value, other: ir.Value) -> ir.Value:
        return block.add(operator, [one, other], shape)

    def times(value: ir.Value, factor: float) -> ir.Value:
        return two("Mul", value, block.weight(np.array(factor)))

    near, far = two("Add", m[1], m[2]), two("Add", m[3], m[4])
    near_odd, far_odd = two("Sub", m[1], m[2]), two("Sub", m[3], m[4])

    def power(n: int, one: ir.Value, other: ir.Value) -> ir.Value:
        return two("Add", times(one, _NEAR**n), times(other, _FAR**n))

    return [
        two("Add", m[0], two("Add", near, far)),
        power(1, near_odd, far_odd),
        power(2, near, far),
        two("Add", power(3, near_odd, far_odd), m[5]),
    ]
