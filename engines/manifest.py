"""``manifest.json``: everything a bundle says of itself. ``docs/bundle.md`` is the specification in prose."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Literal

from ._schema import SchemaError, decode, encode
from .base import TensorSpec
from .errors import BundleError

SCHEMA_VERSION = 2

# The generator's tensors, by the names that every engine, and every user of a bare plan, knows them by.
FRAME, IMAGE, NOISE, POSTERIOR_NOISE = "frame", "image", "noise", "posterior_noise"
LATENT_CHANNELS = 4

InputPrep = Literal["raw", "canny", "sketch"]
Precision = Literal["fp32", "fp16", "int8", "fp8", "mixed:int8", "mixed:fp8", "int8-weights"]
Posterior = Literal["mean", "sample"]
FrameFormat = Literal["rgb", "bgr", "rgba", "nv12", "yuyv"]
ColourMatrix = Literal["bt601", "bt709"]
ColourRange = Literal["limited", "full"]


@dataclass(frozen=True)
class Model:
    """What the generator computes. ``strength`` is None for deterministic families; sizes are in pixels."""

    family: str
    direction: str | None
    prompt: str
    strength: float | None
    posterior: str
    precision: str
    opset: int
    width: int
    height: int
    batch: int
    passes: tuple[str, ...] = ()


@dataclass(frozen=True)
class FrameLayout:
    """The camera's own frame, of a bundle whose graph converts and resizes it itself; sizes are in pixels.

    ``format`` is the frame's and ``output_format`` the image's. ``matrix`` and ``range`` say how YUV is meant.
    """

    width: int
    height: int
    format: str
    output_format: str
    matrix: str
    range: str


@dataclass(frozen=True)
class FrameRules:
    """What the host does before and after the engine.

    ``input_prep``: ``raw`` (the frame), ``canny`` (its edges) or ``sketch`` (its dark lines).
    ``resize``: ``squash`` (to the model's size whatever the aspect, and the picture back to the frame's own size)
    or ``floor8`` (paired models: the model's size, and the picture stays so).
    """

    input_prep: str
    resize: str


@dataclass(frozen=True)
class FileEntry:
    sha256: str
    bytes: int


@dataclass(frozen=True)
class Parity:
    """The gate's figures: the bundle through ONNX Runtime against the unmerged PyTorch model in FP32.

    ``max_abs``: largest difference before quantisation to uint8, range [-1, 1]. PSNR in dB and SSIM are those of the
    worst frame, on the pictures; a PSNR of None says the two are equal. ``bf16_*`` is PyTorch's own BF16 line.
    """

    reference: str
    frames: int
    max_abs: float
    psnr_db: float | None
    ssim: float
    bf16_psnr_db: float | None
    bf16_ssim: float | None


@dataclass(frozen=True)
class RangeEntry:
    """The largest magnitude seen in a tensor or weight that the graph stores in FP16."""

    tensor: str
    stage: str
    largest: float


@dataclass(frozen=True)
class Repair:
    """Something that FP16 did not hold, and what was done about it.

    ``tensor`` is a tensor or weight of the unrepaired graph. ``problem`` says in which way it did not fit, and in which
    units ``reached`` and ``limit`` are: ``overflow`` (its largest magnitude), ``subnormal`` (its root mean square,
    below the limit), ``accuracy`` (the relative change of the Softmax that takes it).

    ``kind`` is ``rescale``, where it was multiplied by 2^``exponent`` and the weights and epsilons around it by what
    takes that back, or ``island``, where ``nodes`` compute in FP32 instead. ``nodes`` of a rescale are those whose
    weights or epsilon changed. At most 64 nodes are named; ``node_count`` is how many there are. ``bytes``: what the
    island moves more for each run, activations and weights. ``time_share``: those bytes as a part of all that the graph
    moves, which is how much longer a run takes where memory is the limit and nothing is fused.
    """

    kind: str
    problem: str
    tensor: str
    stage: str
    reached: float
    limit: float
    exponent: int
    nodes: tuple[str, ...]
    node_count: int
    bytes: int
    time_share: float


@dataclass(frozen=True)
class RangeLedger:
    """The final graph run as an FP32 shadow. ``limit`` is FP16's largest number, 65,504.

    ``margin``: the room that tensors must leave, 2 for half of the limit; 1 in bundles that were made without one.
    ``source`` says what the frames were, ``by_stage`` holds up to five of the hottest of each stage. ``warnings`` are
    tensors that stay outside what was asked for. ``repairs`` say what was changed before these figures were taken.
    """

    limit: float
    frames: int
    tensors: int
    weights: int
    hottest: tuple[RangeEntry, ...]
    warnings: tuple[RangeEntry, ...]
    margin: float = 1.0
    source: str = ""
    by_stage: tuple[RangeEntry, ...] = ()
    repairs: tuple[Repair, ...] = ()


@dataclass(frozen=True)
class Block:
    """A block of the generator by itself: PSNR in dB of the picture when it alone is quantised, and what that saves.

    A PSNR of None says that nothing departs.
    """

    name: str
    psnr_db: float | None
    saved_ms: float


@dataclass(frozen=True)
class Mixture:
    """A set of quantised blocks on the Pareto front: predicted milliseconds and PSNR, and what was measured of it."""

    blocks: tuple[str, ...]
    ms: float
    predicted_db: float | None
    measured_db: float | None


@dataclass(frozen=True)
class Quantisation:
    """What computes on eight bits: ``products`` of ``of`` convolutions and matrix products, with ``conv_share`` of the
    convolutions' arithmetic (0 to 1). ``frames`` and ``source`` are those of the calibration; none for weights alone.

    ``front`` and ``sensitivity`` are of a search for mixed precision, on ``device``'s roofline; ``min_psnr_db`` its
    bound, against the FP16 picture.
    """

    products: int
    of: int
    conv_share: float
    frames: int
    source: str
    method: str
    blocks: tuple[str, ...]
    device: str = ""
    min_psnr_db: float | None = None
    front: tuple[Mixture, ...] = ()
    sensitivity: tuple[Block, ...] = ()


@dataclass(frozen=True)
class BuiltOn:
    """The device a plan was built on and is bound to. ``sm`` as in ``sm_87``; ``driver`` as the system names it."""

    gpu: str
    sm: str
    driver: str


@dataclass(frozen=True)
class GoldenParity:
    """A plan's pictures against the bundle's goldens, on the device it was built on; the worst frame's figures.

    A PSNR of None says that all are equal. ``max_levels``: the largest difference in grey levels.
    """

    frames: int
    psnr_db: float | None
    ssim: float
    max_levels: int


@dataclass(frozen=True)
class EngineEntry:
    """A plan in the bundle: what built it, for what, and what could and could not be checked where it was built.

    ``built_on`` is None for plans built without a device, ``parity`` for plans that could not be run where built.
    """

    backend: str
    version: str
    targets: tuple[str, ...]
    plan: str
    onnx_sha256: str
    options: dict[str, str]
    checked: tuple[str, ...]
    unchecked: tuple[str, ...]
    built_on: BuiltOn | None = None
    parity: GoldenParity | None = None


@dataclass(frozen=True)
class Provenance:
    checkpoint: str
    checkpoint_sha256: str
    base: str
    base_revision: str
    command: str
    tools: dict[str, str]
    omissions: tuple[str, ...] = ()


@dataclass(frozen=True)
class Manifest:
    edgeturbo: str
    model: Model
    frame_rules: FrameRules
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    provenance: Provenance
    files: dict[str, FileEntry] = field(default_factory=dict)
    engines: tuple[EngineEntry, ...] = ()
    fp32_islands: tuple[str, ...] = ()
    frame_layout: FrameLayout | None = None
    parity: Parity | None = None
    range_ledger: RangeLedger | None = None
    quantisation: Quantisation | None = None
    schema_version: int = SCHEMA_VERSION

    def to_json(self) -> str:
        return json.dumps(encode(self), indent=2, allow_nan=False) + "\n"

    @classmethod
    def from_json(cls, text: str, where: str = "manifest.json") -> Manifest:
        """Raises BundleError for anything but a manifest of this schema version."""
        try:
            data = json.loads(text)
        except ValueError as error:
            raise BundleError(f"{where} is not JSON: {error}", hint="export the bundle again") from error
        version = data.get("schema_version") if isinstance(data, dict) else None
        if version != SCHEMA_VERSION:
            raise BundleError(
                f"{where} has a schema this version cannot read",
                expected=f"schema_version {SCHEMA_VERSION}",
                got=f"schema_version {version}",
                hint="pip install --upgrade edgeturbo, or export the bundle again with this version",
            )
        try:
            return decode(cls, data)
        except SchemaError as error:
            raise BundleError(f"{where} does not follow its schema: {error}", hint="export the bundle again") from error
