"""The range ledger: what would not fit FP16, found by arithmetic that cannot hide it.

ONNX Runtime's CPU kernels compute FP16 convolutions in FP32, so an overflow that turns a GPU's picture black is
invisible there. The ledger runs the final graph as an FP32 shadow and records the largest magnitude and the root mean
square of every tensor and weight that the graph stores in FP16.

Three things can go wrong with a tensor:

- overflow: it is larger than 65,504, or leaves less room to it than the margin asks for. Weights do not vary, and need
  no margin.
- subnormal: below 2^-14 (6.1e-5) FP16 has fixed steps of 2^-24 (6.0e-8), so storing loses up to 2^-25 whatever the
  value, where a normal number loses up to 2^-11 of itself. A tensor of root mean square r can so lose 2^-25 / r of
  itself; what is lost matters by the part that the tensor has in the first sum that it goes into. Above 2^-10, twice
  what rounding normal numbers can cost, it vanishes. The bound is for the tensor as a whole: small channels beside
  large ones are not seen.
- accuracy: logits so large that their rounding alone changes the probabilities: where Softmax departs by more than
  2^-4 of its root mean square when what it takes is stored in FP16.

Sources: IEEE 754-2019, binary16: 11 significant bits, exponents -14 to 15.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from ..engines.manifest import RangeEntry, RangeLedger, Repair
from .figures import figure
from .probe import probing
from .samples import Sample, batches
from .stages import STAGES, stage_of

if TYPE_CHECKING:
    import onnx_ir as ir

FP16_LIMIT = 65504.0  # the largest finite float16
SUBNORMAL_LOSS = 2.0**-25  # half a step of the subnormals
MOST_LOST = 2.0**-10
MOST_CHANGED = 2.0**-4
SMALLEST_RMS = SUBNORMAL_LOSS / MOST_LOST
DEFAULT_MARGIN = 2.0

_HOTTEST, _HOTTEST_OF_STAGE = 10, 5
_CHUNK = 1 << 22

Kind = Literal["overflow", "subnormal", "accuracy"]


@dataclass(frozen=True)
class Range:
    """Over all frames the ``largest`` magnitude, inf for what is no number; ``rms`` of the frame that has most."""

    largest: float
    rms: float


@dataclass(frozen=True)
class Measured:
    """What a graph's shadow reached. ``changed``: for what a Softmax takes, how much of its result FP16 changes."""

    frames: int
    tensors: dict[str, Range]
    weights: dict[str, Range]
    changed: dict[str, float]


@dataclass(frozen=True)
class Problem:
    """A tensor or weight that FP16 does not hold: ``reached`` against ``limit``, in the units of its ``kind``:
    magnitudes for overflow, root mean squares for subnormal, relative change of the Softmax for accuracy."""

    kind: Kind
    tensor: str
    reached: float
    limit: float

    def __str__(self) -> str:
        figures = f"{figure(self.reached)}, {'below' if self.kind == 'subnormal' else 'above'} {figure(self.limit)}"
        return f"{self.tensor}: {self.kind}, {figures}"


def measure(onnx: Path, taken: Iterable[Sample], originals: dict[str, NDArray[np.float32]] | None = None) -> Measured:
    """Run the saved FP16 graph as an FP32 shadow over ``taken``.

    ``originals``: weights, by name, as they were before FP16 lost them; they count instead of what was saved.
    """
    import onnx_ir as ir

    from .passes.shadow import Shadow

    weights = _weights(ir.load(onnx), originals or {})
    shadow = Shadow()
    model = shadow(_with(ir.load(onnx), originals or {})).model
    tensors: dict[str, Range] = {}
    changed: dict[str, float] = {}
    seen = _Counted(taken)
    if not shadow.probes:  # all of it computes in FP32
        return Measured(sum(1 for _ in taken), tensors, weights, changed)
    with probing(model, onnx) as engine:
        for feed in batches(seen, engine.inputs):
            results = engine.run(feed)
            for name, probes in shadow.probes.items():
                now = _range([float(results[probe]) for probe in probes], shadow.sizes[name])
                before = tensors.get(name, now)
                tensors[name] = Range(max(before.largest, now.largest), max(before.rms, now.rms))
            for name, (change, whole) in shadow.softmaxes.items():
                ratio = float(results[change]) / float(results[whole])  # a row of probabilities is never all zero
                if math.isfinite(ratio):
                    changed[name] = max(changed.get(name, 0.0), math.sqrt(ratio))
    return Measured(seen.count, tensors, weights, changed)


def lossy_weights(model: ir.Model) -> dict[str, NDArray[np.float32]]:
    """The FP32 weights that FP16 cannot hold, copied, by the names that their FP16 twins will have."""
    import onnx_ir as ir

    lost = {}
    for name, value in model.graph.initializers.items():
        if value.dtype == ir.DataType.FLOAT and value.const_value is not None and value.const_value.size:
            array = value.const_value.numpy()
            held = _range_of(array)
            if not held.largest <= FP16_LIMIT or 0 < held.rms < SMALLEST_RMS:
                lost[f"{name}.fp16"] = np.array(array, dtype=np.float32)
    return lost


def overflows(measured: Measured, margin: float) -> list[Problem]:
    """What is larger than FP16 holds, tensors with ``margin``; the worst first."""
    found = [
        Problem("overflow", name, held.largest, limit)
        for ranges, limit in ((measured.tensors, FP16_LIMIT / margin), (measured.weights, FP16_LIMIT))
        for name, held in ranges.items()
        if not held.largest <= limit
    ]
    return sorted(found, key=lambda problem: (-problem.reached, problem.tensor))


def inaccurate(measured: Measured) -> list[Problem]:
    """The logits whose rounding changes the Softmax."""
    return [
        Problem("accuracy", name, changed, MOST_CHANGED)
        for name, changed in measured.changed.items()
        if changed > MOST_CHANGED
    ]


def ledger_of(
    measured: Measured, margin: float, source: str, left: tuple[Problem, ...] = (), repairs: tuple[Repair, ...] = ()
) -> RangeLedger:
    """The manifest's form of ``measured``; ``left`` are problems that stay, as warnings."""
    ranges = {**measured.tensors, **measured.weights}
    entries = [RangeEntry(name, stage_of(name), held.largest) for name, held in ranges.items()]
    entries.sort(key=lambda entry: (-entry.largest, entry.tensor))
    stages = [[entry for entry in entries if entry.stage == stage][:_HOTTEST_OF_STAGE] for stage in STAGES]
    warned = {problem.tensor for problem in left}
    return RangeLedger(
        limit=FP16_LIMIT,
        frames=measured.frames,
        tensors=len(measured.tensors),
        weights=len(measured.weights),
        hottest=tuple(entries[:_HOTTEST]),
        warnings=tuple(entry for entry in entries if entry.tensor in warned),
        margin=margin,
        source=source,
        by_stage=tuple(entry for hottest in stages for entry in hottest),
        repairs=repairs,
    )


class _Counted:
    """Samples, and how many there were."""

    def __init__(self, taken: Iterable[Sample]) -> None:
        self._taken = taken
        self.count = 0

    def __iter__(self) -> Iterator[Sample]:
        for sample in self._taken:
            self.count += 1
            yield sample


def _range(probed: list[float], size: int) -> Range:
    highest, lowest, squares = probed
    if math.isnan(squares):
        return Range(math.inf, math.inf)
    return Range(max(abs(highest), abs(lowest)), math.sqrt(squares / size))


def _with(model: ir.Model, originals: dict[str, NDArray[np.float32]]) -> ir.Model:
    import onnx_ir as ir

    for name, array in originals.items():
        weight = model.graph.initializers[name]
        weight.const_value, weight.dtype = ir.tensor(array, name=name), ir.DataType.FLOAT
    return model


def _weights(model: ir.Model, originals: dict[str, NDArray[np.float32]]) -> dict[str, Range]:
    import onnx_ir as ir

    return {
        name: _range_of(originals[name] if name in originals else value.const_value.numpy())
        for name, value in model.graph.initializers.items()
        if value.dtype == ir.DataType.FLOAT16 and value.const_value is not None and value.const_value.size
    }


def _range_of(array: NDArray[np.floating]) -> Range:
    """Part by part: a full-size weight would be several times as large in the making."""
    largest, squares = 0.0, 0.0
    flat = array.reshape(-1)
    for start in range(0, flat.size, _CHUNK):
        part = flat[start : start + _CHUNK].astype(np.float32)
        high, low = float(part.max()), float(part.min())
        if math.isnan(high):
            return Range(math.inf, math.inf)
        largest = max(largest, abs(high), abs(low))
        squares += float(np.vdot(part, part)) if largest < 1e15 else math.inf
    return Range(largest, math.sqrt(squares / flat.size))
