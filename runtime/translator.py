"""Frames in, pictures out: a bundle, the engine that runs it, and the host's work before and after."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..engines.base import Engine, TensorSpec
from ..engines.bundle import Bundle
from ..engines.errors import BundleError, UsageError
from ..engines.frame_layout import refuse_unknown_layout, tensor_shape
from ..engines.manifest import FRAME, IMAGE, LATENT_CHANNELS, NOISE
from ..engines.opening import Openable
from ..engines.select import Choice, choose, open_engine
from .colour import from_rgb, to_rgb, yuv_coding
from .feeds import DEFAULT_SEED, NOISES, batched, drawn_noises
from .guard import Guard, OnBadFrame, fault_of
from .image import Frame, prepare, refuse_unknown_rules, restore

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ..engines.manifest import FrameLayout, Manifest


class Translator(Openable):
    """Translates frames with a bundle: ``with Translator("day2night") as translate: image = translate(frame)``.

    Without ``with``, the engine is opened by the first call and given back by ``close``. Not thread-safe.

    ``bundle`` is the opened bundle, ``choice`` what runs it and ``reason`` why, in one sentence. ``guard`` has looked
    at every picture that a call returned, and counted the bad ones in ``guard.bad_frames``; see ``guard.py``.
    """

    def __init__(
        self,
        path: Path | str,
        *,
        engine: str | Engine | Choice = "auto",
        seed: int = DEFAULT_SEED,
        noise: NDArray[np.float32] | None = None,
        on_bad_frame: OnBadFrame = "error",
    ) -> None:
        """``path`` is a bundle's folder, or its ``generator.onnx`` or a plan in it; ``engine`` as in ``turbo-run``,
        what ``engines.select.choose`` chose, or an engine of the caller's own (``engines/pytorch.py``), which is
        opened and closed but not freed.

        A bundle with a ``noise`` input gets what ``torch.manual_seed(seed); torch.randn((1, 4, h, w))`` draws, every
        frame the same, so that no picture depends on which others it was translated with. ``noise``, float32
        ``[1, 4, h, w]`` or ``[4, h, w]``, replaces it. A ``posterior_noise`` input gets the same sequence's next
        draw, whether or not ``noise`` was replaced.

        ``on_bad_frame``: what a call does when the engine's picture broke in the network: ``error`` raises
        BadFrameError, ``pass`` returns it, ``last`` returns the last good picture, resized if it must be, and raises
        while there is none. Frames are in order for ``last``: one Translator for one stream.

        Raises what ``engines.select.choose`` raises; UsageError for a seed or noise that does not fit; BundleError
        for a bundle that asks for something this version does not know.
        """
        self._given = engine if isinstance(engine, Engine) else None
        self.choice: Choice = _choice(path, engine)
        self.bundle: Bundle = self.choice.bundle
        self.reason: str = self.choice.reason
        refuse_unknown_rules(self.bundle.manifest.frame_rules)
        if self.bundle.manifest.frame_layout is not None:
            refuse_unknown_layout(self.bundle.manifest.frame_layout)
        _refuse_unknown_tensors(self.bundle)
        self._noises = _noises(self.bundle.manifest, seed, noise)
        self._engine: Engine | None = None
        self.guard = Guard(on_bad_frame)

    def open(self) -> None:
        """Verify the bundle's files and load them. No effect when already open.

        Raises BundleError for a damaged bundle, MissingComponentError or DeviceError when the engine cannot start.
        """
        self._opened()

    def interrupt(self) -> None:
        """From any thread: make a translation in progress raise soon, where the engine can (``Engine.interrupt``)."""
        engine = self._engine
        if engine is not None:
            engine.interrupt()

    def close(self) -> None:
        """Give the engine back; the next call would open it again. No effect when not open."""
        engine, self._engine = self._engine, None
        if engine is not None:
            engine.close()

    def __call__(self, frame: Frame) -> Frame:
        """Translate one frame, uint8 RGB ``[H, W, 3]`` of any size, or several, ``[B, H, W, 3]`` with any B.

        Returns uint8 RGB of the same number of dimensions, owned by the caller: at the frame's own size for the rule
        ``squash``, at the model's for ``floor8``. Raises UsageError for anything but such an array, and what ``open``
        raises; DeviceError when the engine fails; BadFrameError as ``on_bad_frame`` has it.

        A bundle with a ``frame_layout`` takes its camera's own frames: here the host resizes the picture to their
        size (LANCZOS) and converts it, and the image back; ``image.frame_note`` says so in a sentence.
        """
        _refuse_other_than_frames(frame)
        if frame.ndim == 3:
            return self.translate_each([frame])[0]
        return np.stack(self.translate_each(list(frame)))

    def translate_each(self, frames: Sequence[Frame]) -> list[Frame]:
        """As a call for each frame, uint8 ``[H, W, 3]``, whose sizes may differ: the bundle's batch is filled.

        A last batch that is not full is filled up with its last frame, and those images are dropped.
        """
        images = self.translate_unguarded(frames)
        return [self._guarded(image, frame) for image, frame in zip(images, frames, strict=True)]

    def translate_unguarded(self, frames: Sequence[Frame]) -> list[Frame]:
        """As ``translate_each``, bad pictures included and not counted: for callers with a ``Guard`` of their own."""
        for frame in frames:
            _refuse_other_than_frames(frame, dimensions=(3,))
        engine = self._opened()
        batch = self.bundle.manifest.model.batch
        images: list[Frame] = []
        for start in range(0, len(frames), batch):
            images += self._translate_batch(engine, frames[start : start + batch])
        return images

    def fault_of(self, image: Frame, frame: Frame) -> str | None:
        """What is wrong with the RGB ``image`` that this Translator made of the RGB ``frame``; None for nothing."""
        manifest = self.bundle.manifest
        layout = manifest.frame_layout
        return fault_of(image, lambda: _into(frame, manifest), ("rgb" if layout is None else layout.format, "rgb"))

    def _guarded(self, image: Frame, frame: Frame) -> Frame:
        admitted = self.guard.admitted(image, self.fault_of(image, frame))
        return restore(admitted, image.shape[1], image.shape[0], "squash")  # the last good one may have another size

    def translate_native(self, frame: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Translate what the camera gave, with no work on the host: only for a bundle with a ``frame_layout``.

        ``frame`` is C-contiguous uint8 in the layout's ``format``, of exactly the shape of the engine's input, whose
        batch axis may be left out when it is 1. Returns the engine's output, in ``output_format``, with or without
        that axis as ``frame``; it is the caller's. Raises UsageError for another array or bundle, and what a call
        raises.
        """
        manifest = self.bundle.manifest
        if manifest.frame_layout is None:
            raise UsageError(
                f"{self.bundle.root} takes prepared RGB frames, not a camera's own",
                hint="call the translator with an RGB frame, or export with --frame WIDTHxHEIGHT",
            )
        given = frame[None] if isinstance(frame, np.ndarray) and self._lacks_batch(frame) else frame
        spec = _pictures(manifest)[0]
        if not isinstance(frame, np.ndarray) or given.shape != spec.shape:
            either = f" or {list(spec.shape[1:])}" if manifest.model.batch == 1 else ""
            raise UsageError(
                f"this is not a frame of {self.bundle.root}",
                expected=f"a numpy array, uint8 {list(spec.shape)}{either}",
                got=_what(frame),
            )
        images: NDArray[np.uint8] = self._opened().run({FRAME: given, **self._noises})[IMAGE]  # type: ignore[assignment]
        for image, one in zip(images, given, strict=True):
            self._guard_native(image, one, manifest.frame_layout)
        return images if given is frame else images[0]

    def _guard_native(self, image: NDArray[np.uint8], frame: NDArray[np.uint8], layout: FrameLayout) -> None:
        """Write the last good picture over a bad one, where that is the policy."""
        fault = fault_of(image, lambda: frame, (layout.format, layout.output_format))
        admitted = self.guard.admitted(image, fault, "native")
        if admitted is not image:
            image[:] = admitted

    def _lacks_batch(self, frame: NDArray[np.uint8]) -> bool:
        return self.bundle.manifest.model.batch == 1 and frame.ndim == len(_pictures(self.bundle.manifest)[0].shape) - 1

    def _translate_batch(self, engine: Engine, frames: Sequence[Frame]) -> list[Frame]:
        manifest = self.bundle.manifest
        prepared = [_into(frame, manifest) for frame in frames]
        prepared += [prepared[-1]] * (manifest.model.batch - len(prepared))
        # A single frame needs no copy, only its batch axis.
        batch = np.ascontiguousarray(prepared[0])[None] if len(prepared) == 1 else np.stack(prepared)
        results: Mapping[str, NDArray[Any]] = engine.run({FRAME: batch, **self._noises})
        return [
            _out_of(image, (frame.shape[1], frame.shape[0]), manifest)
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


def _choice(path: Path | str, engine: str | Engine | Choice) -> Choice:
    if isinstance(engine, Choice):
        return engine
    if isinstance(engine, str):
        return choose(path, engine)
    return Choice(engine.backend, Bundle.open(path), None, f"{engine.backend}, as given")


def _refuse_other_than_frames(frame: Frame, dimensions: tuple[int, ...] = (3, 4)) -> None:
    fits = isinstance(frame, np.ndarray) and frame.dtype == np.uint8 and frame.ndim in dimensions
    if not fits or frame.shape[-1] != 3 or frame.size == 0:
        raise UsageError(
            "this is not a frame",
            expected="a numpy array, uint8 RGB, [H,W,3]" + (" or [B,H,W,3]" if 4 in dimensions else ""),
            got=_what(frame),
        )


def _what(given: Any) -> str:
    return f"{given.dtype.name} {list(given.shape)}" if isinstance(given, np.ndarray) else type(given).__name__


def _into(frame: Frame, manifest: Manifest) -> NDArray[np.uint8]:
    """An RGB frame of any size as the engine wants it, without the batch axis."""
    layout = manifest.frame_layout
    if layout is None:
        return prepare(frame, manifest.model.width, manifest.model.height, manifest.frame_rules.input_prep)
    resized = prepare(frame, layout.width, layout.height, "raw")  # the rest of the rules is in the graph
    return from_rgb(resized, layout.format, yuv_coding(layout.matrix, layout.range))


def _out_of(image: NDArray[np.uint8], size: tuple[int, int], manifest: Manifest) -> Frame:
    """What the engine gave, as RGB for a frame of ``size``, (width, height)."""
    layout = manifest.frame_layout
    if layout is None:
        return restore(image, *size, manifest.frame_rules.resize)
    return restore(to_rgb(image, layout.output_format, yuv_coding(layout.matrix, layout.range)), *size, "squash")


def _pictures(manifest: Manifest) -> tuple[TensorSpec, TensorSpec]:
    """The frame's and the image's tensors, as the manifest's sizes and formats have it."""
    model, layout = manifest.model, manifest.frame_layout
    if layout is None:
        shapes = [tensor_shape("rgb", model.width, model.height)] * 2
    else:
        shapes = [tensor_shape(kind, layout.width, layout.height) for kind in (layout.format, layout.output_format)]
    frame, image = ((model.batch, *shape) for shape in shapes)
    return TensorSpec(FRAME, "uint8", frame), TensorSpec(IMAGE, "uint8", image)


def _refuse_unknown_tensors(bundle: Bundle) -> None:
    """Raise BundleError unless the manifest's tensors are those that this class can feed and read."""
    manifest, model = bundle.manifest, bundle.manifest.model
    frame, image = _pictures(manifest)
    inputs = {spec.name: spec for spec in manifest.inputs}
    noises = [name for name in NOISES if name in inputs]
    known = {FRAME: frame}
    for name in noises:
        known[name] = TensorSpec(name, "float32", (model.batch, LATENT_CHANNELS, *inputs[name].shape[2:]))
    outputs = (image,)
    if inputs != known or manifest.outputs != outputs or any(len(inputs[name].shape) != 4 for name in noises):
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
    drawn = drawn_noises(manifest.inputs, seed)
    if given is not None:
        drawn[NOISE] = _fitting_noise(given, drawn.get(NOISE))
    return batched(drawn, manifest.model.batch)


def _fitting_noise(given: NDArray[np.float32], drawn: NDArray[np.float32] | None) -> NDArray[np.float32]:
    if drawn is None:
        raise UsageError("this bundle takes no noise", hint="leave the noise out")
    if (
        not isinstance(given, np.ndarray)
        or given.dtype != np.float32
        or given.shape not in (drawn.shape, drawn.shape[1:])
    ):
        raise UsageError(
            "the noise does not fit this bundle",
            expected=f"a numpy array, float32 {list(drawn.shape)} or {list(drawn.shape[1:])}",
            got=_what(given),
        )
    return given.reshape(drawn.shape)
