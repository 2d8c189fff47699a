"""What the commands say, in one place: progress and errors on stderr, results on stdout, exit codes by error."""

from __future__ import annotations

import json
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NoReturn

from .engines.errors import EdgeTurboError

if TYPE_CHECKING:
    from rich.progress import Progress

EXIT_BUG, EXIT_INTERRUPTED = 1, 130


@dataclass(frozen=True)
class Console:
    """``as_json``: one machine-readable line on stdout and nothing else. ``quiet``: nothing but errors.

    ``debug``: a traceback with every error.
    """

    as_json: bool = False
    quiet: bool = False
    debug: bool = False

    @property
    def _silent(self) -> bool:
        return self.as_json or self.quiet

    def say(self, text: str) -> None:
        """A line of the result, for a person."""
        if not self._silent:
            sys.stdout.write(text + "\n")

    def note(self, text: str) -> None:
        """Something worth knowing, which is not the result."""
        if not self._silent:
            sys.stderr.write(text + "\n")

    def warn(self, text: str) -> None:
        if not self._silent:
            sys.stderr.write(f"warning: {text}\n")

    def result(self, data: dict[str, Any]) -> None:
        """The result, for a machine: one line of JSON."""
        if self.as_json:
            sys.stdout.write(json.dumps(data) + "\n")

    @contextmanager
    def progress(self) -> Iterator[Callable[[str, float | None], None]]:
        """A function that shows the stage that is running and how far it is (0 to 1, or None: unknown)."""
        if self._silent or not sys.stderr.isatty():
            yield self._plain_stages()
            return
        with _bar() as bar:
            task = bar.add_task("", total=None)

            def show(stage: str, fraction: float | None) -> None:
                bar.update(task, description=stage, total=None if fraction is None else 1.0, completed=fraction or 0.0)

            yield show

    @contextmanager
    def status(self) -> Iterator[Callable[[str], None]]:
        """A function that shows one line which changes; into a file or a pipe it writes nothing."""
        if self._silent or not sys.stderr.isatty():
            yield lambda _: None
            return
        with self.progress() as show:
            yield lambda text: show(text, None)

    def _plain_stages(self) -> Callable[[str, float | None], None]:
        """Into a file or a pipe: each stage once, when it begins."""
        last = ""

        def show(stage: str, _: float | None) -> None:
            nonlocal last
            main = stage.partition(":")[0]
            if main != last:
                self.note(f"{main} …")
                last = main

        return show

    @contextmanager
    def reporting_errors(self) -> Iterator[None]:
        """Turn whatever ends a command into a message and an exit code (``engines/errors.py`` lists them).

        A SIGTERM ends it as Ctrl-C does, so that what was half-written is cleaned up.
        """
        before = signal.signal(signal.SIGTERM, signal.default_int_handler)
        try:
            yield
        except EdgeTurboError as error:
            self._end(error, str(error), error.exit_code)
        except KeyboardInterrupt as error:
            self._end(error, "interrupted; nothing half-made was left", EXIT_INTERRUPTED)
        except Exception as error:  # noqa: BLE001 -- the last line before the user: it is told to be a bug, and ends the process
            hint = "" if self.debug else "\n  try: the same command with --debug, and report what it prints"
            self._end(error, f"this is a bug in edgeturbo: {type(error).__name__}: {error}{hint}", EXIT_BUG)
        finally:
            signal.signal(signal.SIGTERM, before)

    def _end(self, error: BaseException, text: str, code: int) -> NoReturn:
        if self.debug:
            import traceback

            sys.stderr.write("".join(traceback.format_exception(error)))
        if self.as_json:
            self.result({"error": type(error).__name__, "message": text, "exit_code": code})
        else:
            sys.stderr.write(f"error: {text}\n")
        raise SystemExit(code) from error


def _bar() -> Progress:
    from rich.console import Console as RichConsole
    from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    return Progress(
        SpinnerColumn(), TextColumn("{task.description}", markup=False), BarColumn(), TimeElapsedColumn(),
        console=RichConsole(stderr=True), transient=True,
    )  # fmt: skip
