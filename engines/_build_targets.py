"""Which GPU architectures a plan can be built for, by backend."""

from __future__ import annotations

from . import device
from .cuda import driver_problem
from .errors import MissingComponentError, UsageError

# tensorrt_rtx.ComputeCapability of 1.5 to 1.7.
RTX_TARGETS = ("sm_75", "sm_80", "sm_86", "sm_89", "sm_120", "sm_121")
_TENSORRT_ONLY = {"sm_87": "Jetson Orin", "sm_90": "Hopper", "sm_110": "Jetson Thor"}


def resolve_targets(backend: str, targets: tuple[str, ...]) -> tuple[str, ...]:
    """``targets`` as ``build_plan`` takes them; for TensorRT none is this device. Cheap.

    Raises UsageError for targets that ``backend`` cannot build for, MissingComponentError for TensorRT without a GPU.
    """
    if backend == "tensorrt":
        return _this_device(targets)
    if backend == "tensorrt-rtx":
        check_targets(targets)
    return targets


def check_targets(targets: tuple[str, ...]) -> None:
    """Raise UsageError unless TensorRT for RTX builds for each of ``targets``, named once. Cheap."""
    valid = ", ".join(RTX_TARGETS)
    for target in targets:
        if target in _TENSORRT_ONLY:
            raise UsageError(
                f"TensorRT for RTX does not support {target} ({_TENSORRT_ONLY[target]}); this device needs TensorRT",
                expected=valid,
                got=target,
                hint="on the device: turbo-build BUNDLE --engine tensorrt",
            )
        if target not in RTX_TARGETS:
            raise UsageError(f"no target '{target}'", expected=valid, got=target)
    twice = sorted({target for target in targets if targets.count(target) > 1})
    if twice:
        raise UsageError(f"target {', '.join(twice)} is named more than once")
    if not targets:
        raise UsageError("a build needs a target", expected=f"one or more of {valid}", hint="add --target sm_89")


def _this_device(targets: tuple[str, ...]) -> tuple[str, ...]:
    here = device.gpu()
    if here is None:
        problem = driver_problem() or "the GPU does not say what it is"
        raise MissingComponentError(
            f"TensorRT builds a plan on the device that runs it, and cannot here: {problem}",
            hint="copy the bundle to the device and build there; here, --engine tensorrt-rtx needs no GPU",
        )
    if targets not in ((), (here.sm,)):
        raise UsageError(
            f"TensorRT builds a plan on the device that runs it, and here is {here.sm} ({here.name})",
            expected=here.sm,
            got=", ".join(targets),
            hint="copy the bundle to that device and run turbo-build there: it needs no checkpoint and no PyTorch",
        )
    return (here.sm,)
