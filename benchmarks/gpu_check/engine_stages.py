"""The rows of engines that run the bundle: ONNX Runtime, OpenVINO, TensorRT, TensorRT for RTX."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from importlib.util import find_spec
from typing import TYPE_CHECKING, cast

from ...engines.bundle import Bundle
from ...engines.errors import MissingComponentError
from ...engines.null import NullEngine
from ...engines.select import engine_of_plan
from .bench import Bench
from .common import common_row, onnxruntime_row
from .subject import engine_subject, plan_subject

if TYPE_CHECKING:
    from pathlib import Path

    from ...engines._plan_engine import PlanEngine
    from .bench import Opener
    from .context import Context

# TensorRT's own default. Level 5, the preset of servers, may not fit into a stage's 8 minutes.
_LEVEL = 3

OURS = "edgeturbo single engine"


def onnxruntime_cuda(context: Context) -> None:
    """The bundle's ONNX file through ONNX Runtime's CUDA provider."""
    from ...engines.onnxruntime import cuda_problem

    problem = cuda_problem()
    if problem is not None:
        raise MissingComponentError(f"ONNX Runtime cannot use CUDA here: {problem}")
    bench = Bench.of(context)
    bench.rows(common_row(context, bench), (onnxruntime_row(context, bench, "cuda"),))


def cpu_engines(context: Context) -> None:
    """ONNX Runtime (the common row), OpenVINO where it is installed, and the null engine: the host's own work."""
    bench = Bench.of(context)
    bundle = Bundle.open(context.options.bundle)
    others: list[Opener] = []
    if find_spec("openvino") is not None:
        from ...engines.openvino import OpenVinoEngine

        engine = OpenVinoEngine(bundle.onnx())
        others.append(partial(engine_subject, "OpenVINO CPU", "its default", engine, bench.frame))
    else:
        context.note('OpenVINO is not installed (pip install "edgeturbo[openvino]"): no row of it')
    null = NullEngine(bundle.manifest.inputs, bundle.manifest.outputs)
    others.append(partial(engine_subject, "null engine: the host's own work", "none", null, bench.frame))
    bench.rows(common_row(context, bench), tuple(others))


def tensorrt(context: Context) -> None:
    """Our single engine, built here by the TensorRT that is installed."""
    _plan_rows(context, "tensorrt")


def tensorrt_rtx(context: Context) -> None:
    """Our single engine by TensorRT for RTX, where the GPU is one that it serves."""
    _plan_rows(context, "tensorrt-rtx")


def _plan_rows(context: Context, backend: str) -> None:
    bench = Bench.of(context)
    row = plan_row(context, bench, backend)
    bench.rows(common_row(context, bench), (row,))


def plan_row(context: Context, bench: Bench, backend: str) -> Opener:
    """The single engine, from a plan that ``turbo-build`` makes here and enters in the bundle, or has before.

    Raises MissingComponentError when the backend cannot run here, and what the build raises.
    """
    refuse_unusable(backend)
    plan = add_plan(context, context.options.bundle, backend)
    engine = cast("PlanEngine", engine_of_plan(backend, plan))
    return partial(plan_subject, f"{OURS}, {backend} fp16", engine, bench.frame)


def add_plan(context: Context, bundle: Path, backend: str) -> Path:
    """The bundle's plan for this machine, checked against its goldens where it was built; built unless it is there."""
    from ...export import plans

    options = plans.BuildOptions(backend=backend)
    if backend == "tensorrt":
        cache = context.options.work / "tensorrt.timing"
        options = replace(options, optimization_level=_LEVEL, timing_cache=cache)
    report = plans.add_plan(Bundle.open(bundle), options, lambda _: None)
    plan = report.bundle.verified(report.entry.plan)
    if report.built:
        context.figure(f"{bundle.name}_{backend}_build_s", round(report.seconds, 1))
        context.figure(f"{bundle.name}_{backend}_plan_bytes", plan.stat().st_size)
    else:
        context.note(f"{bundle.name}: the {backend} plan was not built again: {report.reason}")
    return plan


def refuse_unusable(backend: str) -> None:
    """Raise MissingComponentError with the reason unless ``tensorrt`` or ``tensorrt-rtx`` can run plans here."""
    from ...engines import tensorrt as vendor_trt
    from ...engines import tensorrt_rtx as vendor_rtx

    reason = (vendor_trt if backend == "tensorrt" else vendor_rtx).unusable_reason()
    if reason is not None:
        raise MissingComponentError(f"{backend} cannot run here: {reason}")
