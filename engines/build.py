"""Builds plans, in a child process: a builder that crashes or runs out of memory takes nothing else with it.

Beside the plan a build leaves ``build.log`` (what the builder said) and ``reproduce.sh`` (the same build again). The
three appear together and only on success; an earlier plan and its log stay as they were until then. The log of a
build that failed is left as ``build-failed.log``.
"""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, cast

from . import errors
from .errors import BuildError, EdgeTurboError, InputError, MissingComponentError, UsageError
from .files import replacing, writing_to
from .manifest import EngineEntry

LOG = "build.log"
FAILED_LOG = "build-failed.log"
SCRIPT = "reproduce.sh"

# tensorrt_rtx.ComputeCapability of 1.5 to 1.7.
RTX_TARGETS = ("sm_75", "sm_80", "sm_86", "sm_89", "sm_120", "sm_121")
_TENSORRT_ONLY = {"sm_87": "Jetson Orin", "sm_90": "Hopper", "sm_110": "Jetson Thor"}

_WORKER = f"{__package__}._build_worker"
_SECONDS_TO_END = 5.0
_LOG_LINES = 15


@dataclass(frozen=True)
class BuildRequest:
    """What to build.

    ``onnx``: the bundle's generator. ``plan``: where to write; an existing plan is replaced on success.
    ``targets``: the GPU architectures that the one plan is to serve, e.g. ``("sm_89", "sm_120")``.
    ``onnx_sha256``: goes into the entry, so that it can be told later which generator the plan came from.
    ``workspace_bytes``: the most GPU memory a layer may use for scratch; ``optimization_level``: 0 to 5. None leaves
    the builder's own default. TensorRT for RTX 1.7 was seen to build the same plan at every level.
    """

    backend: str
    onnx: Path
    plan: Path
    targets: tuple[str, ...]
    onnx_sha256: str
    workspace_bytes: int | None = None
    optimization_level: int | None = None

    @property
    def plan_name(self) -> str:
        """The plan's name in its bundle: relative to the ONNX file's folder, which is the bundle's root.

        A plan written outside that folder has only its file name.
        """
        plan, root = self.plan.resolve(), self.onnx.resolve().parent
        return plan.relative_to(root).as_posix() if plan.is_relative_to(root) else plan.name


@dataclass(frozen=True)
class BuildProgress:
    """How far a build is.

    ``fraction``: of the builder's steps, not of its time (TensorRT for RTX spends most of that in one of the last
    steps, and is silent there); 0 to 1, never falls, and 1 is the last message of a build that succeeded.
    ``seconds`` since the builder's process began to work. ``peak_rss_bytes``: the most memory that process has held
    so far, None where the system does not say.
    """

    phase: str
    fraction: float
    seconds: float
    peak_rss_bytes: int | None


def build_plan(request: BuildRequest, on_progress: Callable[[BuildProgress], None] | None = None) -> EngineEntry:
    """Build one plan for all targets and return its entry for the manifest; nothing enters the manifest here.

    Needs no GPU. Takes seconds for a small network, and three to four times the plan's size in memory. On failure, or
    when interrupted (Ctrl-C), the builder's process is ended and an earlier plan is untouched.

    Raises UsageError for targets or options that cannot be meant, InputError for a missing ONNX file,
    MissingComponentError without the builder's package, BuildError when the builder fails, DiskFullError.
    """
    _check(request)
    plan = request.plan
    report = on_progress or (lambda _: None)
    with replacing(plan) as temporary, _failed_log(plan.parent / FAILED_LOG) as log:
        watch = _Watch(report)
        command = [sys.executable, "-m", _WORKER, *_flags(request, str(request.onnx), str(temporary))]
        code = _run(command, log, watch)
        if watch.built is None:
            raise _failure(request, watch, code, temporary)
        entry = _entry(request, watch.built)
        _write_script(request, entry.version)
        (plan.parent / FAILED_LOG).replace(plan.parent / LOG)
    last = watch.last
    report(BuildProgress("built", 1.0, last.seconds if last else 0.0, watch.built["peak_rss_bytes"]))
    return entry


def check_targets(targets: tuple[str, ...]) -> None:
    """Raise UsageError unless TensorRT for RTX builds for each of ``targets``, named once. Cheap."""
    valid = ", ".join(RTX_TARGETS)
    for target in targets:
        if target in _TENSORRT_ONLY:
            raise UsageError(
                f"TensorRT for RTX does not support {target} ({_TENSORRT_ONLY[target]}); this device needs TensorRT",
                expected=valid,
                got=target,
            )
        if target not in RTX_TARGETS:
            raise UsageError(f"no target '{target}'", expected=valid, got=target)
    twice = sorted({target for target in targets if targets.count(target) > 1})
    if twice:
        raise UsageError(f"target {', '.join(twice)} is named more than once")
    if not targets:
        raise UsageError("a build needs a target", expected=f"one or more of {valid}", hint="add --target sm_89")


def _check(request: BuildRequest) -> None:
    if request.backend == "tensorrt":
        raise MissingComponentError(
            "TensorRT builds come with a later version of edgeturbo", hint="--engine tensorrt-rtx"
        )
    if request.backend != "tensorrt-rtx":
        raise UsageError(f"no builder for the backend '{request.backend}'", expected="tensorrt-rtx")
    check_targets(request.targets)
    level, workspace = request.optimization_level, request.workspace_bytes
    if level is not None and not 0 <= level <= 5:
        raise UsageError("no such optimization level", expected="0 to 5", got=str(level))
    if workspace is not None and workspace <= 0:
        raise UsageError("the workspace is too small", expected="more than 0 bytes", got=f"{workspace} bytes")
    if not request.onnx.is_file():
        raise InputError(f"{request.onnx} does not exist", hint="turbo-export --ckpt day2night.pkl --out day2night")


def _flags(request: BuildRequest, onnx: str, plan: str) -> list[str]:
    flags = ["--backend", request.backend, "--onnx", onnx, "--plan", plan]
    for target in request.targets:
        flags += ["--target", target]
    for name, value in _options(request).items():
        flags += [f"--{name.replace('_', '-')}", value]
    return flags


def _options(request: BuildRequest) -> dict[str, str]:
    options = {"workspace_bytes": request.workspace_bytes, "optimization_level": request.optimization_level}
    return {name: str(value) for name, value in options.items() if value is not None}


def _entry(request: BuildRequest, built: dict[str, Any]) -> EngineEntry:
    return EngineEntry(
        backend=request.backend,
        version=built["version"],
        targets=request.targets,
        plan=request.plan_name,
        onnx_sha256=request.onnx_sha256,
        options=_options(request),
        checked=tuple(built["checked"]),
        unchecked=tuple(built["unchecked"]),
    )


@contextmanager
def _failed_log(path: Path) -> Iterator[IO[bytes]]:
    """The log, under its failed name until the build succeeded. An interrupted build leaves none."""
    with writing_to(path), path.open("wb") as log:
        try:
            yield log
        except KeyboardInterrupt:
            path.unlink(missing_ok=True)
            raise


class _Watch:
    """What the builder's process has said so far."""

    def __init__(self, report: Callable[[BuildProgress], None]) -> None:
        self._report = report
        self.last: BuildProgress | None = None
        self.built: dict[str, Any] | None = None
        self.failed: dict[str, str | None] | None = None

    def hear(self, line: str) -> None:
        if not line.endswith("\n"):
            return  # the process was killed while it wrote
        message = json.loads(line)
        event = message.pop("event")
        if event == "progress":
            self.last = BuildProgress(**message)
            self._report(self.last)
        elif event == "built":
            self.built = message
        elif event == "failed":
            self.failed = message


def _run(command: list[str], log: IO[bytes], watch: _Watch) -> int:
    """Run the builder's process to its end, or to ours; returns its exit code."""
    try:
        # A session of its own: a terminal's Ctrl-C reaches us alone, and we end the builder, which could not itself.
        process = subprocess.Popen(  # noqa: S603 - our own module, and a list: no shell reads the paths
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=log,
            encoding="utf-8",
            start_new_session=True,
            # `python -m` would else let modules in the user's current folder hide installed ones (Python 3.11+).
            env={**os.environ, "PYTHONSAFEPATH": "1"},
        )
    except OSError as error:
        raise BuildError(f"cannot start the builder's process: {error.strerror}", got=_memory()) from error
    output = cast("IO[str]", process.stdout)  # it was asked for as a pipe
    with output:
        try:
            for line in output:
                watch.hear(line)
            return process.wait()
        finally:
            _end(process)


def _end(process: subprocess.Popen[str]) -> None:
    try:
        process.terminate()
        with suppress(subprocess.TimeoutExpired):
            process.wait(_SECONDS_TO_END)
    finally:
        # Also when a second Ctrl-C cuts the waiting short.
        if process.poll() is None:
            process.kill()
            process.wait()


def _failure(request: BuildRequest, watch: _Watch, code: int, temporary: Path) -> EdgeTurboError:
    """The error that the builder's process sent, or what its exit code tells, with where to read more."""
    path = request.plan.parent / FAILED_LOG
    hint = f"read {path}"
    if watch.failed is not None:
        kind = getattr(errors, watch.failed["error"] or "", BuildError)
        # The user knows the plan, not the temporary name that it is written to.
        texts = {
            key: text and text.replace(str(temporary), str(request.plan))
            for key, text in watch.failed.items()
            if key != "error"
        }
        if issubclass(kind, BuildError):
            texts["got"] = f"{texts['got']}\n{_tail(path)}"
            texts["hint"] = hint
        return kind(texts.pop("what") or "", **texts)
    if code >= 0:
        return BuildError(f"the engine builder ended with exit code {code}", got=_tail(path), hint=hint)
    name = signal.Signals(-code).name if -code in set(signal.Signals) else f"signal {-code}"
    likely = "out of memory is likely" if -code == getattr(signal, "SIGKILL", 9) else "a crash, or out of memory"
    return BuildError(
        f"the engine builder was killed by {name}: {likely}",
        expected=f"memory for three to four times the generator, which is {_size(request.onnx):,} bytes",
        got=f"{_held(watch.last)}; {_memory()}\n{_tail(path)}",
        hint=f"close other programs, or build on a machine with more memory; {hint}",
    )


def _size(onnx: Path) -> int:
    data = onnx.with_name(f"{onnx.name}.data")
    return onnx.stat().st_size + (data.stat().st_size if data.is_file() else 0)


def _held(last: BuildProgress | None) -> str:
    if last is None or last.peak_rss_bytes is None:
        return "the builder's memory is unknown"
    return f"the builder had held {last.peak_rss_bytes:,} bytes by '{last.phase}'"


def _memory() -> str:
    """This machine's memory in words (Linux; elsewhere nobody says)."""
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
    except OSError:
        return "this machine's memory is unknown"
    sizes = {line.split(":")[0]: int(line.split()[1]) * 1024 for line in lines}
    return f"this machine has {sizes['MemTotal']:,} bytes, of which {sizes.get('MemAvailable', 0):,} are free now"


def _tail(log: Path) -> str:
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines()[-_LOG_LINES:]
    return "\n".join(["the log's last lines:", *lines]) if lines else "an empty log"


def _write_script(request: BuildRequest, version: str) -> None:
    folder = request.plan.parent
    onnx = os.path.relpath(request.onnx, folder)
    flags = _flags(request, onnx, "")
    lines = [
        '--plan "${1:-reproduced.plan}"' if flag == "--plan" else f"{flag} {shlex.quote(value)}"
        for flag, value in zip(flags[::2], flags[1::2], strict=True)
    ]
    arguments = " \\\n  ".join(lines)
    text = f"""#!/bin/sh
# Builds the plan of this folder again, beside it: as reproduced.plan, or as the first argument says.
# First built with tensorrt_rtx {version} from an ONNX file of SHA-256 {request.onnx_sha256}.
set -eu
cd -- "$(dirname -- "$0")"
exec "${{PYTHON:-python3}}" -m {_WORKER} \\
  {arguments}
"""
    with replacing(folder / SCRIPT) as temporary:
        temporary.write_text(text, encoding="utf-8")
    (folder / SCRIPT).chmod(0o755)
