"""How OpenVINO's plan is built: the network as OpenVINO transformed it, weights included, for one precision.

What a plan saves: the transformation of the graph at every start, and the memory of one of two copies of the weights,
which lie in the mapped file instead. What it costs: its weights are stored as f32, twice the FP16 generator's bytes.
OpenVINO's own format (IR, ``save_model``) saves neither: it is transformed like the ONNX file at every start.

A plan is bound to the version of OpenVINO and to the CPU's instructions (2026.4 checks both, 2026.2 and earlier do not)
and to its precision, which nothing but the engine here checks.
"""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING, Any

import numpy as np

from . import device
from ._build_job import peak_rss_bytes
from .errors import BuildError, UsageError
from .files import writing_to
from .openvino import OpenVinoEngine, OpenVinoOptions, version
from .parity import psnr

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from ._build_job import Job, Progress
    from .base import Tensors, TensorSpec

_log = logging.getLogger(__name__)

# A plan that was read back wrongly is at 12 dB or less; another order of additions is above 60.
_SAME_PICTURE_DB = 40.0


def build(job: Job, progress: Progress) -> dict[str, Any]:
    """Compile ``job.onnx`` for this CPU in ``job.precision``, write the plan, import it again and run both once.

    Returns what the ``built`` message says. Raises UsageError for hints or a precision that OpenVINO has not,
    BuildError when the plan does not compute what the compiled network does, and what ``OpenVinoEngine.open`` raises.
    """
    if job.hints:
        raise UsageError("an OpenVINO plan takes no hints", got=", ".join(job.hints))
    options, here = OpenVinoOptions(precision=job.precision), version()
    progress.phase(f"compiling {job.onnx.name} in {options.precision}")
    engine = OpenVinoEngine(job.onnx, options)
    start = time.monotonic()
    with engine:
        compile_seconds = time.monotonic() - start
        if not progress.phase("writing the plan"):
            raise BuildError("the process that asked for the plan is gone")
        with writing_to(job.plan), job.plan.open("wb") as stream:
            engine.write_plan(stream)
        needs = engine.requirements
        progress.phase("running the compiled network")
        expected = engine.run(_random(engine.inputs))
    # Closed: each of the two holds the weights.
    progress.phase("checking the plan")
    load_seconds = _check(job.plan, options, expected)
    _log.info("compiled in %.1f s; the plan loads in %.1f s", compile_seconds, load_seconds)
    return {
        "version": here,
        "options": {"cpu": device.cpu()},
        "checked": [
            f"the plan is {job.plan.stat().st_size:,} bytes",
            f"it loads in {load_seconds:.1f} s here, where compiling {job.onnx.name} took {compile_seconds:.1f} s",
            "imported again and run once: it computes what the network that it was made of does",
            *([f"OpenVINO says that it needs {needs}"] if needs else []),
        ],
        "unchecked": ["numerical parity: the builder does not know the goldens"],
        "peak_rss_bytes": peak_rss_bytes(),
    }


def _check(plan: Path, options: OpenVinoOptions, expected: Tensors) -> float:
    """The seconds that the plan takes to load. Raises BuildError unless it computes what is ``expected``."""
    engine = OpenVinoEngine(plan, options)
    start = time.monotonic()
    with engine:
        seconds = time.monotonic() - start
        results = engine.run(_random(engine.inputs))
    for name, result in results.items():
        likeness = psnr(expected[name], result)
        if not likeness >= _SAME_PICTURE_DB:
            raise BuildError(
                "the plan does not compute what the network that it was made of does",
                expected=f"'{name}' alike: PSNR of at least {_SAME_PICTURE_DB:g} dB",
                got=f"{likeness:.1f} dB",
                hint="turbo-run BUNDLE INPUT --engine openvino compiles the ONNX file itself",
            )
    return seconds


def _random(specs: tuple[TensorSpec, ...]) -> Tensors:
    """The same arrays for the same tensors, every time."""
    random = np.random.default_rng(0)
    return {spec.name: _random_array(random, spec) for spec in specs}


def _random_array(random: np.random.Generator, spec: TensorSpec) -> NDArray[np.generic]:
    if spec.dtype == "uint8":
        return random.integers(0, 256, spec.shape, dtype=np.uint8)
    return random.standard_normal(spec.shape).astype(spec.dtype)
