"""The process that builds a plan: ``build.py`` starts it, and so does every ``reproduce.sh``.

::

    python -m edgeturbo.engines._build_worker --backend tensorrt-rtx --onnx generator.onnx --plan engine.plan \\
        --target sm_89 --target sm_120 [--workspace-bytes N] [--optimization-level N]

Standard output carries one JSON object a line: ``progress`` while it works, then ``built`` or ``failed``. Standard
error carries the builder's log, and whatever native code writes to either. It ends with the exit code of its error.
The plan is written in place: who needs the earlier one names another file. Nothing is fetched from any network.
"""

from __future__ import annotations

import json
import logging
import os
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .cuda import driver_problem
from .errors import BuildError, EdgeTurboError, UsageError
from .files import writing_to
from .tensorrt_rtx import (
    check_plan,
    deserialize,
    device_refusal,
    last_errors,
    load_tensorrt_rtx,
    read_header,
    vendor_logger,
)

_FLAGS = ("--backend", "--onnx", "--plan", "--target", "--workspace-bytes", "--optimization-level")
# A large network has thousands of steps; more than a few hundred messages show nobody anything.
_SMALLEST_ADVANCE = 0.005


@dataclass(frozen=True)
class Job:
    """What to build. Paths are relative to the working directory."""

    onnx: Path
    plan: Path
    targets: tuple[str, ...]
    workspace_bytes: int | None
    optimization_level: int | None


def main(arguments: Sequence[str]) -> int:
    """Build what the flags say; returns the exit code."""
    logging.basicConfig(level=logging.INFO, format="%(relativeCreated)8d ms %(levelname)-8s %(message)s")
    try:
        _send("built", **_build(_parse(arguments)))
    except EdgeTurboError as error:
        texts = {key: getattr(error, key) for key in ("what", "expected", "got", "hint")}
        _send("failed", error=type(error).__name__, **texts)
        return error.exit_code
    return 0


def _parse(arguments: Sequence[str]) -> Job:
    values: dict[str, list[str]] = {flag: [] for flag in _FLAGS}
    if len(arguments) % 2:
        raise UsageError(f"{arguments[-1]} stands alone", expected="--flag value pairs")
    for flag, value in zip(arguments[::2], arguments[1::2], strict=True):
        if flag not in values:
            raise UsageError(f"no flag {flag}", expected=", ".join(_FLAGS))
        values[flag].append(value)
    if values["--backend"] != ["tensorrt-rtx"] or not (values["--onnx"] and values["--plan"] and values["--target"]):
        raise UsageError("a build needs --backend tensorrt-rtx, --onnx, --plan and at least one --target")
    return Job(
        Path(values["--onnx"][-1]),
        Path(values["--plan"][-1]),
        tuple(values["--target"]),
        _number(values["--workspace-bytes"]),
        _number(values["--optimization-level"]),
    )


def _number(values: list[str]) -> int | None:
    return int(values[-1]) if values else None


def _send(event: str, **fields: Any) -> bool:
    """Write one message. False when nobody listens any more."""
    try:
        sys.stdout.write(json.dumps({"event": event, **fields}) + "\n")
        sys.stdout.flush()
    except OSError:
        return False
    return True


def _build(job: Job) -> dict[str, Any]:
    """Build, write and check; returns what the ``built`` message says."""
    progress = _Progress()
    trt = load_tensorrt_rtx()
    progress.phase(f"reading {job.onnx.name}")
    builder = trt.Builder(vendor_logger())
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = trt.OnnxParser(network, vendor_logger())
    if not parser.parse_from_file(str(job.onnx)):
        raise _parse_error(trt, parser, job.onnx)
    _allow_decomposing_attention(trt, network)
    config = builder_config(trt, builder, job)
    monitor = _monitor(trt, progress)
    config.progress_monitor = monitor
    serialized = builder.build_serialized_network(network, config)
    if serialized is None or serialized.nbytes == 0:
        raise BuildError(f"TensorRT for RTX could not build {job.onnx.name}", got=last_errors())
    if not progress.phase("writing the plan"):
        raise BuildError("the process that asked for the plan is gone")
    # The network, and the weights that the parser holds for it, are not needed to write: a plan is as large again.
    del config, parser, network, builder
    with writing_to(job.plan), job.plan.open("wb") as stream:
        stream.write(memoryview(serialized))
    del serialized
    progress.phase("checking the plan")
    checked, unchecked = _check(job.plan)
    return {
        "version": trt.__version__,
        "checked": checked,
        "unchecked": unchecked,
        "peak_rss_bytes": peak_rss_bytes(),
    }


def _allow_decomposing_attention(trt: Any, network: Any) -> None:
    """Let Attention operators (opset 23) fall back to plain products where no fused kernel fits.

    Fused kernels exist for heads of 64 to 256; SD-Turbo's VAE has one head of 512, and a build without this fails.
    """
    for index in range(network.num_layers):
        layer = network.get_layer(index)
        if layer.type == getattr(trt.LayerType, "ATTENTION_INPUT", None):
            layer.__class__ = trt.IAttentionInputLayer
            layer.attention.decomposable = True


def _parse_error(trt: Any, parser: Any, onnx: Path) -> BuildError:
    problems = []
    for index in range(parser.num_errors):
        error = parser.get_error(index)
        node = f"node '{error.node_name()}' ({error.node_operator()}): " if error.node_operator() else ""
        problems.append(f"{node}{error.desc()}")
    return BuildError(
        f"TensorRT for RTX cannot parse {onnx.name}",
        expected=f"operators that tensorrt_rtx {trt.__version__} supports",
        got="\n".join(problems) or last_errors(),
    )


def builder_config(trt: Any, builder: Any, job: Job) -> Any:
    """The vendor's configuration of ``job``. Raises UsageError for a target that this version cannot build for."""
    config = builder.create_builder_config()
    if job.workspace_bytes is not None:
        config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, job.workspace_bytes)
    if job.optimization_level is not None:
        config.builder_optimization_level = job.optimization_level
    config.num_compute_capabilities = len(job.targets)
    for index, target in enumerate(job.targets):
        capability = getattr(trt.ComputeCapability, target.replace("_", "").upper(), None)
        if capability is None or not config.set_compute_capability(capability, index):
            raise UsageError(f"tensorrt_rtx {trt.__version__} cannot build for {target}")
    return config


def _check(plan: Path) -> tuple[list[str], list[str]]:
    """What of the written plan could be checked on this machine, and what could not."""
    check_plan(plan)
    says = ", as many as its header says" if read_header(plan).nbytes else ""
    checked = [
        f"the plan is {plan.stat().st_size:,} bytes{says}",
        "the plan's header was accepted by the runtime's validity check (no MALFORMED_ENGINE bit)",
    ]
    problem = driver_problem()
    refusal = None if problem else device_refusal(plan)
    if problem is None and refusal is None:
        deserialize(plan)
        return [*checked, "deserialised by the runtime"], ["numerical parity: the builder does not run the plan"]
    reason = problem or str(refusal)
    return checked, [f"deserialisation and numerical parity: {reason} on the building machine"]


class _Progress:
    """Turns the builder's nested phases into one fraction that never falls. Called from several threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._start = time.monotonic()
        self._sent = 0.0
        self._parents: dict[str, str | None] = {}
        self._steps: dict[str, int] = {}
        self._done: dict[str, int] = {}

    def phase(self, name: str) -> bool:
        """A phase outside the builder: reading before it, writing and checking after."""
        return self._report(name, self._sent)

    def begin(self, name: str, parent: str | None, steps: int) -> None:
        with self._lock:
            self._parents[name], self._steps[name], self._done[name] = parent, max(steps, 1), 0
            self._report(name, self._sent)

    def advance(self, name: str, step: int) -> bool:
        """False when nobody listens any more: the build is to stop."""
        with self._lock:
            self._done[name] = step + 1
            fraction = self._fraction(name)
            return fraction < self._sent + _SMALLEST_ADVANCE or self._report(name, fraction)

    def _fraction(self, name: str) -> float:
        fraction = 0.0
        for phase in self._upwards(name):
            fraction = min((self._done[phase] + fraction) / self._steps[phase], 1.0)
        return fraction

    def _upwards(self, name: str) -> Iterator[str]:
        phase: str | None = name
        while phase is not None and phase in self._steps:
            yield phase
            phase = self._parents[phase]

    def _report(self, phase: str, fraction: float) -> bool:
        self._sent = fraction
        seconds = time.monotonic() - self._start
        return _send("progress", phase=phase, fraction=self._sent, seconds=seconds, peak_rss_bytes=peak_rss_bytes())


def _monitor(trt: Any, progress: _Progress) -> Any:
    class Monitor(trt.IProgressMonitor):  # type: ignore[misc] # the vendor's package has no types
        def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
            progress.begin(phase_name, parent_phase, num_steps)

        def phase_finish(self, phase_name: str) -> None:
            """Its last step said so already."""

        def step_complete(self, phase_name: str, step: int) -> bool:
            return progress.advance(phase_name, step)

    return Monitor()


def peak_rss_bytes() -> int | None:
    """The most memory this process has held, in bytes; None where the system does not say (not Linux).

    Not ``getrusage``: its figure begins with that of the process which started this one.
    """
    try:
        status = Path("/proc/self/status").read_text(encoding="ascii")
    except OSError:
        return None
    for line in status.splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    return None


def _keep_messages_apart() -> None:
    """Keep the messages' channel to ourselves: native code that writes to standard output reaches the log instead."""
    channel = os.dup(1)
    os.dup2(2, 1)
    sys.stdout = os.fdopen(channel, "w", encoding="utf-8")


if __name__ == "__main__":
    _keep_messages_apart()
    sys.exit(main(sys.argv[1:]))
