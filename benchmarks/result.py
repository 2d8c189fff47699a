"""What ``turbo-bench`` found, as data: the dataclasses are the schema of its JSON file."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path

from ..engines._schema import SchemaError, decode, encode
from ..engines.costs import Share
from ..engines.errors import InputError
from ..engines.files import replacing
from .environment import Environment
from .latency import Latency, Ratio
from .metrics_child.measure import Figures
from .predict import Prediction
from .quality import Quality
from .steadiness import Steadiness

SCHEMA_VERSION = 1

# What a row is for. ``published``: the published script's own way of running; ``fair``: PyTorch without its needless
# work. A result that holds one of them and not the other says so. ``own``: PyTorch's own pictures in the bundle's
# precision, without times. ``sweep``: the bundle exported again for another size or batch.
SUBJECT, PUBLISHED, FAIR, PEER, OWN, SWEEP = "bundle", "published", "fair", "peer", "own", "sweep"
UNREADABLE = "not readable here"


@dataclass(frozen=True)
class MeasuredBundle:
    """What was measured: the bundle's own facts. ``bytes``: its files by name, with ``bundle`` for all of them.

    ``bf16_psnr_db``: PyTorch's own BF16 against its FP32, as the export found it; it stands next to every PSNR.
    """

    name: str
    family: str
    direction: str | None
    precision: str
    width: int
    height: int
    batch: int
    onnx_sha256: str
    bytes: dict[str, int]
    bf16_psnr_db: float | None = None


@dataclass(frozen=True)
class Shape:
    """Pixels, and frames a run."""

    width: int
    height: int
    batch: int

    def __str__(self) -> str:
        return f"{self.width}x{self.height}" + (f" batch {self.batch}" if self.batch > 1 else "")


@dataclass(frozen=True)
class Options:
    """What was asked for. ``frames_sha256`` is of the decoded frames, in order."""

    suites: tuple[str, ...]
    against: tuple[str, ...]
    frames: int
    frames_sha256: str
    warmup: int
    rule: str


@dataclass(frozen=True)
class MemoryFigures:
    """Of a child process that did nothing but open the row and run it once: peak resident bytes on the host (VmHWM of
    ``/proc/self/status``), seconds to open it the first and a second time. The file cache was as it was; no page was
    dropped. ``device_bytes``: taken on the GPU, None on a CPU.
    """

    peak_rss_bytes: int
    cold_load_s: float
    warm_load_s: float
    device_bytes: int | None = None


@dataclass(frozen=True)
class ThroughputFigure:
    """``streams`` threads, each with an engine of its own, together made ``fps`` frames a second in ``seconds``."""

    streams: int
    batch: int
    fps: float
    seconds: float


@dataclass(frozen=True)
class EnergyFigures:
    """``watts``: the mean of ``readings`` of the whole board's or GPU's power while the row ran for ``seconds``."""

    watts: float
    joules_per_frame: float
    frames_per_joule: float
    seconds: float
    readings: int
    power_mode: str | None = None


@dataclass(frozen=True)
class RowResult:
    """``engine``: the network alone, by the clock that ``clock`` names. ``frame``: from an RGB frame in memory to an
    RGB image in memory, host work included; for a batch, all of it. ``ratio``: how many times as long this row's engine
    takes as the bundle's, measured in the same rounds, where the bundle's median was
    ``own_ms``; None for the bundle itself.

    ``verdict``: what of the pictures departs from what the row's precision explains (``quality_verdict``), held also to
    PyTorch's own pictures in that precision where the result has a row of them, under whose PSNR this row's is by
    ``lost_db``. ``metrics``: the measures with weights. ``shape``: a sweep's own; None for the bundle's.
    ``stages``: medians in milliseconds of decode, resize, engine, resize back and encode, for one picture file.
    ``not_run``: what was asked for and could not be had, and why.
    """

    name: str
    role: str
    backend: str
    precision: str
    clock: str
    engine: Latency | None = None
    frame: Latency | None = None
    stopped: str = ""
    ratio: Ratio | None = None
    frame_ratio: Ratio | None = None
    own_ms: float | None = None
    stages: dict[str, float] = field(default_factory=dict)
    quality: Quality | None = None
    verdict: tuple[str, ...] = ()
    lost_db: float | None = None
    metrics: dict[str, Figures] = field(default_factory=dict)
    shape: Shape | None = None
    memory: MemoryFigures | None = None
    throughput: tuple[ThroughputFigure, ...] = ()
    energy: EnergyFigures | None = None
    facts: dict[str, str] = field(default_factory=dict)
    not_run: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class StreamFigures:
    """The camera loop around the bundle's engine, fed by test pictures of ``rate`` a second for ``seconds``.

    Ages in milliseconds from when a frame was due at the camera: until it entered the engine, until a sink had it;
    None where no frame came that far.
    """

    rate: float
    seconds: float
    captured: int
    emitted: int
    dropped: dict[str, int]
    fps: float
    age_in_p50_ms: float | None
    age_in_p95_ms: float | None
    age_out_p50_ms: float | None
    age_out_p95_ms: float | None


@dataclass(frozen=True)
class Roofline:
    """The generator's cost table by stage, its last line the total, and the peaks of the device that ran it:
    operations a second and bytes a second; None for a device whose peaks nobody stated or measured.

    ``kinds``: the same table by kind of operator, its last line the total; ``heaviest``: its costliest entries.
    """

    stages: tuple[Share, ...]
    device: str
    operations_per_s: float | None
    bytes_per_s: float | None
    kinds: tuple[Share, ...] = ()
    heaviest: tuple[Share, ...] = ()


@dataclass(frozen=True)
class BenchResult:
    """``reference`` says what pictures were held to. ``not_run``: suite or row -> why it is not here. ``proposed``: the
    size that ``--size auto`` asked for.
    """

    command: str
    environment: Environment
    measured: MeasuredBundle
    options: Options
    rows: tuple[RowResult, ...]
    reference: str = ""
    steadiness: Steadiness | None = None
    stream: StreamFigures | None = None
    roofline: Roofline | None = None
    predictions: tuple[Prediction, ...] = ()
    not_run: dict[str, str] = field(default_factory=dict)
    proposed: Prediction | None = None
    schema_version: int = SCHEMA_VERSION

    def row(self, name: str) -> RowResult | None:
        return next((row for row in self.rows if row.name == name), None)

    @property
    def subject(self) -> RowResult:
        """The bundle's own row: the first."""
        return self.rows[0]

    def shape_of(self, row: RowResult) -> Shape:
        """The size and batch that ``row`` was measured at."""
        return row.shape or Shape(self.measured.width, self.measured.height, self.measured.batch)

    def fps_of(self, row: RowResult) -> float | None:
        """Frames a second through the row's engine at its median, the batch counted; None without a latency."""
        return None if row.engine is None else row.engine.fps * self.shape_of(row).batch

    def to_json(self) -> str:
        return json.dumps(encode(self), indent=1, allow_nan=False) + "\n"

    def save(self, path: Path) -> None:
        """Write it whole or not at all."""
        with replacing(path) as temporary:
            temporary.write_text(self.to_json(), encoding="utf-8")


def load_result(path: Path) -> BenchResult:
    """What ``save`` wrote. Raises InputError for a file that is not such a result, or of another schema version."""
    hint = "turbo-bench BUNDLE --json results.json writes one"
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, ValueError) as error:
        raise InputError(f"cannot read {path} as a result of turbo-bench: {error}", hint=hint) from error
    version = data.get("schema_version") if isinstance(data, dict) else None
    if version != SCHEMA_VERSION:
        raise InputError(
            f"{path} is no result that this version can read",
            expected=f"schema_version {SCHEMA_VERSION}", got=f"schema_version {version}", hint=hint,
        )  # fmt: skip
    try:
        return decode(BenchResult, data)
    except SchemaError as error:
        raise InputError(f"{path} is damaged: {error}", hint=hint) from error
