"""The process that builds a plan: ``build.py`` starts it, and so does every ``reproduce.sh``.

::

    python -m edgeturbo.engines._build_worker --backend tensorrt-rtx --onnx generator.onnx --plan engine.plan \\
        --target sm_89 --target sm_120 [--workspace-bytes N] [--optimization-level N] ...

Standard output carries one JSON object a line: ``progress`` while it works, then ``built`` or ``failed``. Standard
error carries the builder's log, and whatever native code writes to either. It ends with the exit code of its error.
The plan is written in place: who needs the earlier one names another file. Nothing is fetched from any network.
"""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Sequence
from typing import Any

from ._build_job import Job, Progress, parse, send
from .errors import EdgeTurboError, UsageError


def main(arguments: Sequence[str]) -> int:
    """Build what the flags say; returns the exit code."""
    logging.basicConfig(level=logging.INFO, format="%(relativeCreated)8d ms %(levelname)-8s %(message)s")
    try:
        send("built", **_build(parse(arguments)))
    except EdgeTurboError as error:
        texts = {key: getattr(error, key) for key in ("what", "expected", "got", "hint")}
        send("failed", error=type(error).__name__, **texts)
        return error.exit_code
    return 0


def _build(job: Job) -> dict[str, Any]:
    """Build, write and check; returns what the ``built`` message says."""
    progress = Progress()
    if job.backend in ("tensorrt", "tensorrt-rtx"):
        from . import _build_trt

        return _build_trt.build(job, progress)
    if job.backend == "openvino":
        from . import _build_openvino

        return _build_openvino.build(job, progress)
    raise UsageError(f"no builder for the backend '{job.backend}'", expected="tensorrt, tensorrt-rtx or openvino")


def _keep_messages_apart() -> None:
    """Keep the messages' channel to ourselves: native code that writes to standard output reaches the log instead."""
    channel = os.dup(1)
    os.dup2(2, 1)
    sys.stdout = os.fdopen(channel, "w", encoding="utf-8")


if __name__ == "__main__":
    _keep_messages_apart()
    sys.exit(main(sys.argv[1:]))
