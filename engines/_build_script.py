"""``reproduce.sh``: a plan's build again, and the same build as the vendor's own command line would be told."""

from __future__ import annotations

import os
import shlex
from dataclasses import replace
from pathlib import Path

from ._build_job import Job, flags

_MIB = 1 << 20
_PLAN = '"${1:-reproduced.plan}"'
_ONNX = '"${ONNX:?set ONNX to the path of the lowered generator}"'


def script(job: Job, worker: str, version: str, onnx_sha256: str, *, lowered: bool) -> str:
    """The text of ``reproduce.sh`` beside ``job.plan``; ``worker`` is the module that takes the job's flags.

    ``lowered``: the ONNX file is a copy that was rewritten for an old parser and may be gone: the script asks for it.
    """
    folder = job.plan.parent
    cache = None if job.timing_cache is None else _beside(job.timing_cache, folder)
    job = replace(job, onnx=_beside(job.onnx, folder), timing_cache=cache)
    if job.backend == "tensorrt" and _is_strongly_typed(version):
        job = replace(job, precision=Job.precision, fp32_islands=())  # the graph says both
    texts = {"--plan": _PLAN} | ({"--onnx": _ONNX} if lowered else {})
    lines = [f"{flag} {texts.get(flag) or shlex.quote(value)}" for flag, value in flags(job)]
    arguments = " \\\n  ".join(lines)
    note = "\n# That file was a copy, lowered for the parser of this version, as turbo-build does." if lowered else ""
    equivalent = "".join(f"# {line}\n" for line in vendor_line(job, version))
    return f"""#!/bin/sh
# Builds the plan of this folder again, beside it: as reproduced.plan, or as the first argument says.
# First built with {job.backend} {version} from an ONNX file of SHA-256 {onnx_sha256}.{note}
{equivalent}set -eu
cd -- "$(dirname -- "$0")"
exec "${{PYTHON:-python3}}" -m {worker} \\
  {arguments}
"""


def vendor_line(job: Job, version: str) -> list[str]:
    """The command of the vendor's own tool that builds the same, and what it cannot say. Empty for OpenVINO.

    ``trtexec``: options as in samples/common/sampleOptions.cpp of TensorRT 8.6.1 to 11.1; sizes are in MiB.
    ``tensorrt_rtx``: the tool of the TensorRT for RTX SDK. Its documentation shows ``--computeCapabilities=75,80`` and
    ``--skipInference``; the other options are taken to be those of trtexec, which it descends from, and were not run.
    """
    if job.backend not in ("tensorrt", "tensorrt-rtx"):
        return []
    tool = "tensorrt_rtx" if job.backend == "tensorrt-rtx" else "trtexec"
    words = [tool, f"--onnx={job.onnx}", "--saveEngine=reproduced.plan", *_precision(job, version), *_limits(job)]
    lines = [f"The same with {tool}:", "  " + shlex.join([*words, "--skipInference"])]
    if job.tactic_memory_bytes is not None:
        lines.append(f"  (which has no option for TACTIC_DRAM, {job.tactic_memory_bytes} bytes here)")
    return lines


def _precision(job: Job, version: str) -> list[str]:
    if job.backend == "tensorrt-rtx":
        numbers = ",".join(target.removeprefix("sm_") for target in job.targets)
        return [f"--computeCapabilities={numbers}", "--noTF32"]
    if _is_strongly_typed(version):
        return ["--stronglyTyped", "--noTF32"]
    if job.precision != "fp16":
        return ["--noTF32"]
    pinned = ",".join(f"{island}:fp32" for island in job.fp32_islands)
    islands = ["--precisionConstraints=obey", f"--layerPrecisions={pinned}", f"--layerOutputTypes={pinned}"]
    return ["--fp16", "--noTF32", *(islands if pinned else [])]


def _is_strongly_typed(version: str) -> bool:
    """Whether this TensorRT takes precision from the graph. For text alone: a build asks the library itself."""
    return int(version.split(".", maxsplit=1)[0]) >= 10


def _limits(job: Job) -> list[str]:
    words = []
    if job.workspace_bytes is not None:
        words.append(f"--memPoolSize=workspace:{job.workspace_bytes / _MIB:g}")
    if job.optimization_level is not None:
        words.append(f"--builderOptimizationLevel={job.optimization_level}")
    if job.timing_cache is not None:
        words.append(f"--timingCacheFile={job.timing_cache}")
    return words


def _beside(path: Path, folder: Path) -> Path:
    return Path(os.path.relpath(path, folder))
