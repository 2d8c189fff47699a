"""``gst-launch-1.0`` in a process of its own: a plugin that crashes, or a camera daemon that hangs, ends there.

Frames come out as PNM (``pnmenc``): each says its own size, so a change in mid-stream is seen, and nothing must be
known beforehand.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
import threading
from contextlib import suppress
from typing import IO, TYPE_CHECKING

import numpy as np

from ...engines.errors import MissingComponentError, SinkError
from ..uri import redacted
from .launch import Words

if TYPE_CHECKING:
    from numpy.typing import NDArray

_TOOL = "gst-launch-1.0"
_HINT = (
    "sudo apt install gstreamer1.0-tools gstreamer1.0-plugins-base gstreamer1.0-plugins-good gstreamer1.0-plugins-bad"
)
_SECONDS_TO_END = 0.5
_SECONDS_TO_FINISH = 3.0
_SAID_LINES = 6


class Child:
    """One running pipeline. ``words`` are gst-launch's arguments; ``feeds`` gives it a pipe on standard input."""

    def __init__(self, words: Words, *, feeds: bool = False, command: Words | None = None) -> None:
        """``command``: another program than gst-launch. Raises MissingComponentError when there is none."""
        if command is None:
            tool = shutil.which(_TOOL)
            if tool is None:
                raise MissingComponentError(f"{_TOOL} is not installed", hint=_HINT)
            command = (tool, "-q", "-e")
        self._log = tempfile.TemporaryFile()  # noqa: SIM115 -- closed by close
        # A session of its own: Ctrl-C in our terminal is ours to pass on, after what was written is finished.
        self._process = subprocess.Popen(  # noqa: S603 -- words are arguments, never a shell's
            [*command, *words],
            stdin=subprocess.PIPE if feeds else subprocess.DEVNULL,
            stdout=subprocess.DEVNULL if feeds else subprocess.PIPE,
            stderr=self._log,
            bufsize=0,
            start_new_session=True,
        )
        self._lock = threading.Lock()

    @property
    def output(self) -> IO[bytes]:
        if self._process.stdout is None:
            raise SinkError("this pipeline is fed, and gives nothing")
        return self._process.stdout

    @property
    def process_id(self) -> int:
        return self._process.pid

    @property
    def is_running(self) -> bool:
        return self._process.poll() is None

    def write(self, data: memoryview) -> None:
        """All of it. Raises BrokenPipeError when the pipeline ended."""
        pipe = self._process.stdin
        if pipe is None:
            raise SinkError("this pipeline is not fed")
        while data:
            written = pipe.write(data)
            data = data[written or 0 :]

    def how_it_ended(self) -> str:
        """Its exit code or signal and its last words, without credentials."""
        try:
            code = self._process.wait(_SECONDS_TO_END)  # its pipe may close before it is gone
        except subprocess.TimeoutExpired:
            return "it still runs"
        how = f"killed by {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
        self._log.seek(0)
        lines = [line for line in self._log.read().decode("utf-8", "replace").splitlines() if line.strip()]
        return "\n".join([how, *(redacted(line) for line in lines[-_SAID_LINES:])])

    def kill(self) -> None:
        """At once; whoever reads or writes is woken by the broken pipe. Safe from any thread."""
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)

    def close(self) -> None:
        """End it: by end of input where it is fed, so that files are finished, else by a signal; at last by force."""
        with self._lock:
            pipe = self._process.stdin
            if pipe is not None:
                with suppress(OSError):
                    pipe.close()
            elif self.is_running:
                self._process.terminate()
            try:
                self._process.wait(_SECONDS_TO_FINISH if pipe is not None else _SECONDS_TO_END)
            except subprocess.TimeoutExpired:
                self.kill()
                self._process.wait()
            if self._process.stdout is not None:
                self._process.stdout.close()
            self._log.close()


def read_pnm(stream: IO[bytes]) -> NDArray[np.uint8] | None:
    """The next picture of a stream of binary PPMs, as a new uint8 ``[H, W, 3]``; None at its end, even in mid-picture.

    Raises ValueError for anything else. Source: ppm(5), as GStreamer's pnmenc writes it: a comment line may follow P6.
    """
    fields: list[int] = []
    magic = _line(stream)
    if magic is None:
        return None
    if magic.strip() != b"P6":
        raise ValueError(f"not a picture: {magic[:20]!r}")
    while len(fields) < 3:
        line = _line(stream)
        if line is None:
            return None
        fields += [int(number) for number in line.partition(b"#")[0].split()]
    width, height, _ = fields
    picture = np.empty((height, width, 3), np.uint8)
    return picture if _fill(stream, picture.data.cast("B")) else None


def _line(stream: IO[bytes]) -> bytes | None:
    """Byte by byte: a header is a dozen bytes, and the stream is not buffered so that pictures are read in one copy."""
    line = bytearray()
    while not line.endswith(b"\n"):
        byte = stream.read(1)
        if not byte:
            return None
        line += byte
        if len(line) > 1024:
            raise ValueError("not a picture: no header")
    return bytes(line)


def _fill(stream: IO[bytes], into: memoryview) -> bool:
    while into:
        count = stream.readinto(into)  # type: ignore[attr-defined] # raw files have it
        if not count:
            return False
        into = into[count:]
    return True
