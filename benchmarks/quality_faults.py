"""What a wrong engine leaves in its pictures and rounding errors do not: an offset, a tone curve, a swap, a shift.

PSNR does not tell these from noise: an engine that rounds where the reference truncates still has 51 dB. Each figure
here averages noise away. A picture is uint8 ``[H, W, 3]`` RGB; both of a pair have one shape.
"""

from __future__ import annotations

from itertools import permutations

import numpy as np
from numpy.typing import NDArray

Picture = NDArray[np.uint8]

# Clipping at 0 and 255 makes symmetric noise one-sided: of a value this close to an end nothing is concluded.
_LOW, _HIGH, _BIN = 16, 240, 16
# Fewer values than this share of a channel's do not average noise away.
_SHARE = 0.02
# A swapped order must halve the squared error, 3 dB: grey pictures are alike in every order.
_SWAP_GAIN = 2.0
# Mean square gradient, in squared grey levels per pixel, below which a shift leaves no trace.
_FLAT = 0.25
# Of the smaller eigenvalue to the larger: stripes show a shift across them only.
_ONE_WAY = 0.01


def bias(reference: Picture, got: Picture) -> tuple[float | None, float | None, float | None]:
    """How much brighter ``got`` is, in grey levels, for each of R, G, B: the mean of ``got - reference``.

    Only values that the reference has at 16 to 239 count, for clipping is one-sided; None where these are under 2 % of
    the channel.
    """
    one, other, three = (
        None if len(difference) < _SHARE * size else float(difference.mean())
        for difference, _, size in (_mid_tones(reference[..., c], got[..., c]) for c in range(3))
    )
    return one, other, three


def tone(reference: Picture, got: Picture) -> float | None:
    """The largest mean of ``got - reference``, as a magnitude in grey levels, over tones and channels.

    Values are sorted by the reference into 14 tones of 16 grey levels, from 16 to 239: noise that does not depend on
    the reference averages away in each. (By the mean of the two, or by ``got``, it would look like a tone curve.) A
    tone counts with 2 % of the channel's values; None if none has them. A wrong gamma, range or contrast shows here,
    also where its mean over the picture is 0.
    """
    found = []
    for channel in range(3):
        difference, level, size = _mid_tones(reference[..., channel], got[..., channel])
        index = (level - _LOW) // _BIN
        counts = np.bincount(index)
        sums = np.bincount(index, weights=difference)
        found += [abs(total / count) for total, count in zip(sums, counts, strict=True) if count >= _SHARE * size]
    return float(max(found)) if found else None


def channel_order(reference: Picture, got: Picture) -> str:
    """``rgb``, or the order in which ``got``'s channels fit the reference at least 3 dB better: ``bgr``, ``gbr`` …"""
    a, b = reference.astype(np.float64), got.astype(np.float64)
    errors = {order: float(np.mean(np.square(a - b[..., list(order)]))) for order in permutations(range(3))}
    straight = errors[0, 1, 2]
    best = min(errors, key=lambda order: errors[order])
    return "".join("rgb"[i] for i in best) if errors[best] * _SWAP_GAIN < straight else "rgb"


def shift(reference: Picture, got: Picture) -> tuple[float, float] | None:
    """How far, in pixels (x to the right, y down), ``got`` is shifted as a whole; antisymmetric.

    The least-squares solution of ``got - reference = -shift . gradient`` over the mean of the channels, with the mean
    gradient of the two: exact for small shifts of smooth pictures, of the right sign and order up to about a pixel, and
    meaningless beyond. None where a picture is too flat, or striped in one direction, to show a shift.

    Source: B. D. Lucas, T. Kanade, "An iterative image registration technique with an application to stereo vision",
    IJCAI 1981, section 4, one step of it.
    """
    a, b = (picture.mean(axis=2, dtype=np.float64) for picture in (reference, got))
    if min(a.shape) < 3:
        return None
    inner = (slice(1, -1), slice(1, -1))  # at the border the gradient is one-sided
    down, along = (((one + other) / 2)[inner] for one, other in zip(np.gradient(a), np.gradient(b), strict=True))
    normal = np.array([[np.mean(along * along), np.mean(along * down)], [np.mean(along * down), np.mean(down * down)]])
    least, most = np.linalg.eigvalsh(normal)
    if most < _FLAT or least < _ONE_WAY * most:
        return None
    difference = (b - a)[inner]
    x, y = np.linalg.solve(normal, [-np.mean(along * difference), -np.mean(down * difference)])
    return float(x), float(y)


def _mid_tones(reference: Picture, got: Picture) -> tuple[NDArray[np.float64], NDArray[np.intp], int]:
    """``got - reference`` and the reference where that is a middle tone, and how many values there were."""
    level = reference.ravel().astype(np.intp)
    middle = (level >= _LOW) & (level < _HIGH)
    return (got.ravel() - level)[middle].astype(np.float64), level[middle], level.size
