"""The bundle's cost table beside the measurement: what this device could do at most, and what others might."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..engines.bundle import Bundle
from ..engines.costs import COSTS, Costs, by_kind, by_stage, most_expensive, read_costs
from ..engines.device import gpu
from ..engines.errors import UsageError
from ..engines.select import GPU_PLANS, ONNXRUNTIME_CUDA
from .devices import Device, find_one, measure_cpu, of_gpu
from .predict import Prediction, auto_size, predict
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


def propose_size(bundle: Bundle, target: tuple[str, float]) -> Prediction:
    """The largest size of this generator that a device is estimated to reach a rate at: ``target`` names both.

    Raises UsageError for a device that is not in the table, a rate that no size reaches, and a bundle without costs.
    """
    name, fps = target
    device = find_one(name)
    if COSTS not in bundle.manifest.files:
        raise UsageError(f"no size can be proposed: {_NO_TABLE}")
    return auto_size(read_costs(bundle.verified(COSTS)), device, fps)


def _roofline(costs: Costs, bundle: Bundle, choice: Choice | None) -> Roofline:
    device = _device(choice)
    if device is None:
        found = gpu()
        return _of(costs, found.name if found else "unknown", None, None)
    dtype = {"fp16": "float16"}.get(bundle.manifest.model.precision, "float32")
    return _of(costs, device.name, device.peak(dtype), device.bandwidth * 1e9)


def _of(costs: Costs, device: str, operations_per_s: float | None, bytes_per_s: float | None) -> Roofline:
    return Roofline(by_stage(costs), device, operations_per_s, bytes_per_s, by_kind(costs), most_expensive(costs))


def _device(choice: Choice | None) -> Device | None:
    """Whose peaks count: the GPU's by its name in the table, or this processor's, measured; None for another GPU."""
    if choice is None or choice.backend not in (*GPU_PLANS, ONNXRUNTIME_CUDA):
        return measure_cpu()
    found = gpu()
    return of_gpu(found.name) if found is not None else None
