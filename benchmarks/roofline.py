"""The bundle's cost table beside the measurement: what this device could do at most, and what others might."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..engines.bundle import Bundle
from ..engines.costs import COSTS, Costs, by_stage, read_costs
from ..engines.device import gpu
from ..engines.select import GPU_PLANS, ONNXRUNTIME_CUDA
from .devices import Device, measure_cpu, of_gpu
from .predict import Prediction, predict
from .result import Roofline

if TYPE_CHECKING:
    from ..engines.select import Choice

ROOFLINE, PREDICT = "roofline", "predict"
_NO_TABLE = "this bundle has no costs.json: export it again with this version"


def look_up_costs(
    bundle: Bundle, choice: Choice | None, devices: tuple[Device, ...], missing: dict[str, str]
) -> tuple[Roofline | None, tuple[Prediction, ...]]:
    """The roofline of what ran the bundle, and a prediction for each of ``devices``; reasons go to ``missing``.

    Raises BundleError for a damaged table.
    """
    if COSTS not in bundle.manifest.files:
        missing[ROOFLINE] = _NO_TABLE
        if devices:
            missing[PREDICT] = _NO_TABLE
        return None, ()
    costs = read_costs(bundle.verified(COSTS))
    predictions = tuple(predict(costs, device) for device in devices)
    return _roofline(costs, bundle, choice), predictions


def _roofline(costs: Costs, bundle: Bundle, choice: Choice | None) -> Roofline:
    device = _device(choice)
    if device is None:
        found = gpu()
        return Roofline(by_stage(costs), found.name if found else "unknown", None, None)
    dtype = {"fp16": "float16"}.get(bundle.manifest.model.precision, "float32")
    return Roofline(by_stage(costs), device.name, device.peak(dtype), device.bandwidth * 1e9)


def _device(choice: Choice | None) -> Device | None:
    """Whose peaks count: the GPU's by its name in the table, or this processor's, measured; None for another GPU."""
    if choice is None or choice.backend not in (*GPU_PLANS, ONNXRUNTIME_CUDA):
        return measure_cpu()
    found = gpu()
    return of_gpu(found.name) if found is not None else None
