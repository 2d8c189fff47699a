"""Rows in processes of their own, so that no row's threads, memory or settings are another's.

A row's process works when it is asked to and sleeps otherwise: it answers only once its own threads have stopped
spinning (``quiet.py``), so that whoever comes next has the whole machine. The time is taken inside, without the pipe.
"""

from __future__ import annotations

import multiprocessing
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, TypeVar

from ..engines import errors
from ..engines.bundle import Bundle
from ..engines.errors import DeviceError, EdgeTurboError, UsageError, first_line
from .latency import SelfTimed
from .quiet import LIMIT_S, wait_until_quiet
from .runner import About, run_here

if TYPE_CHECKING:
    from multiprocessing.connection import Connection
    from multiprocessing.process import BaseProcess

    from .feeds import Case
    from .result import EnergyFigures, ThroughputFigure
    from .rows import RowPlan, Setting
    from .runner import Pictures

T = TypeVar("T")

_SECONDS_TO_END = 5.0
# What a row's process does when it is asked to: the methods of Runner.
_TIMED, _JOBS = ("once", "frame"), ("stages", "images", "energy", "throughput")


@dataclass(frozen=True)
class _Answer:
    """``value``, or ``failed``: an error's class by name and its texts. ``quiet``: no thread was left spinning."""

    value: Any = None
    failed: tuple[str, dict[str, str | None]] | None = None
    quiet: bool = True


class Apart:
    """A Runner in another process."""

    def __init__(self, channel: Connection[Any, Any], process: BaseProcess, about: About) -> None:
        self._channel, self._process, self._about = channel, process, about
        self._restless = False

    @property
    def about(self) -> About:
        if not self._restless:
            return self._about
        said = f"still busy {LIMIT_S:g} s after a run: it slowed whatever ran next"
        return replace(self._about, facts={**self._about.facts, "threads": said})

    def once(self) -> object:
        return SelfTimed(self._ask("once"))

    def frame(self) -> object:
        return SelfTimed(self._ask("frame"))

    def stages(self) -> dict[str, float]:
        return self._ask("stages")  # type: ignore[no-any-return]

    def images(self, cases: Sequence[Case]) -> Pictures:
        return self._ask("images", cases)  # type: ignore[no-any-return]

    def energy(self, seconds: float) -> EnergyFigures | str:
        return self._ask("energy", seconds)  # type: ignore[no-any-return]

    def throughput(self, seconds: float) -> tuple[ThroughputFigure, ...] | str:
        return self._ask("throughput", seconds)  # type: ignore[no-any-return]

    def _ask(self, job: str, *details: object) -> Any:
        with suppress(BrokenPipeError):  # it died: the answer below says so
            self._channel.send((job, details))
        answer = _heard(self._channel, self._process)
        self._restless = self._restless or not answer.quiet
        return answer.value


@contextmanager
def run_apart(setting: Setting, plan: RowPlan, case: Case) -> Iterator[Apart]:
    """Open ``plan`` of ``setting`` in a process of its own, which ends with the block.

    Raises what opening it raises there, and DeviceError when the process dies.
    """
    with _child(_serve, setting, plan.key, plan.label, case) as (channel, process):
        yield Apart(channel, process, _heard(channel, process).value)


def call_apart(function: Callable[..., T], *details: object) -> T:
    """``function(*details)`` in a process of its own, which is then gone with all its memory; raises what it raises.

    Function, details and result are pickled.
    """
    with _child(_call, function, details) as (channel, process):
        return _heard(channel, process).value  # type: ignore[no-any-return]


@contextmanager
def _child(work: Callable[..., None], *details: object) -> Iterator[tuple[Connection[Any, Any], BaseProcess]]:
    # Spawned, not forked: a fork copies locks that another thread holds, and a CUDA context is of no use to a child.
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=work, args=(theirs, *details))
    try:
        process.start()
        theirs.close()  # else its death would not be heard
        yield ours, process
    finally:
        ours.close()
        _end(process)


def _end(process: BaseProcess) -> None:
    if process.pid is None:
        return
    try:
        process.join(_SECONDS_TO_END)
    finally:
        if process.is_alive():
            process.kill()
        process.join()


def _heard(channel: Connection[Any, Any], process: BaseProcess) -> _Answer:
    try:
        answer: _Answer = channel.recv()
    except (EOFError, ConnectionError) as error:
        process.join(_SECONDS_TO_END)
        code = process.exitcode
        name = f"signal {-code}" if code is not None and code < 0 else f"exit code {code}"
        likely = "; out of memory is likely" if code == -getattr(signal, "SIGKILL", 9) else ""
        raise DeviceError(f"its process ended with {name}{likely}") from error
    if answer.failed is not None:
        kind, texts = answer.failed
        raise getattr(errors, kind)(texts.pop("what") or "", **texts)
    return answer


def _call(channel: Connection[Any, Any], function: Callable[..., Any], details: tuple[Any, ...]) -> None:
    with _answering(channel):
        channel.send(_Answer(function(*details)))


def _serve(channel: Connection[Any, Any], setting: Setting, key: str, label: str, case: Case) -> None:
    """The child: opens the row, says what it is, and does what it is asked to until the channel is closed."""
    from .rows import plan_row

    with _answering(channel):
        plan = replace(plan_row(setting, key), label=label)
        with run_here(plan, Bundle.open(setting.bundle), case) as runner:
            channel.send(_Answer(runner.about))
            with suppress(EOFError):
                while True:
                    job, details = channel.recv()
                    with _answering(channel):
                        value = _done(runner, job, details)
                        channel.send(_Answer(value, quiet=wait_until_quiet()))


def _done(runner: Any, job: str, details: tuple[Any, ...]) -> Any:
    if job not in (*_TIMED, *_JOBS):
        raise UsageError(f"no job of a row is called {job}", expected=", ".join((*_TIMED, *_JOBS)))
    started = time.perf_counter()
    value = getattr(runner, job)(*details)
    taken = time.perf_counter() - started
    if job in _TIMED:
        return value.seconds if isinstance(value, SelfTimed) else taken
    return value


@contextmanager
def _answering(channel: Connection[Any, Any]) -> Iterator[None]:
    """What fails inside is told to the parent, in whose words it ends. Ctrl-C is the parent's to hear."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    except EdgeTurboError as error:
        texts = {name: getattr(error, name) for name in ("what", "expected", "got", "hint")}
        _tell(channel, type(error).__name__, texts)
    except (RuntimeError, MemoryError, OSError, ValueError) as error:
        _tell(channel, "DeviceError", {"what": f"{type(error).__name__}: {first_line(error)}"})


def _tell(channel: Connection[Any, Any], kind: str, texts: dict[str, str | None]) -> None:
    with suppress(BrokenPipeError):
        channel.send(_Answer(failed=(kind, texts)))
