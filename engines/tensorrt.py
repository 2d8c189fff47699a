"""TensorRT: runs a plan on the kind of NVIDIA GPU that built it, with the version that built it.

One code path serves TensorRT 8.6, 10 and 11; where their names differ, what is there is used.

NVIDIA does not publish the layout of a plan, so little is checked before the library sees the file: that there is
something in it, and that it is not another kind of file which is known to end up in a plan's place. A bundle's manifest
says with what and where a plan was built, and is compared before the plan is opened; the library checks again and its
refusal becomes a BundleError.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

from . import _plan_engine
from ._buffer_set import LoadedPlan
from ._plan_engine import NO_GRAPH_WANTED, PlanEngine, PlanFacts, PlanOptions
from .errors import BundleError, InputError, UsageError
from .vendor import TENSORRT

__all__ = ["PlanFacts", "PlanOptions", "TensorRtEngine", "check_plan", "deserialize", "plan_problem", "unusable_reason"]

_REBUILD = "turbo-build BUNDLE --engine tensorrt --force"
# What a file of another kind begins with: a plan of TensorRT for RTX, as seen in plans of its versions 1.5 to 1.7, and
# the text that Git leaves in place of a large file (https://github.com/git-lfs/git-lfs, docs/spec.md).
_FOREIGN = {
    b"vtrt": "a plan of TensorRT for RTX (--engine tensorrt-rtx runs it)",
    b"version https://git-lfs": "a Git LFS pointer (git lfs pull fetches the file)",
}


def unusable_reason() -> str | None:
    """Why no plan can run here, in one sentence, or None when this backend is usable."""
    return _plan_engine.unusable_reason(TENSORRT)


def plan_problem(path: Path | str) -> str | None:
    """Why ``path`` cannot be a plan of TensorRT's, in one sentence, or None; the library may still refuse it.

    Needs neither the package nor a driver. Raises InputError when the file cannot be read.
    """
    return _plan_engine.problem_with(check_plan, path)


def check_plan(path: Path) -> None:
    """Raise BundleError for a file that is empty or known to be something else, InputError for none."""
    try:
        with path.open("rb") as stream:
            head = stream.read(max(map(len, _FOREIGN)))
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}", hint=_REBUILD) from error
    foreign = [what for magic, what in _FOREIGN.items() if head.startswith(magic)]
    if foreign or not head:
        got = foreign[0] if foreign else "an empty file"
        raise BundleError(f"{path} is not a TensorRT plan", expected="a plan", got=got, hint=_REBUILD)


def deserialize(path: Path) -> tuple[Any, Any]:
    """The library's runtime and engine of a checked plan. Needs a GPU.

    Raises BundleError when the library refuses the plan, DeviceError when the machine is at fault.
    """
    trt = TENSORRT.load()
    # Plans of 8.6 and 10 may hold layers that the library keeps as plugins (InstanceNormalization is one).
    if hasattr(trt, "init_libnvinfer_plugins"):
        trt.init_libnvinfer_plugins(TENSORRT.logger(), "")
    return _plan_engine.deserialize(TENSORRT, path, _REBUILD)


class TensorRtEngine(PlanEngine):
    """Runs ``engine.plan`` with TensorRT; see ``PlanEngine``. Raises UsageError for a runtime cache: it has none."""

    backend = "tensorrt"
    vendor = TENSORRT

    def __init__(self, plan: Path | str, options: PlanOptions | None = None) -> None:
        super().__init__(plan, options)
        if self.options.runtime_cache is not None:
            raise UsageError("TensorRT has no runtime cache", hint="leave it out, or use --engine tensorrt-rtx")

    def _check(self) -> None:
        check_plan(self.plan)
        self.vendor.load()

    def _load(self) -> LoadedPlan:
        loaded = LoadedPlan(TENSORRT, self.plan, _REBUILD, *deserialize(self.plan), new_context=None)
        strategy = getattr(TENSORRT.load(), "ExecutionContextAllocationStrategy", None)
        if strategy is None:  # 8.6
            loaded.new_context = loaded.engine.create_execution_context_without_device_memory
        else:
            loaded.new_context = partial(loaded.engine.create_execution_context, strategy.USER_MANAGED)
        loaded.no_capture = None if self.options.cuda_graph else NO_GRAPH_WANTED
        return loaded
