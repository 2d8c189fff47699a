"""Which tensor a camera's frame is, by its pixel format. All are uint8, rows without padding."""

from __future__ import annotations

from typing import get_args

from .errors import BundleError, UsageError
from .manifest import ColourMatrix, ColourRange, FrameFormat, FrameLayout

YUV_FORMATS = ("nv12", "yuyv")

# The resizing matrices are dense; beyond 8K video nothing is a camera's frame.
_LARGEST = 8192
# Chroma samples of each format stand for this many pixels: (across, down).
_CHROMA_BLOCKS = {"nv12": (2, 2), "yuyv": (2, 1)}


def size_of(text: str, option: str) -> tuple[int, int]:
    """``WIDTHxHEIGHT`` in pixels. Raises UsageError that names ``option``."""
    width, _, height = text.lower().partition("x")
    if not (width.isdigit() and height.isdigit()):
        raise UsageError(
            f"{option} is not WIDTHxHEIGHT", expected="for example 512x512", got=text, hint=f"{option} 512x512"
        )
    return int(width), int(height)


def tensor_shape(kind: str, width: int, height: int) -> tuple[int, ...]:
    """The shape of one frame of ``kind``, without the batch axis; sizes in pixels.

    ``rgb``, ``bgr``: [H, W, 3]. ``rgba``: [H, W, 4]. ``nv12``: [H * 3/2, W], the rows of Y and below them those of
    the interleaved U and V, each for 2x2 pixels. ``yuyv``: [H, W, 2], Y in the first channel and in the second U at
    even columns and V at odd ones, each for 2 pixels of a row. The bytes are those of V4L2_PIX_FMT_RGB24, BGR24,
    RGBA32, NV12 and YUYV of the Linux kernel's ``videodev2.h``.
    """
    if kind == "nv12":
        return (height * 3 // 2, width)
    return (height, width, {"rgb": 3, "bgr": 3, "rgba": 4, "yuyv": 2}[kind])


def refuse_unfit_frame(kind: str, width: int, height: int) -> None:
    """Raise UsageError, with the nearest size that works, for a frame that ``kind`` cannot hold."""
    across, down = _CHROMA_BLOCKS.get(kind, (1, 1))
    near = tuple(min(max(size // step * step, step), _LARGEST) for size, step in ((width, across), (height, down)))
    if near != (width, height):
        even = {(1, 1): "", (2, 1): "an even width and ", (2, 2): "an even width, an even height and "}[across, down]
        raise UsageError(
            f"--frame {width}x{height} does not work for {kind}",
            expected=f"{even}sides of 1 to {_LARGEST} pixels",
            got=f"{width}x{height}",
            hint="--frame {}x{}".format(*near),
        )


def refuse_unknown_layout(layout: FrameLayout) -> None:
    """Raise BundleError for a frame layout that this version does not know."""
    known = (
        ("format", layout.format, get_args(FrameFormat)),
        ("output_format", layout.output_format, get_args(FrameFormat)),
        ("matrix", layout.matrix, get_args(ColourMatrix)),
        ("range", layout.range, get_args(ColourRange)),
    )
    for name, value, values in known:
        if value not in values:
            raise BundleError(
                f"the bundle's frame layout has an unknown {name}",
                expected=", ".join(values),
                got=value,
                hint="pip install --upgrade edgeturbo",
            )
