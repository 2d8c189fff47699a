"""The bundle's cost table beside the measurement: what this device could do at most, and what others might."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from ..engines.bundle import ONNX, Bundle
from ..engines.costs import COSTS, Costs, by_kind, by_stage, most_expensive, read_costs
from ..engines.device import gpu
from ..engines.errors import UsageError
from ..engines.select import GPU_PLANS, ONNXRUNTIME_CUDA
from .devices import Device, find_one, measure_cpu, of_gpu
from .predict import Prediction, auto_size, predict
from .result import Roofline

if TYPE_CHECKING:
    import onnx_ir as ir

    from ..engines.select import Choice
    from ..export.quantised import Target

ROOFLINE, PREDICT = "roofline", "predict"


def costs_of(bundle: Bundle) -> Costs:
    """Its cost table. Raises UsageError for a bundle without one, BundleError for a damaged one."""
    if COSTS not in bundle.manifest.files:
        raise UsageError(
            f"this bundle has no {COSTS}, and estimates are made from it",
            expected="a bundle of this version of turbo-export", hint="export the bundle again",
        )  # fmt: skip
    return read_costs(bundle.verified(COSTS))


def look_up_costs(
    bundle: Bundle, choice: Choice | None, devices: tuple[Device, ...], missing: dict[str, str]
) -> tuple[Roofline | None, tuple[Prediction, ...]]:
    """The roofline of what ran the bundle, and a prediction for each of ``devices``; reasons go to ``missing``.

    Raises BundleError for a damaged table.
    """
    try:
        costs = costs_of(bundle)
    except UsageError as error:
        missing |= dict.fromkeys([ROOFLINE, PREDICT] if devices else [ROOFLINE], f"{error.what}: {error.hint}")
        return None, ()
    predictions = tuple(predict(costs, device) for device in devices)
    return _roofline(costs, choice), predictions


def propose_size(bundle: Bundle, target: tuple[str, float]) -> Prediction:
    """The largest size of this generator that a device is estimated to reach a rate at: ``target`` names both.

    Raises UsageError for a device that is not in the table, a rate that no size reaches, and a bundle without costs.
    """
    name, fps = target
    device = find_one(name)
    return auto_size(costs_of(bundle), device, fps)


def mixture_target(device: Device) -> Target:
    """What a mixture of precisions is to be fast on, by the roofline; an export in another process takes it, too."""
    from ..export.quantised import Target

    return Target(device.name, partial(_predicted_ms, device))


def _predicted_ms(device: Device, model: ir.Model) -> float:
    from ..export.costs import counted

    return predict(counted(model.graph, Path(ONNX)), device).ms


def _roofline(costs: Costs, choice: Choice | None) -> Roofline:
    device = _device(choice)
    if device is None:
        found = gpu()
        return _of(costs, found.name if found else "unknown", None, None)
    return _of(costs, device.name, peak_of(costs, device), device.bandwidth * 1e9)


def peak_of(costs: Costs, device: Device) -> float:
    """Operations a second, at most: those of the fastest type that any of the products has, FP32's without products."""
    return max((device.peak(item.dtype) for item in costs.work if item.flops.at()), default=device.peak("float32"))


def _of(costs: Costs, device: str, operations_per_s: float | None, bytes_per_s: float | None) -> Roofline:
    return Roofline(by_stage(costs), device, operations_per_s, bytes_per_s, by_kind(costs), most_expensive(costs))


def _device(choice: Choice | None) -> Device | None:
    """Whose peaks count: the GPU's by its name in the table, or this processor's, measured; None for another GPU."""
    if choice is None or choice.backend not in (*GPU_PLANS, ONNXRUNTIME_CUDA):
        return measure_cpu()
    found = gpu()
    return of_gpu(found.name) if found is not None else None
