"""Whether what an engine gave is a picture: a result that broke in the network is one colour from edge to edge.

A NaN or an infinity never leaves the generator as such: its last steps, clamp and cast to uint8, are in the graph.
Along the way each normalisation and attention spreads it over the whole picture, because each pixel is scaled by a
statistic of all, so nearly all of what goes wrong ends as a constant picture. A NaN becomes 0, black, in ONNX Runtime
1.31 and OpenVINO 2026.4 on a CPU and in PyTorch 2.13, in FP32, FP16 and BF16 (tried); in TensorRT 10.16, whose Clip
gives the lower bound for it and whose Cast gives 0, by its users' reports (NVIDIA/TensorRT issues 4773, 4775).
Infinities become 0 and 255. A single NaN put into one number of 11 tensors, from the first to the last normalisation of
a tiny export with the golden weights, made the whole picture black each time (tried with ONNX Runtime).

So the guard looks at the downloaded bytes alone, which on a GPU costs no further download and no kernel. A picture with
any texture takes about 5 microseconds at any size, less than 0.1 % of a frame of the null engine through the loop; one
of a single colour 0.1 ms at 512x512 and 0.6 ms at 1280x720 (benchmarks/results/guard.json, taken on two busy CPU cores
by ``python -m edgeturbo.benchmarks.guard``).

What it cannot see: a NaN that is born behind the last normalisation, which blackens single pixels; a picture that is
wrong and not constant, which is what the export's gates are for; images that stay on the GPU (``Engine.run_device``),
which nobody downloads for it, and whatever else is taken from an engine without a ``Translator``.

A network that was given one colour may give one colour back: where the engine's input is constant itself (a lens cap
without noise, a fade to black, a sheet of paper under ``sketch``), a constant picture is not called bad. So a network
that breaks on such frames alone is not noticed, and shows one colour for one colour.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Literal, get_args

import numpy as np

from ..engines.errors import BadFrameError, UsageError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Judge = Callable[[NDArray[np.uint8], NDArray[np.uint8]], str | None]

_log = logging.getLogger(__name__)

OnBadFrame = Literal["error", "pass", "last"]

CONSTANT = "constant"  # the one fault that can be seen, and its label in metrics

# Pixels of the grid that is looked at first, each way: 8x8 of them. A picture with any texture ends there.
_GRID = 8
# Bytes compared at a time, of a picture whose grid is of one colour: they stay in the processor's first caches, and a
# picture that differs early ends early.
_CHUNK = 1 << 15


def is_constant(picture: NDArray[np.uint8], kind: str = "rgb") -> bool:
    """Whether every pixel equals the first, channel by channel. ``picture``: as ``frame_layout.tensor_shape`` says.

    Of ``nv12`` and ``yuyv`` both luma and chroma must be constant. Alpha, constant by itself, hides nothing.
    """
    return all(_is_constant(plane) for plane in _planes(picture, kind))


def fault_of(
    image: NDArray[np.uint8],
    given: Callable[[], NDArray[np.uint8]],
    kinds: tuple[str, str] = ("rgb", "rgb"),
) -> str | None:
    """``CONSTANT`` for a constant ``image`` of what was not constant; else None.

    ``given`` returns what the engine got for it, and is called for a constant image alone. ``kinds`` are the formats of
    what was given and of the image.
    """
    if not is_constant(image, kinds[1]) or is_constant(given(), kinds[0]):
        return None
    return CONSTANT


def rgb_fault_of(image: NDArray[np.uint8], frame: NDArray[np.uint8]) -> str | None:
    """``fault_of`` for an RGB frame that the engine got as it was."""
    return fault_of(image, lambda: frame)


class Guard:
    """Judges pictures in their order and counts the bad ones in ``bad_frames``, by reason. For one thread.

    ``policy``: what becomes of a bad picture. ``error`` raises; ``pass`` lets it through; ``last`` puts the last good
    picture in its place. Whichever it is, the log has one line when bad pictures begin and one when they end.
    """

    def __init__(self, policy: OnBadFrame = "error") -> None:
        if policy not in get_args(OnBadFrame):
            raise UsageError(
                "--on-bad-frame has an unknown value", expected=", ".join(get_args(OnBadFrame)), got=policy
            )
        self.policy: OnBadFrame = policy
        self.bad_frames: Counter[str] = Counter()
        self._in_a_row = 0
        self._last: dict[str, NDArray[np.uint8]] = {}

    def note(self, fault: str | None) -> None:
        """Take down the next picture's fault, or that it has none. Raises BadFrameError under ``error``."""
        if fault is None:
            if self._in_a_row:
                _log.warning("the engine gives good pictures again, after %d bad ones", self._in_a_row)
            self._in_a_row = 0
            return
        self._in_a_row += 1
        self.bad_frames[fault] += 1
        if self.policy == "error":
            raise _error(fault)
        if self._in_a_row == 1:
            shown = "it is passed on" if self.policy == "pass" else "the last good one, if any, stands in"
            _log.warning("the engine gave a bad picture (%s): %s", fault, shown)

    def admitted(self, image: NDArray[np.uint8], fault: str | None, kind: str = "rgb") -> NDArray[np.uint8]:
        """``image``, or under ``last`` for a bad one a copy of the last good one of this ``kind``, of whatever size.

        Raises BadFrameError under ``error``, and under ``last`` where no good picture has come yet.
        """
        self.note(fault)
        if self.policy != "last":
            return image
        if fault is None:
            self._last[kind] = image.copy()  # the image is the caller's, who may write to it
            return image
        if kind not in self._last:
            raise _error(fault)
        return self._last[kind].copy()


def _error(fault: str) -> BadFrameError:
    return BadFrameError(
        f"the engine gave a bad picture: {fault}, as an overflow in the network makes it",
        expected="more than one colour, as in the frame",
        hint="--engine onnxruntime, which computes in FP32 on a CPU, to see whether FP16 is at fault; then "
        "turbo-export --precision fp32; or go on all the same with --on-bad-frame last or pass",
    )


def _planes(picture: NDArray[np.uint8], kind: str) -> Iterator[NDArray[np.uint8]]:
    """The picture as arrays [rows, pixels, channels], in each of which all pixels mean the same."""
    if kind == "nv12":
        height, width = picture.shape[0] * 2 // 3, picture.shape[1]
        yield picture[:height, :, None]
        yield picture[height:].reshape(height // 2, width // 2, 2)
    elif kind == "yuyv":
        yield picture.reshape(picture.shape[0], picture.shape[1] // 2, 4)
    else:
        yield picture


def _is_constant(plane: NDArray[np.uint8]) -> bool:
    rows, pixels, channels = plane.shape
    grid = plane[:: max(rows // _GRID, 1), :: max(pixels // _GRID, 1)]
    if (grid != plane[0, 0]).any():
        return False
    # Each byte against the one a pixel later: one long comparison, where pixel by pixel would be many short ones.
    flat = np.ascontiguousarray(plane).reshape(-1)
    first, second = flat[:-channels], flat[channels:]
    return all(
        np.array_equal(first[start : start + _CHUNK], second[start : start + _CHUNK])
        for start in range(0, first.size, _CHUNK)
    )
