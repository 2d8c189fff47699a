"""Encoder, UNet and decoder as three engines, as peers deploy this family: TensorRT on a GPU, ONNX Runtime on a CPU."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from ...engines.manifest import FRAME
from ..three_engines import ISLANDS, NAMES, DeviceChain, EngineChain
from .bench import Bench
from .common import common_row
from .engine_stages import refuse_unusable
from .subject import HOST_CLOCK, RESIDENT_CLOCK, Subject

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from .context import Context

THREE = "three separate engines"


def three_engines(context: Context) -> None:
    """Three plans with device tensors between them, or on a CPU three ONNX Runtime sessions."""
    bench = Bench.of(context)
    if context.options.device == "cuda":
        refuse_unusable("tensorrt")
        plans = [_plan(context, name) for name in NAMES]
        row = partial(_device_subject, plans, bench.frame)
    else:
        row = partial(_host_subject, context.options.three, bench.frame)
    bench.rows(common_row(context, bench), (row,))


@contextmanager
def _device_subject(plans: list[Path], frame: NDArray[np.uint8]) -> Iterator[Subject]:
    from ...engines.tensorrt import TensorRtEngine

    encoder, unet, decoder = (TensorRtEngine(plan) for plan in plans)
    with DeviceChain(encoder, unet, decoder) as chain:
        chain.run({FRAME: frame[None]})  # leaves the frame on the device
        facts = {
            f"{name}_{key}": str(getattr(engine.facts, key))
            for name, engine in zip(NAMES, (encoder, unet, decoder), strict=True)
            for key in ("cuda_graph", "plan", "activations")
        }
        yield Subject(f"{THREE}, tensorrt fp16", chain.backend, "fp16", chain, chain.compute, RESIDENT_CLOCK, facts)


@contextmanager
def _host_subject(folder: Path, frame: NDArray[np.uint8]) -> Iterator[Subject]:
    from ...engines.onnxruntime import OnnxRuntimeEngine

    encoder, unet, decoder = (OnnxRuntimeEngine(folder / f"{name}.onnx") for name in NAMES)
    with EngineChain(encoder, unet, decoder) as chain:
        feeds = {FRAME: frame[None]}
        once = partial(chain.run, feeds)
        yield Subject(f"{THREE}, ONNX Runtime CPU, fp16 graphs", chain.backend, "fp16", chain, once, HOST_CLOCK)


def _plan(context: Context, name: str) -> Path:
    """The plan of one of the three, built unless it was before by this TensorRT on this GPU from the same file."""
    from ...engines._schema import decode, encode
    from ...engines.build import BuildRequest, build_plan, resolve_targets
    from ...engines.files import replacing, sha256_of
    from ...engines.manifest import EngineEntry
    from ...engines.reuse import here, reusable

    onnx = context.options.three / f"{name}.onnx"
    folder = context.options.three / name
    plan, noted = folder / "engine.plan", folder / "entry.json"
    digest = sha256_of(onnx)
    if plan.is_file() and noted.is_file():
        entry = decode(EngineEntry, json.loads(noted.read_text(encoding="utf-8")))
        fits, reason = reusable(entry, digest, here())
        context.note(f"{name}: {'not built again' if fits else 'built again'}, {reason}")
        if fits:
            return plan
    started = time.perf_counter()
    islands = tuple(json.loads((context.options.three / ISLANDS).read_text(encoding="utf-8"))[name])
    onnx, more = _parseable(onnx, folder)
    request = BuildRequest(
        "tensorrt", onnx, plan, resolve_targets("tensorrt", ()), digest, fp32_islands=(*islands, *more)
    )
    entry = build_plan(request)
    context.figure(f"{name}_build_s", round(time.perf_counter() - started, 1))
    context.figure(f"{name}_plan_bytes", plan.stat().st_size)
    with replacing(noted) as temporary:
        temporary.write_text(json.dumps(encode(entry)), encoding="utf-8")
    return plan


def _parseable(onnx: Path, folder: Path) -> tuple[Path, tuple[str, ...]]:
    """The file itself, or for TensorRT 8 a lowered copy in ``folder``, with the islands that lowering adds."""
    from ...engines.vendor import TENSORRT
    from ...export.lowering import lower_for_tensorrt_8, needs_lowering

    if int(TENSORRT.version().split(".")[0]) > 8 or not needs_lowering(onnx):
        return onnx, ()
    lowered = folder / "lowered.onnx"
    lowered.parent.mkdir(parents=True, exist_ok=True)
    return lowered, lower_for_tensorrt_8(onnx, lowered)
