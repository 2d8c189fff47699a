"""Raw frames on standard output: width x height x 3 bytes of RGB each, nothing between them."""

from __future__ import annotations

import os
import select
import sys
import threading
from pathlib import Path
from stat import S_ISREG

import numpy as np

from ...engines.errors import SinkError, UsageError
from ...engines.files import filling_disk
from ..frame import Emission, FrameSink, StreamInfo

# A pipe that select calls writable takes so much without waiting (POSIX, PIPE_BUF; Linux, pipe(7)). The descriptor is
# not made non-blocking: that would change it for every process that shares it.
_AT_ONCE = select.PIPE_BUF
_LOOK_S = 0.1
_REGULAR_AT_ONCE = 1 << 20
_NAME = Path("standard output")


class RawSink(FrameSink):
    """All frames have one size, which the reader has to know. ``descriptor`` stays open.

    After an interruption in the middle of a frame the reader could not tell where the next one begins: further writes
    raise SinkError.
    """

    def __init__(self, descriptor: int | None = None) -> None:
        self._descriptor = descriptor
        self._interrupted = threading.Event()
        self._at_once = _AT_ONCE
        self._torn = False

    @property
    def description(self) -> str:
        return "standard output"

    def open(self, info: StreamInfo) -> None:  # noqa: ARG002 -- nothing announces the size
        """Raises UsageError when standard output is a terminal."""
        if os.isatty(self._number()):
            raise UsageError(
                "standard output is a terminal, and raw frames cannot be shown", hint="pipe them elsewhere"
            )
        self._at_once = _REGULAR_AT_ONCE if S_ISREG(os.fstat(self._number()).st_mode) else _AT_ONCE
        self._torn = False

    def write(self, emission: Emission) -> None:
        if self._torn:
            raise SinkError("standard output was interrupted within a frame")
        data = np.ascontiguousarray(emission.image).data.cast("B")
        whole = len(data)
        try:
            while data and not self._interrupted.is_set():
                if select.select([], [self._number()], [], _LOOK_S)[1]:
                    with filling_disk(_NAME):
                        data = data[os.write(self._number(), data[: self._at_once]) :]
        except BrokenPipeError as error:
            raise SinkError("whoever read standard output has gone", hint="was it meant to end before us?") from error
        except OSError as error:
            raise SinkError(f"standard output cannot be written: {error.strerror}") from error
        self._torn = 0 < len(data) < whole

    def interrupt(self) -> None:
        self._interrupted.set()

    def close(self) -> None:
        self._interrupted.clear()

    def _number(self) -> int:
        return sys.stdout.fileno() if self._descriptor is None else self._descriptor
