"""What flows through a stream, and the two ends of it: the contracts that every source and every sink keeps.

Times are nanoseconds of ``time.monotonic_ns()``: they never jump, and mean nothing outside this boot of this machine.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from types import TracebackType
from typing import TYPE_CHECKING

from ..engines.opening import Openable

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from typing_extensions import Self


@dataclass(frozen=True)
class Frame:
    """One frame as it was captured: ``image`` is uint8 RGB ``[H, W, 3]``, C-contiguous, read-only by agreement.

    ``index`` counts what the source has delivered since it was first opened, from 0, reconnections included.
    ``pts_ns`` is the presentation time the source gave it, from the start of the stream; None where it gives none.
    ``captured_ns`` is when it was captured, as nearly as the source can tell.
    """

    image: NDArray[np.uint8]
    index: int
    pts_ns: int | None
    captured_ns: int


class Signal(Enum):
    """What ``read`` returns instead of a frame: nothing yet, or nothing ever again."""

    TIMEOUT = "timeout"
    EOS = "end of stream"


@dataclass(frozen=True)
class StreamInfo:
    """``rate`` in frames per second, None when unknown. ``description``: what was opened, without credentials."""

    width: int
    height: int
    rate: float | None
    description: str


class FrameSource(Openable):
    """Frames from somewhere. One thread reads; ``interrupt`` may come from any other.

    ``live`` sources produce frames whether anybody reads or not: of them the newest frame counts, and their end is a
    fault. The others wait, and lose nothing. What a URL leads to is known only once it is open. An interruption holds
    until ``close``.
    """

    live: bool

    @property
    def faults(self) -> Mapping[str, int]:
        """What was lost or repaired inside the source, by reason; ``superseded``: replaced by a newer frame."""
        return {}

    @property
    @abstractmethod
    def info(self) -> StreamInfo:
        """What the source delivers now; it may change in mid-stream. Known only while open."""

    @abstractmethod
    def open(self) -> None:
        """Connect. Raises SourceError when it cannot be reached; InputError for a file that cannot be used."""

    @abstractmethod
    def read(self, timeout: float) -> Frame | Signal:
        """The next frame, or TIMEOUT after ``timeout`` seconds, or EOS. The caller owns the frame's memory.

        Raises SourceError when the source fails; it is then to be closed, and may be opened again.
        """

    @abstractmethod
    def interrupt(self) -> None:
        """Make a ``read`` or ``open`` in progress return or raise within half a second. Safe from any thread."""

    @abstractmethod
    def close(self) -> None:
        """Give everything back. No effect when closed. Takes at most a second, whatever the far end does."""


@dataclass(frozen=True)
class Emission:
    """A translated frame on its way out: ``image`` is uint8 RGB ``[H, W, 3]``; ``frame`` is what it was made from.

    ``repeated`` says that ``image`` is the last picture again, or the NO SIGNAL card, because nothing newer exists.
    ``stands_in`` says that it is the last good picture in the place of the bad one that came of ``frame``
    (``guard.py``): for a sink a picture like any other, with the frame's own time and number.
    """

    image: NDArray[np.uint8]
    frame: Frame
    repeated: bool = False
    stands_in: bool = False


class FrameSink(ABC):
    """Pictures to somewhere. One thread writes; ``interrupt`` may come from any other.

    ``fixed_size`` says that every picture must have the size that the sink was opened for, as in a video file.
    """

    fixed_size: bool = True

    @property
    @abstractmethod
    def description(self) -> str:
        """Where the pictures go, without credentials."""

    @abstractmethod
    def open(self, info: StreamInfo) -> None:
        """Prepare for pictures of this size, at about this rate. Raises SinkError, UsageError, OutputExistsError."""

    @abstractmethod
    def write(self, emission: Emission) -> None:
        """Take one picture; its memory stays the caller's. Raises SinkError, DiskFullError."""

    @abstractmethod
    def interrupt(self) -> None:
        """Make a ``write`` in progress return or raise within half a second. Safe from any thread."""

    @abstractmethod
    def close(self) -> None:
        """Finish what was written, so that it can be played, and give everything back. At most a second or so."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()
