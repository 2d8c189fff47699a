"""The range ledger: what would not fit FP16, found by arithmetic that cannot hide it.

ONNX Runtime's CPU kernels compute FP16 convolutions in FP32, so an overflow that turns a GPU's picture black is
invisible there. The ledger runs the final graph as an FP32 shadow and records the largest magnitude of every tensor
and weight that the graph stores in FP16.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ..engines.errors import RangeError
from ..engines.manifest import RangeEntry, RangeLedger
from .probe import probing
from .samples import Sample, batches
from .stages import stage_of

if TYPE_CHECKING:
    import onnx_ir as ir

FP16_LIMIT = 65504.0  # the largest finite float16 (IEEE 754 binary16)
WARN_ABOVE = FP16_LIMIT / 2
_HOTTEST = 10


def range_ledger(onnx: Path, taken: tuple[Sample, ...]) -> RangeLedger:
    """Record the FP16 tensors' largest magnitudes over ``taken``. Raises RangeError, which names those above 65,504."""
    import onnx_ir as ir

    from .passes.shadow import Shadow

    weights = _weight_entries(ir.load(onnx))
    shadow = Shadow()
    model = shadow(ir.load(onnx)).model
    largest: dict[str, float] = {}
    with probing(model, onnx) as engine:
        for feed in batches(taken, engine.inputs):
            results = engine.run(feed)
            for name, probes in shadow.probes.items():
                highest, lowest, total = (float(results[probe]) for probe in probes)
                reached = math.inf if math.isnan(total) else max(abs(highest), abs(lowest))
                largest[name] = max(largest.get(name, 0.0), reached)
    tensors = [RangeEntry(name, stage_of(name), value) for name, value in largest.items()]
    entries = sorted([*tensors, *weights], key=lambda entry: (-entry.largest, entry.tensor))
    _refuse_overflow([entry for entry in entries if entry.largest > FP16_LIMIT])
    return RangeLedger(
        limit=FP16_LIMIT,
        frames=len(taken),
        tensors=len(tensors),
        weights=len(weights),
        hottest=tuple(entries[:_HOTTEST]),
        warnings=tuple(entry for entry in entries if entry.largest > WARN_ABOVE),
    )


def _refuse_overflow(over: list[RangeEntry]) -> None:
    if over:
        listing = "; ".join(f"{entry.tensor} reaches {entry.largest:,.0f}" for entry in over[:10])
        raise RangeError(
            f"{len(over)} tensors do not fit FP16: on a GPU this picture can turn black",
            expected=f"magnitudes up to {FP16_LIMIT:,.0f}",
            got=listing + (f"; and {len(over) - 10} more" if len(over) > 10 else ""),
            hint="--precision fp32",
        )


def _weight_entries(model: ir.Model) -> list[RangeEntry]:
    import onnx_ir as ir

    entries = []
    for name, value in model.graph.initializers.items():
        if value.dtype == ir.DataType.FLOAT16 and value.const_value is not None and value.const_value.size:
            largest = float(np.abs(value.const_value.numpy()).max())
            entries.append(RangeEntry(name, stage_of(name), math.inf if math.isnan(largest) else largest))
    return entries
