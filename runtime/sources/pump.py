"""A thread that reads what may block, for a reader that must not.

FFmpeg can wait for a camera for seconds, and PyAV has no way to call it back. So a thread of its own connects, reads
and decodes. Whoever waits for it can leave at once. A thread that is left behind in FFmpeg ends by itself when FFmpeg's
own time limit is over; it closes what it had opened, and what it still reads goes nowhere.
"""

from __future__ import annotations

import threading
from collections import Counter, deque
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass

from ..frame import Signal
from .decode import Decoded

# How long close waits for the thread.
_GRACE_S = 0.8
_WAITING_IN_ORDER = 4


@dataclass(frozen=True)
class Connection:
    """``pictures`` blocks in FFmpeg. ``live``: whether frames come at their own pace."""

    pictures: Iterator[Decoded]
    rate: float | None
    origin_ns: int
    has_times: bool
    live: bool


Connect = Callable[[Callable[[], bool]], AbstractContextManager[Connection]]


class Pump:
    """``connect(stopped)`` runs in the thread. ``newest``: keep the newest picture only (None: if it is live)."""

    def __init__(self, connect: Connect, faults: Counter[str], newest: bool | None) -> None:
        self._connect = connect
        self._faults = faults
        self._newest = newest
        self._changed = threading.Condition()
        self._waiting: deque[Decoded] = deque()
        self._connection: Connection | None = None
        self._ended = False
        self._error: Exception | None = None
        self._left = False
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="edgeturbo-pump", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def leave(self) -> None:
        """Let whoever waits in ``connected`` or ``take`` go."""
        with self._changed:
            self._left = True
            self._changed.notify_all()

    def stop(self) -> bool:
        """End the thread; False when it is still inside FFmpeg after 0.8 s, where it is left to end by itself."""
        self._stopping.set()
        self.leave()
        self._thread.join(_GRACE_S)
        return not self._thread.is_alive()

    def connected(self) -> tuple[Connection, Decoded] | None:
        """Wait for the first picture, without taking it. None when left, or when the stream ended before one.

        Raises what connecting raised.
        """
        with self._changed:
            self._changed.wait_for(lambda: self._left or self._ended or self._waiting)
            if self._error is not None and not self._waiting:
                raise self._error
            if self._connection is None or not self._waiting:
                return None
            return self._connection, self._waiting[0]

    def take(self, timeout: float) -> Decoded | Signal:
        """The next picture; EOS after the last; TIMEOUT after ``timeout`` seconds or when left. Raises its errors."""
        with self._changed:
            self._changed.wait_for(lambda: self._left or self._ended or self._waiting, timeout)
            if self._left:
                return Signal.TIMEOUT
            if self._waiting:
                item = self._waiting.popleft()
                self._changed.notify_all()
                return item
            if self._error is not None:
                raise self._error
            return Signal.EOS if self._ended else Signal.TIMEOUT

    def _run(self) -> None:
        try:
            with self._connect(self._stopping.is_set) as connection:
                self._connection = connection
                newest = connection.live if self._newest is None else self._newest
                for item in connection.pictures:
                    if self._stopping.is_set():
                        return
                    self._hand_over(item, newest)
        except Exception as error:  # noqa: BLE001 -- raised again in the thread that reads
            self._error = error
        finally:
            with self._changed:
                self._ended = True
                self._changed.notify_all()

    def _hand_over(self, item: Decoded, newest: bool) -> None:
        with self._changed:
            if newest:
                self._faults["superseded"] += len(self._waiting)
                self._waiting.clear()
            else:
                self._changed.wait_for(lambda: self._stopping.is_set() or len(self._waiting) < _WAITING_IN_ORDER)
            self._waiting.append(item)
            self._changed.notify_all()
