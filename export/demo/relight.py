"""Fixed day-to-night relighting: the training target of the demo checkpoint.

A hand-written picture filter, not a simulation: it finds the sky, darkens the scene to moonlight, lights up
window-like dark panes in bright walls and lets their warm light spill over the surroundings. The demo network
(`edgeturbo.export.demo.train`) learns to imitate it from photographs. Pure NumPy, deterministic.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Float = npt.NDArray[np.float32]
U8 = npt.NDArray[np.uint8]

_LUMA = np.array([0.2126, 0.7152, 0.0722], np.float32)  # Rec. 709 luma weights
_MOON = np.array([0.50, 0.76, 1.35], np.float32)  # tint of moonlit surfaces, by eye
_LAMP = np.array([1.00, 0.58, 0.20], np.float32)  # incandescent light, about 2700 K, by eye
_SKY = np.array([0.0030, 0.0060, 0.0200], np.float32)  # clear night sky above a town, linear light, by eye
_HAZE = np.array([0.0110, 0.0090, 0.0130], np.float32)  # town light in the air above the roofs, by eye
_SATURATION = 0.45  # eyes and cameras see less colour at night
_GROUND_EXPOSURE = 0.14
_SKY_EXPOSURE = 0.012


def relight(image: U8) -> U8:
    """Turn a daytime photograph into a night scene.

    `image` is uint8 [H, W, 3], RGB in sRGB encoding; returns the same shape, dtype and encoding.
    """
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
        raise ValueError(f"expected uint8 [H, W, 3], got {image.dtype} {image.shape}")
    srgb = image.astype(np.float32) / 255.0
    linear = srgb**2.2
    luma = luma_of(srgb)
    sky = sky_mask(srgb, luma)[..., None]
    panes = window_mask(srgb, luma, sky[..., 0])[..., None]
    night = _moonlight(linear, sky) * (1.0 - 0.6 * panes)
    night += _window_light(linear, panes, sky)
    night = night / (1.0 + 0.35 * night)  # soft shoulder: lamps roll off to cream instead of clipping
    encoded = np.clip(night, 0.0, 1.0) ** (1.0 / 2.2)
    return (encoded * 255.0 + 0.5).astype(np.uint8)


def luma_of(colour: Float) -> Float:
    """Rec. 709 luma of [H, W, 3]: [H, W]."""
    return (colour @ _LUMA).astype(np.float32)


def sky_mask(srgb: Float, luma: Float) -> Float:
    """Softly mark the sky: bright, blue or grey, smooth, and reaching the top of the picture. [H, W] in 0..1."""
    red, green, blue = srgb[..., 0], srgb[..., 1], srgb[..., 2]
    blueness = _ramp(blue - red, 0.02, 0.12) * _ramp(blue - green, -0.04, 0.02) * _ramp(luma, 0.16, 0.30)
    spread = srgb.max(axis=2) - srgb.min(axis=2)
    cloud = _ramp(luma, 0.60, 0.75) * (1.0 - _ramp(spread, 0.10, 0.22))
    unit = _unit(luma)
    detail = np.sqrt(np.maximum(_box(luma * luma, unit) - _box(luma, unit) ** 2, 0.0))
    score = np.maximum(blueness, cloud) * (1.0 - _ramp(detail, 0.05, 0.14))
    score = _erode(_dilate(score, 2 * unit), 2 * unit)  # ignore wires and branches
    reach = np.minimum.accumulate(_box(score, 2 * unit), axis=0)  # a sky pixel has only sky above it
    mask = np.minimum(score, _ramp(reach, 0.25, 0.6))
    return _ramp(_guided(luma, mask, 4 * unit, 1e-3), 0.25, 0.75)


def window_mask(srgb: Float, luma: Float, sky: Float) -> Float:
    """Softly mark compact dark panes in brighter walls (windows, doors, arches). [H, W] in 0..1."""
    unit = _unit(luma)
    wall = luma * (1.0 - sky)  # the sky is no wall: a roof under it is no pane
    wide, high = 8 * unit, 14 * unit  # largest half width and half height of a pane
    across = _erode(_dilate(wall, wide, (1,)), wide, (1,))  # closings along a line: bright on both sides
    along = _erode(_dilate(wall, high, (0,)), high, (0,))
    surround = np.minimum(across, along)
    contrast: Float = np.divide(surround - luma, surround + 0.05, dtype=np.float32)
    dark = _ramp(contrast, 0.40, 0.58) * _ramp(surround, 0.28, 0.40) * (1.0 - _ramp(luma, 0.34, 0.48))
    thin = max(1, unit // 2)
    core = _erode(dark, thin)  # thin dark lines are not panes
    body = np.minimum(_dilate(core, 2 * thin), dark)
    leaf = srgb[..., 1] - np.maximum(srgb[..., 0], srgb[..., 2])
    foliage = _ramp(_box(leaf, 4 * unit), -0.012, 0.012)
    crowd = _ramp(_box(dark, 8 * unit), 0.45, 0.65)  # where most is dark there is no wall
    near_sky = _ramp(_box(sky, 2 * unit), 0.0, 0.35)
    height = np.linspace(1.0, 0.0, len(luma), dtype=np.float32)[:, None]
    upper = _ramp(height, 0.30, 0.44)  # dark spots on the ground are shadows
    return _box(body * (1.0 - foliage) * (1.0 - near_sky) * (1.0 - crowd) * upper, thin)


def _moonlight(linear: Float, sky: Float) -> Float:
    unit = _unit(linear[..., 0])
    grey = luma_of(linear)[..., None]
    muted = grey + _SATURATION * (linear - grey)
    ground = _GROUND_EXPOSURE * muted**1.25 * _MOON
    skyline = _blur(1.0 - sky[..., 0], 24 * unit)[..., None]
    heaven = _SKY + _SKY_EXPOSURE * grey * _MOON + _HAZE * skyline
    night: Float = ground + sky * (heaven - ground)
    return night


def _window_light(linear: Float, panes: Float, sky: Float) -> Float:
    """Glowing panes, the halo around them, and their light on walls and street."""
    unit = _unit(linear[..., 0])
    glow = panes[..., 0]
    near = _blur(glow, 5 * unit)[..., None]
    far = _blur(glow, 20 * unit)[..., None]
    luma = np.sqrt(luma_of(linear))
    detail = np.clip(1.0 + 5.0 * (luma - _box(luma, 2 * unit)), 0.35, 2.0)[..., None]  # mullions and curtains stay
    core = panes**1.5 * 0.60 * detail * _LAMP
    spill = (0.60 * near + 1.1 * far) * (0.02 + linear) * _LAMP * (1.0 - sky)
    light: Float = core + spill + 0.04 * near * _LAMP
    return light


def _unit(plane: Float) -> int:
    """A length in pixels that grows with the picture: 1/128 of its mean side."""
    height, width = plane.shape
    return max(1, round((int(height) + int(width)) / 256))


def _ramp(value: Float, low: float, high: float) -> Float:
    t = np.clip((value - low) / (high - low), 0.0, 1.0)
    smooth: Float = t * t * (3.0 - 2.0 * t)
    return smooth


def _box(plane: Float, radius: int) -> Float:
    """Mean over a square of side 2*radius+1, edges replicated."""
    size = 2 * radius + 1
    for axis in (0, 1):
        pad = [(0, 0), (0, 0)]
        pad[axis] = (radius + 1, radius)
        total = np.cumsum(np.pad(plane, pad, mode="edge"), axis=axis, dtype=np.float64)
        length = total.shape[axis]
        upper = np.take(total, range(size, length), axis=axis)
        lower = np.take(total, range(length - size), axis=axis)
        plane = ((upper - lower) / size).astype(np.float32)
    return plane


def _blur(plane: Float, radius: int) -> Float:
    """Three box filters: close to a Gaussian."""
    for _ in range(3):
        plane = _box(plane, max(1, radius // 2))
    return plane


def _dilate(plane: Float, radius: int, axes: tuple[int, ...] = (0, 1)) -> Float:
    """Maximum over a square (or, with one axis, a line) of side 2*radius+1, edges replicated."""
    for axis in axes:
        pad = [(0, 0), (0, 0)]
        pad[axis] = (radius, radius)
        windows = np.lib.stride_tricks.sliding_window_view(np.pad(plane, pad, mode="edge"), 2 * radius + 1, axis=axis)
        plane = windows.max(axis=-1)
    return plane


def _erode(plane: Float, radius: int, axes: tuple[int, ...] = (0, 1)) -> Float:
    return -_dilate(-plane, radius, axes)


def _guided(guide: Float, plane: Float, radius: int, eps: float) -> Float:
    """Guided filter (He, Sun and Tang, 2010): smooth `plane` but keep the edges of `guide`."""
    mean_g, mean_p = _box(guide, radius), _box(plane, radius)
    cov = _box(guide * plane, radius) - mean_g * mean_p
    var = _box(guide * guide, radius) - mean_g * mean_g
    slope: Float = np.divide(cov, var + eps, dtype=np.float32)
    offset = mean_p - slope * mean_g
    return _box(slope, radius) * guide + _box(offset, radius)
