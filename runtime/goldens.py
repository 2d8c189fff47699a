"""The goldens of a bundle, read back: what its engine must compute from what, on every device."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image, UnidentifiedImageError

from ..engines.bundle import GOLDENS, Bundle
from ..engines.errors import BundleError
from ..engines.manifest import FRAME
from .feeds import DEFAULT_SEED, batched, drawn_noises

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ..engines.base import TensorSpec


@dataclass(frozen=True)
class Goldens:
    """``pairs``: (frame, image), uint8, of exactly the engine's tensors' shapes without their batch axis.

    ``noises``: what every noise input was fed, float32 of that input's own shape.
    """

    pairs: tuple[tuple[NDArray[np.uint8], NDArray[np.uint8]], ...]
    noises: dict[str, NDArray[Any]]


def golden_names(number: int) -> tuple[str, str]:
    """The file names of a pair in the folder ``goldens``: of the frame and of the image."""
    return f"{number}_frame.png", f"{number}_image.png"


def read_goldens(bundle: Bundle) -> Goldens:
    """Every pair of ``bundle``, verified by SHA-256; none when it has none. The arrays are the caller's.

    To run a pair, repeat its frame along a new first axis to the engine's batch. Raises BundleError for goldens that
    are damaged or do not fit the bundle's tensors.
    """
    manifest = bundle.manifest
    specs = (next(spec for spec in manifest.inputs if spec.name == FRAME), manifest.outputs[0])
    pairs = []
    for number in itertools.count():
        names = [f"{GOLDENS}/{name}" for name in golden_names(number)]
        if names[0] not in manifest.files:
            break
        frame, image = (_read(bundle, name, spec) for name, spec in zip(names, specs, strict=True))
        pairs.append((frame, image))
    return Goldens(tuple(pairs), batched(drawn_noises(manifest.inputs, DEFAULT_SEED), manifest.model.batch))


def _read(bundle: Bundle, name: str, spec: TensorSpec) -> NDArray[np.uint8]:
    path = bundle.verified(name)
    try:
        with Image.open(path, formats=("PNG",)) as picture:
            tensor = np.array(picture)
    except (OSError, SyntaxError, UnidentifiedImageError) as error:
        raise BundleError(f"{path} is not a PNG: {error}", hint="export the bundle again") from error
    if tensor.dtype != np.uint8 or tensor.shape != spec.shape[1:]:
        raise BundleError(
            f"{path} is not a golden of this bundle's '{spec.name}'",
            expected=f"uint8 {list(spec.shape[1:])}",
            got=f"{tensor.dtype.name} {list(tensor.shape)}",
            hint="export the bundle again",
        )
    return tensor
