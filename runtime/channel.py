"""Between two threads of a stream: a slot that keeps only the newest item, or a short queue that loses nothing.

Both wake whoever waits when they are closed, so that no thread can be left hanging on one.
"""

from __future__ import annotations

import threading
import time
from abc import ABC, abstractmethod
from collections import deque
from enum import Enum
from typing import Generic, TypeVar

T = TypeVar("T")


class Empty(Enum):
    """What ``get`` returns instead of an item."""

    TIMEOUT = "nothing came in time"
    CLOSED = "nothing will ever come"


class Channel(ABC, Generic[T]):
    """One thread puts, one thread gets; any thread may ``close``."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._items: deque[T] = deque()
        self._ended = False
        self._broken = False

    @abstractmethod
    def put(self, item: T) -> T | None:
        """Hand over ``item``; returns an earlier one that is thereby lost, or ``item`` itself when closed."""

    def get(self, timeout: float) -> T | Empty:
        """The next item, waited for at most ``timeout`` seconds. What was put before ``finish`` still comes."""
        deadline = time.monotonic() + timeout
        with self._changed:
            while not self._items and not self._ended:
                left = deadline - time.monotonic()
                if left <= 0 or not self._changed.wait(left):
                    break
            if not self._items:
                return Empty.CLOSED if self._ended else Empty.TIMEOUT
            item = self._items.popleft()
            self._changed.notify_all()
            return item

    def finish(self) -> None:
        """Nothing more will be put; what is inside may still be had."""
        with self._changed:
            self._ended = True
            self._changed.notify_all()

    def close(self) -> int:
        """Throw away what is inside and refuse what comes; returns how many were thrown away."""
        with self._changed:
            self._ended = self._broken = True
            lost = len(self._items)
            self._items.clear()
            self._changed.notify_all()
            return lost

    def __len__(self) -> int:
        return len(self._items)


class LatestSlot(Channel[T]):
    """Depth one: a newer item replaces one that was not taken yet. For live sources, where age counts."""

    def put(self, item: T) -> T | None:
        with self._changed:
            if self._broken:
                return item
            lost = self._items.popleft() if self._items else None
            self._items.append(item)
            self._changed.notify_all()
            return lost


class BoundedQueue(Channel[T]):
    """Loses nothing: ``put`` waits while ``depth`` items are inside. For files, where every frame counts."""

    def __init__(self, depth: int) -> None:
        super().__init__()
        self._depth = depth

    def put(self, item: T) -> T | None:
        with self._changed:
            while len(self._items) >= self._depth and not self._broken:
                self._changed.wait()
            if self._broken:
                return item
            self._items.append(item)
            self._changed.notify_all()
            return None
