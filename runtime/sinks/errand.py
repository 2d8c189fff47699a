"""Calls that may block in FFmpeg, made by a thread of their own, so that whoever waits for one can leave."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from concurrent.futures import Future
from concurrent.futures import TimeoutError as NotYet
from typing import TypeVar

T = TypeVar("T")

_LOOK_S = 0.05
_GRACE_S = 0.8


class Left(Exception):  # noqa: N818 -- it is no error: somebody asked to leave
    """The call goes on, or has not begun; nobody waits for it any longer."""


class Errand:
    """Calls are made one after another, in order. PyAV gives outputs no time limit and no way to break them off."""

    def __init__(self, name: str) -> None:
        self._calls: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._left = threading.Event()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def do(self, call: Callable[[], T]) -> T:
        """What ``call`` returns or raises; raises Left after ``leave``."""
        future: Future[T] = Future()
        self._calls.put(lambda: _fulfil(future, call))
        while not self._left.is_set():
            try:
                return future.result(_LOOK_S)
            except NotYet:
                if future.done():  # the call itself raised it
                    raise
        raise Left

    def leave(self) -> None:
        """Whoever waits in ``do`` stops waiting, now and later."""
        self._left.set()

    def stop(self, last: Callable[[], None]) -> bool:
        """Make one last call and end; False when it is not over after 0.8 s, and is left to end by itself."""
        self._calls.put(last)
        self._calls.put(None)
        self._thread.join(_GRACE_S)
        return not self._thread.is_alive()

    def _run(self) -> None:
        while (call := self._calls.get()) is not None:
            call()


def _fulfil(future: Future[T], call: Callable[[], T]) -> None:
    try:
        future.set_result(call())
    except BaseException as error:  # noqa: BLE001 -- raised again where it is waited for
        future.set_exception(error)
