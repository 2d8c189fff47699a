"""RGB to and from a camera's own pixel formats, on the host: the reference for what a bundle's graph does.

Frames are uint8 arrays without a batch axis; their shapes are those of ``engines.frame_layout.tensor_shape``.

The luma weights are those of Recommendation ITU-R BT.601-7 (section 2.5.1) and BT.709-6 (item 3.2), the quantisation to
8 bits that of BT.601-7 (section 2.5.3) and BT.709-6 (item 4.6): Y from 16 to 235 and chroma 224 steps around 128, for
``limited``. ``full`` spreads both over 255 steps, as Recommendation ITU-T T.871 (JFIF, section 7) does.

A chroma sample stands for the pixels of its block as it is (nearest), and is made from their mean. Values are rounded
half up and clipped to 0 to 255. Alpha is dropped; where one is made, it is 255.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ..engines.errors import UsageError
from ..engines.frame_layout import YUV_FORMATS, tensor_shape

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Bytes = NDArray[np.uint8]

# Coefficients are rounded to so many fractional bits. With 8 bits of a pixel, a sum of three products and a mean of
# four then need at most 24 bits: float32 computes the same in any order, and so does every engine.
FRACTION_BITS = 14
CHROMA_ZERO = 128

_LUMA_WEIGHTS = {"bt601": (0.299, 0.114), "bt709": (0.2126, 0.0722)}  # of red and of blue; green has the rest


@dataclass(frozen=True)
class YuvCoding:
    """One matrix and range in fixed point: integers that stand for themselves divided by ``2 ** FRACTION_BITS``.

    ``R = luma (Y - black) + red_v V'``, ``G = luma (Y - black) + green_u U' + green_v V'``,
    ``B = luma (Y - black) + blue_u U'`` with ``U' = U - 128`` and ``V' = V - 128``; ``to_y``, ``to_u`` and ``to_v`` are
    what red, green and blue contribute to ``Y - black``, ``U'`` and ``V'``. ``black`` is a whole number.
    """

    black: int
    luma: int
    red_v: int
    green_u: int
    green_v: int
    blue_u: int
    to_y: tuple[int, int, int]
    to_u: tuple[int, int, int]
    to_v: tuple[int, int, int]


def yuv_coding(matrix: str, range_: str) -> YuvCoding:
    """The coefficients of ``matrix`` (``bt601``, ``bt709``) and ``range_`` (``limited``, ``full``). Raises KeyError."""
    red, blue = _LUMA_WEIGHTS[matrix]
    green = 1.0 - red - blue
    y_steps, c_steps = {"limited": (219.0, 224.0), "full": (255.0, 255.0)}[range_]
    u, v = 2.0 * (1.0 - blue), 2.0 * (1.0 - red)  # what chroma differences are divided by, to lie in -0.5 to 0.5
    y, c = y_steps / 255.0, c_steps / 255.0
    return YuvCoding(
        black={"limited": 16, "full": 0}[range_],
        luma=_fixed(1 / y),
        red_v=_fixed(v / c),
        green_u=-_fixed(u * blue / green / c),
        green_v=-_fixed(v * red / green / c),
        blue_u=_fixed(u / c),
        to_y=_with_sum(red * y, blue * y, _fixed(y)),
        to_u=_with_sum(-red / u * c, (1 - blue) / u * c, 0),
        to_v=_with_sum((1 - red) / v * c, -blue / v * c, 0),
    )


def to_rgb(frame: Bytes, kind: str, coding: YuvCoding) -> Bytes:
    """A frame of ``kind`` as RGB, uint8 [H, W, 3]; ``frame`` itself when it is that already.

    Raises UsageError for an array that is no such frame.
    """
    _refuse_other_than(frame, kind)
    if kind in YUV_FORMATS:
        return _decoded(*_yuv_of(frame, kind), coding)
    if kind == "rgb":
        return frame
    return np.ascontiguousarray(frame[..., ::-1] if kind == "bgr" else frame[..., :3])


def from_rgb(rgb: Bytes, kind: str, coding: YuvCoding) -> Bytes:
    """RGB, uint8 [H, W, 3], as a frame of ``kind``; ``rgb`` itself when that is the same.

    Raises UsageError for another array, and for a size that ``kind`` cannot hold.
    """
    _refuse_other_than(rgb, "rgb")
    height, width = rgb.shape[:2]
    if kind == "rgb":
        return rgb
    if kind == "bgr":
        return np.ascontiguousarray(rgb[..., ::-1])
    if kind == "rgba":
        return np.dstack([rgb, np.full((height, width), 255, np.uint8)])
    if width % 2 or (kind == "nv12" and height % 2):
        raise UsageError(f"{width}x{height} pixels cannot be {kind}", expected="even sides, as its chroma has")
    y, uv = _encoded(rgb, 2 if kind == "nv12" else 1, coding)
    if kind == "nv12":
        return np.concatenate([y, uv.reshape(height // 2, width)])
    return np.stack([y, uv.reshape(height, width)], axis=-1)


def _yuv_of(frame: Bytes, kind: str) -> tuple[Bytes, Bytes]:
    """Y, [H, W], and chroma, [H, W, 2], repeated over the pixels it stands for."""
    if kind == "yuyv":
        height, width = frame.shape[:2]
        return frame[..., 0], frame[..., 1].reshape(height, width // 2, 2).repeat(2, axis=1)
    height, width = frame.shape[0] * 2 // 3, frame.shape[1]
    uv = frame[height:].reshape(height // 2, width // 2, 2)
    return frame[:height], uv.repeat(2, axis=0).repeat(2, axis=1)


def _decoded(y: Bytes, uv: Bytes, coding: YuvCoding) -> Bytes:
    light = coding.luma * (y.astype(np.int32) - coding.black)
    u, v = np.moveaxis(uv.astype(np.int32) - CHROMA_ZERO, -1, 0)
    colours = (coding.red_v * v, coding.green_u * u + coding.green_v * v, coding.blue_u * u)
    return np.stack([_rounded(light + colour, FRACTION_BITS) for colour in colours], axis=-1)


def _encoded(rgb: Bytes, rows: int, coding: YuvCoding) -> tuple[Bytes, Bytes]:
    """Y, [H, W], and chroma, [H / rows, W / 2, 2], of blocks of 2 pixels across and ``rows`` down."""
    height, width = rgb.shape[:2]
    pixels = rgb.astype(np.int32)
    y = _rounded(pixels @ np.array(coding.to_y) + (coding.black << FRACTION_BITS), FRACTION_BITS)
    sums = pixels.reshape(height // rows, rows, width // 2, 2, 3).sum(axis=(1, 3))
    bits = FRACTION_BITS + rows  # a block has 2 or 4 pixels
    uv = sums @ np.array([coding.to_u, coding.to_v]).T + (CHROMA_ZERO << bits)
    return y, _rounded(uv, bits)


def _rounded(fixed: NDArray[np.signedinteger], bits: int) -> Bytes:
    return np.asarray(np.clip((fixed + (1 << bits - 1)) >> bits, 0, 255), dtype=np.uint8)


def _fixed(value: float) -> int:
    return round(value * float(1 << FRACTION_BITS))


def _with_sum(red: float, blue: float, total: int) -> tuple[int, int, int]:
    """The three in fixed point; green takes what rounding left, so that grey stays grey."""
    return _fixed(red), total - _fixed(red) - _fixed(blue), _fixed(blue)


def _refuse_other_than(frame: Bytes, kind: str) -> None:
    is_array = isinstance(frame, np.ndarray)
    fits = is_array and frame.dtype == np.uint8 and frame.size > 0 and frame.ndim == (2 if kind == "nv12" else 3)
    if fits:
        height = frame.shape[0] * 2 // 3 if kind == "nv12" else frame.shape[0]
        odd = (kind in YUV_FORMATS and frame.shape[1] % 2) or (kind == "nv12" and height % 2)
        fits = not odd and frame.shape == tensor_shape(kind, frame.shape[1], height)
    if not fits:
        height_name, width_name = ("H*3/2" if kind == "nv12" else "H"), "W"
        channels = "" if kind == "nv12" else f",{tensor_shape(kind, 2, 2)[-1]}"
        raise UsageError(
            f"this is not a frame in {kind}",
            expected=f"a numpy array, uint8 [{height_name},{width_name}{channels}]"
            + (", its sides even" if kind in YUV_FORMATS else ""),
            got=f"{frame.dtype.name} {list(frame.shape)}" if is_array else type(frame).__name__,
        )
