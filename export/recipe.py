"""What the user asked for, what the checkpoint's name implies, and the two made into one complete recipe."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from ..engines.build import check_targets
from ..engines.errors import UsageError
from ..engines.frame_layout import YUV_FORMATS, refuse_unfit_frame
from ..engines.manifest import (
    ColourMatrix,
    ColourRange,
    FrameFormat,
    FrameLayout,
    FrameRules,
    InputPrep,
    Model,
    Posterior,
    Precision,
)
from .base import DEFAULT_BASE
from .checkpoints.checkpoint import Checkpoint
from .checkpoints.released import RELEASED, Released, released
from .native import Border
from .plans import DEFAULT_RTX_TARGETS
from .quantised import Target, refuse_quantisation
from .ranges import DEFAULT_MARGIN
from .trace import DEFAULT_OPSET, OPSETS, GraphShape

ExportEngine = Literal["auto", "onnx", "tensorrt", "tensorrt-rtx", "openvino"]

_LARGEST_MARGIN = 256.0  # beyond it a tensor of ordinary size would count as too large
DEFAULT_STRENGTH = 0.4  # --gamma of the published inference_paired.py
# What the Linux kernel's videodev2.h takes a camera to mean that says nothing else (V4L2_MAP_YCBCR_ENC_DEFAULT and
# V4L2_MAP_QUANTIZATION_DEFAULT): webcams report the colour space sRGB, whose Y'CbCr is then BT.601, limited range.
# Full range is for JPEG's colour space, BT.709 for cameras that report that one.
DEFAULT_MATRIX: ColourMatrix = "bt601"
DEFAULT_RANGE: ColourRange = "limited"
_UNPAIRED = "cyclegan-turbo"


@dataclass(frozen=True)
class ExportOptions:
    """``turbo-export``'s options. None means "whatever the checkpoint and its name imply"; sizes are in pixels.

    ``parity_frames`` None: 3, or 1 for a full-size model. ``command`` is noted in the manifest.

    ``frame``: (width, height) of the camera's own frames, which the graph then takes in ``frame_format`` (rgb) and
    gives back in ``output_format`` (the same); ``colour_matrix`` (bt601) and ``colour_range`` (limited) say how their
    YUV is meant. ``passes`` names further passes over the graph (``passes/choice.py``);
    None takes those that were measured to help what runs it.

    ``calibrate``: a folder of pictures to measure ranges on, FP16's and those of eight bits; None takes the bundled
    ones. ``fp16_margin``, at least 1, is the room they must leave: the factor between the largest magnitude measured
    and FP16's 65,504. ``method`` makes eight bits' scales of them (None: the best for the format). A mixture
    (``mixed:int8``, ``mixed:fp8``) is the fastest on ``target`` that keeps ``min_psnr`` dB (None: 35).
    """

    ckpt: Path
    out: Path | None = None
    base: str = DEFAULT_BASE
    prompt: str | None = None
    direction: str | None = None
    width: int = 512
    height: int = 512
    batch: int = 1
    precision: Precision = "fp16"
    strength: float | None = None
    posterior: Posterior = "mean"
    input_prep: InputPrep | None = None
    opset: int = DEFAULT_OPSET
    engine: ExportEngine = "auto"
    targets: tuple[str, ...] = DEFAULT_RTX_TARGETS
    parity_frames: int | None = None
    force: bool = False
    command: str = ""
    frame: tuple[int, int] | None = None
    frame_format: FrameFormat | None = None
    output_format: FrameFormat | None = None
    colour_matrix: ColourMatrix | None = None
    colour_range: ColourRange | None = None
    passes: tuple[str, ...] | None = None
    calibrate: Path | None = None
    fp16_margin: float = DEFAULT_MARGIN
    method: str | None = None
    min_psnr: float | None = None
    target: Target | None = None

    @property
    def folder(self) -> Path:
        """Where the bundle goes: ``out``, or a folder named after the checkpoint."""
        return self.out or Path(self.ckpt.stem)


@dataclass(frozen=True)
class Recipe:
    """Everything about a generator that is decided before a weight is touched."""

    options: ExportOptions
    prompt: str
    direction: str | None
    strength: float | None
    input_prep: InputPrep
    shape: GraphShape
    signed_input: bool

    @property
    def frame_rules(self) -> FrameRules:
        return FrameRules(self.input_prep, "squash" if self.signed_input else "floor8")

    @property
    def border(self) -> Border | None:
        """What the graph does around the networks; None where the host does it."""
        layout = self.shape.layout
        if layout is None:
            return None
        return Border(layout, self.shape.width, self.shape.height, sketch=self.input_prep == "sketch")

    def model(self, checkpoint: Checkpoint) -> Model:
        options = self.options
        return Model(
            family=checkpoint.family, direction=self.direction, prompt=self.prompt, strength=self.strength,
            posterior=options.posterior, precision=options.precision, opset=options.opset,
            width=options.width, height=options.height, batch=options.batch, passes=options.passes or (),
        )  # fmt: skip


def refuse_impossible(options: ExportOptions) -> None:
    """Raise UsageError for options that no checkpoint could make sense of. Cheap: nothing is read."""
    GraphShape(options.width, options.height, options.batch, noise=False, posterior_noise=False)
    _refuse_canny(options.input_prep, _layout(options))
    if options.opset not in OPSETS:
        expected = f"{OPSETS[0]} to {OPSETS[-1]}"
        raise UsageError(f"--opset {options.opset} does not work", expected=expected, hint=f"--opset {DEFAULT_OPSET}")
    if options.engine in ("auto", "tensorrt-rtx"):
        check_targets(options.targets)
    if options.passes:
        from .passes.choice import refuse_unknown_passes

        refuse_unknown_passes(options.passes)
    _refuse_ranges(options)
    refuse_quantisation(options)
    if options.parity_frames is not None and options.parity_frames < 1:
        raise UsageError("--parity-frames must be at least 1: no bundle is written unchecked", hint="--parity-frames 1")
    if options.strength is not None and not 0.0 <= options.strength <= 1.0:
        raise UsageError(f"--strength {options.strength} does not work", expected="0 to 1", hint="--strength 0.4")


def _refuse_ranges(options: ExportOptions) -> None:
    if not 1.0 <= options.fp16_margin <= _LARGEST_MARGIN:
        raise UsageError(
            f"--fp16-margin {options.fp16_margin:g} does not work",
            expected=f"1 (no room) to {_LARGEST_MARGIN:g}",
            hint=f"--fp16-margin {DEFAULT_MARGIN:g}",
        )
    if options.calibrate is not None and options.precision == "fp32":
        raise UsageError(
            "--calibrate measures what FP16 has to hold, and this bundle is to be FP32", hint="--precision fp16"
        )


def recipe_for(options: ExportOptions, checkpoint: Checkpoint) -> Recipe:
    """Complete ``options`` by what ``checkpoint`` is and its name implies. Raises UsageError for what is missing."""
    known = released(options.ckpt, checkpoint.family) or Released(checkpoint.family)
    direction = _direction(options, checkpoint, known)
    input_prep, layout = options.input_prep or known.input_prep, _layout(options)
    _refuse_canny(input_prep, layout)
    return Recipe(
        options=options,
        prompt=_prompt(options, known, direction),
        direction=direction,
        strength=_strength(options, checkpoint),
        input_prep=input_prep,
        shape=GraphShape(
            options.width, options.height, options.batch,
            noise=checkpoint.stochastic, posterior_noise=options.posterior == "sample", layout=layout,
        ),
        signed_input=checkpoint.family == _UNPAIRED,
    )  # fmt: skip


def _layout(options: ExportOptions) -> FrameLayout | None:
    """The camera's frame that ``options`` describe. Raises UsageError for what no camera gives."""
    if options.frame is None:
        _refuse_without_frame(options)
        return None
    kind = options.frame_format or "rgb"
    output = options.output_format or kind
    if options.colour_matrix or options.colour_range:
        _refuse_colour_without_yuv(kind, output)
    for each in (kind, output):
        refuse_unfit_frame(each, *options.frame)
    matrix, range_ = options.colour_matrix or DEFAULT_MATRIX, options.colour_range or DEFAULT_RANGE
    return FrameLayout(*options.frame, kind, output, matrix, range_)


def _refuse_without_frame(options: ExportOptions) -> None:
    given = (
        ("--frame-format", options.frame_format), ("--output-format", options.output_format),
        ("--colour-matrix", options.colour_matrix), ("--colour-range", options.colour_range),
    )  # fmt: skip
    for flag, value in given:
        if value is not None:
            raise UsageError(
                f"{flag} {value} says how a camera's frame is meant, and the frame's size is missing",
                expected="--frame WIDTHxHEIGHT beside it",
                hint=f"--frame 1280x720 {flag} {value}",
            )


def _refuse_colour_without_yuv(kind: str, output: str) -> None:
    if not {kind, output} & {*YUV_FORMATS}:
        raise UsageError(
            f"--colour-matrix and --colour-range are for YUV, and the frame is {kind}",
            expected=f"--frame-format {' or '.join(YUV_FORMATS)}",
            hint="leave --colour-matrix and --colour-range out",
        )


def _refuse_canny(input_prep: InputPrep | None, layout: FrameLayout | None) -> None:
    if layout is not None and input_prep == "canny":
        raise UsageError(
            "this model is shown a frame's edges, and no graph finds them as OpenCV does",
            expected="--frame with --input-prep raw or sketch",
            got="--frame with --input-prep canny",
            hint="leave --frame out: the host then resizes the frame and finds its edges",
        )


def _direction(options: ExportOptions, checkpoint: Checkpoint, known: Released) -> str | None:
    direction = options.direction or known.direction
    if direction is None and checkpoint.directions:
        raise UsageError(
            f"{options.ckpt} holds both directions; say which",
            expected="--direction a2b or --direction b2a",
            got=f"none, and the name is not one of {', '.join(RELEASED)}",
            hint=f'turbo-export --ckpt {options.ckpt} --direction a2b --prompt "driving in the night"',
        )
    checkpoint.vae(direction)
    return direction


def _prompt(options: ExportOptions, known: Released, direction: str | None) -> str:
    # A released file's caption belongs to its own direction; the other one's only its user knows.
    prompt = options.prompt if options.prompt is not None else (known.prompt if direction == known.direction else None)
    if prompt is None:
        also = f" --direction {direction}" if direction else ""
        raise UsageError(
            f"{options.ckpt} needs a prompt: the exact caption it was trained with",
            expected="--prompt TEXT (the text in fixed_prompt_a.txt or fixed_prompt_b.txt, not the file's name)",
            hint=f'turbo-export --ckpt {options.ckpt}{also} --prompt "driving in the night"',
        )
    return prompt


def _strength(options: ExportOptions, checkpoint: Checkpoint) -> float | None:
    if checkpoint.stochastic:
        return DEFAULT_STRENGTH if options.strength is None else options.strength
    if options.strength is not None:
        raise UsageError(
            f"--strength is for stochastic checkpoints, and {options.ckpt} is deterministic",
            hint="leave --strength out",
        )
    return None
