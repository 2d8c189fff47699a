"""What the tests of network streams share."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from edgeturbo.engines.errors import SourceError
from edgeturbo.runtime.frame import Frame, Signal
from edgeturbo.runtime.options import StreamOptions

HANG_S = 2.5  # what has to end within 0.5 s is given five times as long
PATIENT_S = 20.0  # for what a busy machine may take its time with
QUICK = StreamOptions(open_timeout=1.0, read_timeout=1.0)


def free_port(kind: socket.SocketKind = socket.SOCK_STREAM) -> int:
    with socket.socket(socket.AF_INET, kind) as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def next_frame(source, patience: float = PATIENT_S) -> Frame:
    end = time.monotonic() + patience
    while time.monotonic() < end:
        if isinstance(got := source.read(0.5), Frame):
            return got
        assert got is Signal.TIMEOUT
    raise AssertionError(f"no frame within {patience} s")


def failure_of(source, patience: float = PATIENT_S) -> SourceError:
    end = time.monotonic() + patience
    while time.monotonic() < end:
        try:
            source.read(0.2)
        except SourceError as error:
            return error
    raise AssertionError(f"no failure within {patience} s")


def took(call: Callable[[], object]) -> float:
    started = time.monotonic()
    call()
    return time.monotonic() - started


def pumps() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name.startswith("edgeturbo-pu")]


@contextmanager
def silent_server() -> Iterator[int]:
    """Accepts connections, and says nothing."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        yield listener.getsockname()[1]


def frames_until_it_fails(source) -> tuple[list[Frame], SourceError]:
    frames = []
    while True:
        try:
            got = source.read(PATIENT_S)
        except SourceError as error:
            return frames, error
        assert isinstance(got, Frame)
        frames.append(got)
