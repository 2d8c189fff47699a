"""What the rows of a benchmark are fed: a bundle's own tensors, with the picture that each must become."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..engines.manifest import FRAME, IMAGE
from ..engines.null import NullEngine
from ..runtime.colour import to_rgb, yuv_coding
from ..runtime.goldens import read_goldens
from ..runtime.image import load_frame
from ..runtime.jobs import pictures_of
from ..runtime.translator import Translator

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ..engines.base import Engine, Tensors
    from ..engines.bundle import Bundle

GOLDENS = "the bundle's goldens: what ONNX Runtime made of the exported graph"
PYTORCH = "unmerged PyTorch FP32, live adapters, on the same tensors"


@dataclass(frozen=True)
class Case:
    """``frame``: RGB uint8 [H, W, 3], for host work and pictures. ``feeds``: the engine's tensors, the frame repeated
    to the bundle's batch. ``expected``: RGB uint8 at the engine's own size, or None where nothing says what it is.
    """

    frame: NDArray[np.uint8]
    feeds: Tensors
    expected: NDArray[np.uint8] | None = None


class _Keeper(NullEngine):
    """Remembers what it was fed last."""

    def _run(self, feeds: Tensors, out: Tensors | None) -> Tensors:
        self.feeds = {name: values.copy() for name, values in feeds.items()}
        return super()._run(feeds, out)


def cases_of_frames(bundle: Bundle, frames: Iterable[NDArray[np.uint8]]) -> list[Case]:
    """A case for each RGB frame of any size, prepared as the translator prepares it; nothing is expected yet."""
    keeper = _Keeper(bundle.manifest.inputs, bundle.manifest.outputs)
    cases = []
    with Translator(bundle.root, engine=keeper) as translate:
        for frame in frames:
            translate(frame)
            cases.append(Case(frame, keeper.feeds))
    return cases


def cases_of_goldens(bundle: Bundle) -> list[Case]:
    """The bundle's golden pairs. Raises BundleError for damaged ones."""
    goldens = read_goldens(bundle)
    batch = bundle.manifest.model.batch
    cases = []
    for frame, image in goldens.pairs:
        feeds: dict[str, NDArray[Any]] = {FRAME: np.repeat(frame[None], batch, axis=0), **goldens.noises}
        cases.append(Case(_rgb(bundle, frame, is_input=True), feeds, _rgb(bundle, image, is_input=False)))
    return cases


def random_case(bundle: Bundle) -> Case:
    """Noise at the model's size, the same every time: for a bundle without goldens where no frames were given."""
    model = bundle.manifest.model
    frame = np.random.default_rng(0).integers(0, 256, (model.height, model.width, 3), dtype=np.uint8)
    return cases_of_frames(bundle, [frame])[0]


def expecting(cases: Iterable[Case], bundle: Bundle, reference: Engine) -> list[Case]:
    """The same cases with what ``reference``, an open engine, makes of them."""
    return [replace(case, expected=image_of(bundle, reference, case)) for case in cases]


def image_of(bundle: Bundle, engine: Engine, case: Case) -> NDArray[np.uint8]:
    """What an open engine makes of a case: RGB uint8 at the engine's own size, of the batch's first frame."""
    return _rgb(bundle, np.asarray(engine.run(case.feeds)[IMAGE][0], dtype=np.uint8), is_input=False)


def load_frames(folder: Path | str) -> list[NDArray[np.uint8]]:
    """Every picture of ``folder`` (or the one picture, or a glob's), in the order that turbo-run takes them."""
    return [load_frame(path) for path in pictures_of(folder)]


def digest_of(frames: Iterable[NDArray[np.uint8]]) -> str:
    """SHA-256 over the frames' shapes and pixels, in hex."""
    digest = hashlib.sha256()
    for frame in frames:
        digest.update(str(frame.shape).encode() + np.ascontiguousarray(frame).tobytes())
    return digest.hexdigest()


def _rgb(bundle: Bundle, tensor: NDArray[np.uint8], *, is_input: bool) -> NDArray[np.uint8]:
    layout = bundle.manifest.frame_layout
    if layout is None:
        return tensor
    kind = layout.format if is_input else layout.output_format
    return to_rgb(tensor, kind, yuv_coding(layout.matrix, layout.range))
