"""A live source that comes back: whatever ends it, it is closed and opened again until it delivers."""

from __future__ import annotations

import logging
import random
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from ..engines.errors import InputError, SourceError
from .frame import Frame, FrameSource, Signal, StreamInfo

if TYPE_CHECKING:
    from .stats import StreamStats

_log = logging.getLogger(__name__)

# Far beyond any longest wait; 2.0**1024, a quarter of an hour of attempts later, would be no number any more.
_MOST_DOUBLINGS = 30


@dataclass(frozen=True)
class Persistence:
    """In seconds. A source without a frame for ``stall`` is restarted.

    Attempts come after ``first_wait``, then twice as long each time up to ``longest_wait``, each wait longer or shorter
    by up to ``jitter`` of itself, so that many devices do not knock at one camera at the same moment. The longest wait,
    0.6 s with its jitter, leaves room to connect: a camera that is back is used within a second.
    """

    stall: float = 5.0
    first_wait: float = 0.1
    longest_wait: float = 0.5
    jitter: float = 0.2


class PersistentSource(FrameSource):
    """``source``, closed and opened again on every failure, end or stall; the faults are counted in ``stats``.

    Frames are numbered through, and presentation times go on from where they were, in step with the clock. The first
    ``open`` raises what the source raises, unless told otherwise: what was never there is a mistake, not an outage.
    """

    def __init__(
        self,
        source: FrameSource,
        stats: StreamStats,
        policy: Persistence | None = None,
        *,
        patient: bool = False,
        seed: int | None = None,
    ) -> None:
        """``patient``: a source that is not there yet is waited for, as after an outage."""
        self.live = True
        self._patient = patient
        self._source = source
        self._stats = stats
        self._policy = policy or Persistence()
        self._random = random.Random(seed)  # noqa: S311 -- jitter, no secret
        self._stopped = threading.Event()
        self._failures = 0
        self._next_attempt = 0.0
        self._last_frame = 0.0
        self._count = 0
        self._first_ns: int | None = None
        self._shift_ns: int | None = None

    @property
    def info(self) -> StreamInfo:
        return self._source.info

    @property
    def faults(self) -> Mapping[str, int]:
        return self._source.faults

    def open(self) -> None:
        try:
            self._source.open()
        except SourceError as error:
            if not self._patient:
                raise
            self._down(error.reason, error.what)
            return
        self._connected()

    def read(self, timeout: float) -> Frame | Signal:
        """As the source's, but never SourceError: an outage is a TIMEOUT until it is over. EOS is a file's alone."""
        if not self._stats.connected:
            return self._reopen(timeout)
        try:
            got = self._source.read(timeout)
        except SourceError as error:
            return self._down(error.reason, error.what)
        if got is Signal.EOS:
            return self._down("end", "the source ended") if self.live else got
        if isinstance(got, Frame):
            return self._passed_on(got)
        silent = time.monotonic() - self._last_frame
        if silent > self._policy.stall:
            return self._down("stall", f"no frame for {silent:.1f} s")
        return Signal.TIMEOUT

    def interrupt(self) -> None:
        self._stopped.set()
        self._source.interrupt()

    def close(self) -> None:
        self._stats.connected = False
        self._source.close()

    def _connected(self) -> None:
        self.live = self._source.live  # a URL may have turned out to be a file
        self._stats.connected = True
        self._last_frame = time.monotonic()
        self._shift_ns = None

    def _reopen(self, timeout: float) -> Signal:
        wait = self._next_attempt - time.monotonic()
        if wait > 0:
            self._stopped.wait(min(wait, timeout))
            return Signal.TIMEOUT
        try:
            self._source.open()
        except (SourceError, InputError) as error:
            return self._down(getattr(error, "reason", "missing"), error.what)
        self._connected()
        return Signal.TIMEOUT

    def _passed_on(self, frame: Frame) -> Frame:
        self._last_frame = time.monotonic()
        if self._failures:
            # Only a frame shows that it is back: a server may accept a connection and then send nothing.
            _log.warning("%s is back after %d attempts", self.info.description, self._failures)
            self._stats.add(reconnects=1)
            self._failures = 0
        if self._first_ns is None:
            self._first_ns = frame.captured_ns
        since_first = frame.captured_ns - self._first_ns
        if self._shift_ns is None:
            self._shift_ns = since_first - (frame.pts_ns or 0)
        pts_ns = since_first if frame.pts_ns is None else frame.pts_ns + self._shift_ns
        self._count += 1
        return replace(frame, index=self._count - 1, pts_ns=pts_ns)

    def _down(self, reason: str, what: str) -> Signal:
        if not self._failures:
            _log.warning("%s: trying again until it is back", what)
        self._stats.fault(reason)
        self._stats.connected = False
        self._source.close()
        policy = self._policy
        wait = min(policy.first_wait * 2.0 ** min(self._failures, _MOST_DOUBLINGS), policy.longest_wait)
        wait *= 1 + self._random.uniform(-policy.jitter, policy.jitter)
        self._failures += 1
        self._next_attempt = time.monotonic() + wait
        return Signal.TIMEOUT
