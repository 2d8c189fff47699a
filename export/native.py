"""A camera's own frame to and from planes of RGB, inside the graph. ``runtime/colour.py`` is the reference.

Every value is a whole number or one with few enough bits that float32 computes it exactly, whatever the order; so
these functions equal the reference bit for bit, on any engine that computes float32.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..runtime.colour import CHROMA_ZERO, FRACTION_BITS, YuvCoding, yuv_coding

if TYPE_CHECKING:
    from torch import Tensor

    from ..engines.manifest import FrameLayout, Manifest

_ONE = float(1 << FRACTION_BITS)


@dataclass(frozen=True)
class Border:
    """What stands around the networks of a generator that takes a camera's own frames.

    ``width`` and ``height`` are the model's, in pixels; ``sketch``: the network is shown the frame's dark lines.
    """

    layout: FrameLayout
    width: int
    height: int
    sketch: bool

    @classmethod
    def of(cls, manifest: Manifest) -> Border | None:
        """The one of a bundle; None for a bundle that leaves this work to the host."""
        if manifest.frame_layout is None:
            return None
        model = manifest.model
        return cls(manifest.frame_layout, model.width, model.height, manifest.frame_rules.input_prep == "sketch")

    @property
    def coding(self) -> YuvCoding:
        return yuv_coding(self.layout.matrix, self.layout.range)


def planes_of(frame: Tensor, kind: str, coding: YuvCoding) -> Tensor:
    """A uint8 frame of ``kind``, [B, …] as ``tensor_shape`` has it, to float32 [B, 3, H, W], 0 to 255."""
    import torch

    # The cast comes first: TensorRT for RTX slices no uint8.
    values = frame.to(torch.float32)
    if kind == "nv12":
        return _from_nv12(values, coding)
    if kind == "yuyv":
        return _from_yuyv(values, coding)
    planes = values.permute(0, 3, 1, 2)
    if kind == "bgr":
        return _reversed(planes)
    return planes[:, :3] if kind == "rgba" else planes


def frame_of(planes: Tensor, kind: str, coding: YuvCoding) -> Tensor:
    """float32 [B, 3, H, W] of whole numbers, 0 to 255, to a uint8 frame of ``kind``."""
    import torch

    if kind == "nv12":
        values = _to_nv12(planes, coding)
    elif kind == "yuyv":
        values = _to_yuyv(planes, coding)
    else:
        if kind == "bgr":
            planes = _reversed(planes)
        if kind == "rgba":
            # A plane made from the frame: one of constants would be folded to a weight of the frame's size.
            planes = torch.cat([planes, planes[:, :1].clamp(255.0, 255.0)], dim=1)
        values = planes.permute(0, 2, 3, 1)
    # How a cast rounds is every engine's own business; here nothing is left to round.
    return values.floor().to(torch.uint8)


def _from_nv12(values: Tensor, coding: YuvCoding) -> Tensor:
    batch, rows, width = values.shape
    height = rows * 2 // 3
    uv = values[:, height:].reshape(batch, height // 2, 1, width // 2, 1, 2)
    colours = [
        colour.expand(batch, height // 2, 2, width // 2, 2).reshape(batch, height, width)
        for colour in _colours(uv[..., 0], uv[..., 1], coding)
    ]
    return _lit(values[:, :height], colours, coding)


def _from_yuyv(values: Tensor, coding: YuvCoding) -> Tensor:
    batch, height, width, _ = values.shape
    uv = values[..., 1].reshape(batch, height, width // 2, 1, 2)
    colours = [
        colour.expand(batch, height, width // 2, 2).reshape(batch, height, width)
        for colour in _colours(uv[..., 0], uv[..., 1], coding)
    ]
    return _lit(values[..., 0], colours, coding)


def _colours(u: Tensor, v: Tensor, coding: YuvCoding) -> list[Tensor]:
    """What chroma adds to red, green and blue."""
    u, v = u - CHROMA_ZERO, v - CHROMA_ZERO
    return [
        v * (coding.red_v / _ONE),
        u * (coding.green_u / _ONE) + v * (coding.green_v / _ONE),
        u * (coding.blue_u / _ONE),
    ]


def _lit(y: Tensor, colours: list[Tensor], coding: YuvCoding) -> Tensor:
    import torch

    light = (y - coding.black) * (coding.luma / _ONE)
    return _rounded(torch.stack([light + colour for colour in colours], dim=1))


def _to_nv12(planes: Tensor, coding: YuvCoding) -> Tensor:
    import torch

    batch, _, height, width = planes.shape
    chroma = _chroma(planes, 2, coding).reshape(batch, height // 2, width)
    return torch.cat([_luma(planes, coding), chroma], dim=1)


def _to_yuyv(planes: Tensor, coding: YuvCoding) -> Tensor:
    import torch

    batch, _, height, width = planes.shape
    return torch.stack([_luma(planes, coding), _chroma(planes, 1, coding).reshape(batch, height, width)], dim=-1)


def _luma(planes: Tensor, coding: YuvCoding) -> Tensor:
    """[B, H, W]."""
    return _rounded(_weighted(planes, coding.to_y) + coding.black)


def _chroma(planes: Tensor, rows: int, coding: YuvCoding) -> Tensor:
    """[B, H / rows, W / 2, 2] of the means of blocks of 2 pixels across and ``rows`` down."""
    import torch

    means = torch.nn.functional.avg_pool2d(planes, (rows, 2))
    return _rounded(
        torch.stack([_weighted(means, weights) + CHROMA_ZERO for weights in (coding.to_u, coding.to_v)], dim=-1)
    )


def _weighted(planes: Tensor, weights: tuple[int, int, int]) -> Tensor:
    # Not a matrix product: an engine may compute those in TF32, which these coefficients do not fit.
    red, green, blue = (planes[:, channel] * (weight / _ONE) for channel, weight in enumerate(weights))
    return red + green + blue


def _rounded(values: Tensor) -> Tensor:
    return (values + 0.5).clamp(0.0, 255.0).floor()


def _reversed(planes: Tensor) -> Tensor:
    import torch

    return torch.cat([planes[:, channel : channel + 1] for channel in (2, 1, 0)], dim=1)
