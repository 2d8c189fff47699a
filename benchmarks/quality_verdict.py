"""What an engine's pictures show that rounding errors do not explain."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from ..engines.errors import UsageError
from ..engines.parity import PSNR_FLOOR_DB, PSNR_TARGET_DB
from .quality import Quality

# Each by the generator's precision. FP32 engines differ from the reference where truncation tips, one value in a
# hundred by one grey level: 68 dB, and no more than 0.01 grey levels of anything systematic.

# Measured with the bundled demo model at 256x256 on a CPU, in PyTorch's own autocast: FP16 64 dB, SSIM 0.9997, bias
# 0.02, tone 0.05 and shift 0.0001 px; bfloat16 57 dB, 0.9988, 0.11, 0.19 and 0.001 px.

# FP16: our own choice, above the 0.92 that unsloth's diffusion_quality grants quantised models. FP32: an offset of half
# a level costs a flat picture 0.004.
SSIM_FLOOR = {"fp16": 0.98, "fp32": 0.998}
# Rounding where the reference truncates brightens by half a level: half of that tells the two apart with equal room.
BIAS_LIMIT_LEVELS = {"fp16": 0.25, "fp32": 0.05}
# A gamma of 1.01 moves middle grey by 0.9 levels. FP16 at its floor of 35 dB has errors of 4.5 levels, which the 2 % of
# the values that a tone needs average to well under 1.
TONE_LIMIT_LEVELS = {"fp16": 1.0, "fp32": 0.25}
# The least shift that a wrong resize or padding makes is a quarter of a pixel or more (half a pixel at half the size).
SHIFT_LIMIT_PX = {"fp16": 0.1, "fp32": 0.02}
# PyTorch's own pictures in a precision show what it costs; kernels that sum in another order may cost some more. Ten
# times the squared error is our own choice: no engine in FP16 on a GPU was measured yet. The demo without the LoRA of
# its UNet's conv_out is 14 dB off.
OWN_MARGIN_DB = 10.0


def verdict(quality: Quality, precision: str, own: Quality | None = None) -> list[str]:
    """A sentence for each thing that departs from what ``precision``, ``fp16`` or ``fp32``, explains; empty: all well.

    The floors hold for the worst frame, the PSNR target and what is systematic for the mean over the frames, channel
    orders for any frame. A sentence names the measure first, then the figure, the limit, and what makes such a picture;
    that last part is a suspicion, not a finding. A measure that was not run is not judged: look in ``unmeasured``.

    ``own``: PyTorch's own pictures in that precision, against the same reference. Without them the limits must grant
    any model what FP16 may cost, and a single LoRA pair left out can hide there; with them it hides only if it changes
    the pictures no more than the precision does. Of three single pairs of the demo's UNet tried, two do (71 and 81 dB):
    no measure of pictures can find these. Raises UsageError for another precision.
    """
    if precision not in SSIM_FLOOR:
        raise UsageError(
            "there are no limits for pictures of this precision", expected=", ".join(SSIM_FLOOR), got=precision
        )
    return [*_levels(quality, precision), *_beyond(quality, precision, own), *_systematic(quality, precision)]


def _levels(quality: Quality, precision: str) -> Iterator[str]:
    worst, mean = quality.worst["psnr_db"], quality.mean["psnr_db"]
    floor, target = PSNR_FLOOR_DB[precision], PSNR_TARGET_DB[precision]
    if worst.value is not None and worst.value < floor:
        yield f"PSNR of frame {worst.index} is {worst.value:.2f} dB, under the floor of {floor:g} dB for {precision}"
    elif mean is not None and mean < target:
        yield f"PSNR is {mean:.2f} dB, above the floor but under the target of {target:g} dB for {precision}"
    low = quality.worst.get("ssim")
    if low is not None and low.value is not None and low.value < SSIM_FLOOR[precision]:
        yield f"SSIM of frame {low.index} is {low.value:.4f}, under the floor of {SSIM_FLOOR[precision]:g}"


def _beyond(quality: Quality, precision: str, own: Quality | None) -> Iterator[str]:
    lost = None if own is None else lost_db(quality, own)
    if lost is not None and lost > OWN_MARGIN_DB:
        yield (
            f"PSNR is {lost:.2f} dB under PyTorch's own {precision}, beyond {OWN_MARGIN_DB:g} dB: "
            "weights left out or changed do that"
        )


def _systematic(quality: Quality, precision: str) -> Iterator[str]:
    limit = BIAS_LIMIT_LEVELS[precision]
    for channel, value in zip("RGB", mean_bias(quality), strict=True):
        if value is not None and abs(value) > limit:
            yield (
                f"bias of {channel} is {value:+.2f} grey levels, beyond {limit:g}: "
                "rounding instead of truncation gives 0.5; a wrong range or gamma more"
            )
    tone = quality.mean.get("tone_levels")
    if tone is not None and tone > TONE_LIMIT_LEVELS[precision]:
        limit = TONE_LIMIT_LEVELS[precision]
        yield f"tone is off by {tone:.2f} grey levels, beyond {limit:g}: a wrong gamma, range or strength does that"
    swapped = {i: frame.channel_order for i, frame in enumerate(quality.frames) if frame.channel_order != "rgb"}
    for index, order in list(swapped.items())[:1]:
        yield f"channels of frame {index} fit as {order}, not as rgb: swapped channels do that"
    moved, limit = mean_shift(quality), SHIFT_LIMIT_PX[precision]
    if moved is not None and max(map(abs, moved)) > limit:
        yield (
            f"shift is {moved[0]:+.2f} pixels to the right and {moved[1]:+.2f} down, beyond {limit:g}: "
            "a wrong resize, crop or padding does that"
        )


def lost_db(quality: Quality, own: Quality) -> float | None:
    """How far the PSNR of ``quality`` is under that of ``own``, in dB; None where either is infinite."""
    ours, theirs = quality.mean["psnr_db"], own.mean["psnr_db"]
    return None if theirs is None or ours is None else theirs - ours


def mean_bias(quality: Quality) -> tuple[float | None, ...]:
    """The mean of ``got - reference`` over the frames, for R, G and B, in grey levels; None where no frame has one."""
    columns = zip(*(frame.bias_levels for frame in quality.frames), strict=True)
    present = [[value for value in column if value is not None] for column in columns]
    return tuple(float(np.mean(values)) if values else None for values in present)


def mean_shift(quality: Quality) -> tuple[float, float] | None:
    """The mean shift over the frames, (x to the right, y down) in pixels; None where no frame shows one."""
    shifts = [frame.shift_px for frame in quality.frames if frame.shift_px is not None]
    if not shifts:
        return None
    x, y = np.mean(shifts, axis=0)
    return float(x), float(y)
