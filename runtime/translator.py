"""Frames in, pictures out: a bundle, the engine that runs it, and the host's work before and after."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

import numpy as np

from ..engines.base import Engine, TensorSpec
from ..engines.bundle import Bundle
from ..engines.errors import BundleError, UsageError
from ..engines.manifest import FRAME, IMAGE, LATENT_CHANNELS, NOISE, POSTERIOR_NOISE
from ..engines.select import Choice, choose, open_engine
from .image import Frame, prepare, refuse_unknown_rules, restore
from .noise import TorchNormal

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ..engines.manifest import Manifest

# Drawn in this order from one seeded sequence, as the published scripts draw them.
_NOISES = (NOISE, POSTERIOR_NOISE)


class Translator:
    """Translates frames with a bundle: ``with Translator("day2night") as translate: image = translate(frame)``.

    Without ``with``, the engine is opened by the first call and given back by ``close``. Not thread-safe.

    ``bundle`` is the opened bundle, ``choice`` what runs it and ``reason`` why, in one sentence.
    """

    def __init__(
        self,
        path: Path | str,
        *,
        engine: str | Engine = "auto",
        seed: int = 42,
        noise: NDArray[np.float32] | None = None,
    ) -> None:
        """``path`` is a bundle's folder, or its ``generator.onnx`` or a plan in it; ``engine`` as in ``turbo-run``,
        or an engine of the caller's own (``engines/pytorch.py``), which is opened and closed but not freed.

        A bundle with a ``noise`` input gets what ``torch.manual_seed(seed); torch.randn((1, 4, h, w))`` draws, every
        frame the same, so that no picture depends on which others it was translated with. ``noise``, float32
        ``[1, 4, h, w]`` or ``[4, h, w]``, replaces it. A ``posterior_noise`` input gets the same sequence's next
        draw, whether or not ``noise`` was replaced.

        Raises what ``engines.select.choose`` raises; UsageError for a seed or noise that does not fit; BundleError
        for a bundle that asks for something this version does not know.
        """
        self._given = engine if isinstance(engine, Engine) else None
        self.choice: Choice = choose(path, engine) if isinstance(engine, str) else _given_choice(path, engine)
        self.bundle: Bundle = self.choice.bundle
        self.reason: str = self.choice.reason
        refuse_unknown_rules(self.bundle.manifest.frame_rules)
        _refuse_unknown_tensors(self.bundle)
        self._noises = _noises(self.bundle.manifest, seed, noise)
        self._engine: Engine | None = None

    def open(self) -> None:
        """Verify the bundle's files and load them. No effect when already open.

        Raises BundleError for a damaged bundle, MissingComponentError or DeviceError when the engine cannot start.
        """
        self._opened()

    def close(self) -> None:
        """Give the engine back; the next call would open it again. No effect when not open."""
        engine, self._engine = self._engine, None
        if engine is not None:
            engine.close()

    def __enter__(self) -> Translator:
        self.open()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def __call__(self, frame: Frame) -> Frame:
        """Translate one frame, uint8 RGB ``[H, W, 3]`` of any size, or several, ``[B, H, W, 3]`` with any B.

        Returns uint8 RGB of the same number of dimensions, owned by the caller: at the frame's own size for the rule
        ``squash``, at the model's for ``floor8``. Raises UsageError for anything but such an array, and what ``open``
        raises; DeviceError when the engine fails.
        """
        _refuse_other_than_frames(frame)
        if frame.ndim == 3:
            return self.translate_each([frame])[0]
        return np.stack(self.translate_each(list(frame)))

    def translate_each(self, frames: Sequence[Frame]) -> list[Frame]:
        """As a call for each frame, uint8 ``[H, W, 3]``, whose sizes may differ: the bundle's batch is filled.

        A last batch that is not full is filled up with its last frame, and those images are dropped.
        """
        for frame in frames:
            _refuse_other_than_frames(frame, dimensions=(3,))
        engine = self._opened()
        batch = self.bundle.manifest.model.batch
        images: list[Frame] = []
        for start in range(0, len(frames), batch):
            images += self._translate_batch(engine, frames[start : start + batch])
        return images

    def _translate_batch(self, engine: Engine, frames: Sequence[Frame]) -> list[Frame]:
        model, rules = self.bundle.manifest.model, self.bundle.manifest.frame_rules
        prepared = [prepare(frame, model.width, model.height, rules.input_prep) for frame in frames]
        prepared += [prepared[-1]] * (model.batch - len(prepared))
        results: Mapping[str, NDArray[Any]] = engine.run({FRAME: np.stack(prepared), **self._noises})
        return [
            restore(image, frame.shape[1], frame.shape[0], rules.resize)
            for image, frame in zip(results[IMAGE], frames, strict=False)
        ]

    def _opened(self) -> Engine:
        if self._engine is None:
            engine = self._given or open_engine(self.choice)
            engine.open()
            try:
                _refuse_other_tensors(engine, self.bundle)
            except BundleError:
                engine.close()
                raise
            self._engine = engine
        return self._engine


def _given_choice(path: Path | str, engine: Engine) -> Choice:
    return Choice(engine.backend, Bundle.open(path), None, f"{engine.backend}, as given")


def _refuse_other_than_frames(frame: Frame, dimensions: tuple[int, ...] = (3, 4)) -> None:
    fits = isinstance(frame, np.ndarray) and frame.dtype == np.uint8 and frame.ndim in dimensions
    if not fits or frame.shape[-1] != 3 or frame.size == 0:
        is_array = isinstance(frame, np.ndarray)
        raise UsageError(
            "this is not a frame",
            expected="a numpy array, uint8 RGB, [H,W,3]" + (" or [B,H,W,3]" if 4 in dimensions else ""),
            got=f"{frame.dtype.name} {list(frame.shape)}" if is_array else type(frame).__name__,
        )


def _refuse_unknown_tensors(bundle: Bundle) -> None:
    """Raise BundleError unless the manifest's tensors are those that this class can feed and read."""
    manifest, model = bundle.manifest, bundle.manifest.model
    picture = (model.batch, model.height, model.width, 3)
    inputs = {spec.name: spec for spec in manifest.inputs}
    known = {FRAME: TensorSpec(FRAME, "uint8", picture)}
    for name in (name for name in _NOISES if name in inputs):
        known[name] = TensorSpec(name, "float32", (model.batch, LATENT_CHANNELS, *inputs[name].shape[2:]))
    outputs = (TensorSpec(IMAGE, "uint8", picture),)
    if inputs != known or manifest.outputs != outputs or any(len(spec.shape) != 4 for spec in inputs.values()):
        raise BundleError(
            f"{bundle.root} wants tensors that this version cannot feed",
            expected=_listed((*known.values(), *outputs)),
            got=_listed((*manifest.inputs, *manifest.outputs)),
            hint="pip install --upgrade edgeturbo",
        )


def _refuse_other_tensors(engine: Engine, bundle: Bundle) -> None:
    manifest = bundle.manifest
    if {*engine.inputs} != {*manifest.inputs} or {*engine.outputs} != {*manifest.outputs}:
        raise BundleError(
            f"the {engine.backend} engine of {bundle.root} is not the one its manifest describes",
            expected=_listed((*manifest.inputs, *manifest.outputs)),
            got=_listed((*engine.inputs, *engine.outputs)),
            hint="export the bundle again",
        )


def _listed(specs: tuple[TensorSpec, ...]) -> str:
    return ", ".join(str(spec) for spec in specs)


def _noises(manifest: Manifest, seed: int, given: NDArray[np.float32] | None) -> dict[str, NDArray[np.float32]]:
    """The constant feeds: every noise input of the bundle, one draw each, the same for every frame of the batch."""
    sequence = TorchNormal(seed)
    shapes = {spec.name: spec.shape for spec in manifest.inputs}
    drawn = {name: sequence.randn((1, *shapes[name][1:])) for name in _NOISES if name in shapes}
    if given is not None:
        drawn[NOISE] = _fitting_noise(given, drawn.get(NOISE))
    return {name: np.repeat(values, shapes[name][0], axis=0) for name, values in drawn.items()}


def _fitting_noise(given: NDArray[np.float32], drawn: NDArray[np.float32] | None) -> NDArray[np.float32]:
    if drawn is None:
        raise UsageError("this bundle takes no noise", hint="leave the noise out")
    if (
        not isinstance(given, np.ndarray)
        or given.dtype != np.float32
        or given.shape not in (drawn.shape, drawn.shape[1:])
    ):
        is_array = isinstance(given, np.ndarray)
        raise UsageError(
            "the noise does not fit this bundle",
            expected=f"a numpy array, float32 {list(drawn.shape)} or {list(drawn.shape[1:])}",
            got=f"{given.dtype.name} {list(given.shape)}" if is_array else type(given).__name__,
        )
    return given.reshape(drawn.shape)
