"""Pictures in files as a stream: one, a folder of them, or all that match a pattern."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING

from ...engines.errors import ImageError
from ..frame import Frame, Signal
from ..image import load_frame
from ..jobs import pictures_of
from ..options import refuse_given
from .base import Source

if TYPE_CHECKING:
    from ..options import StreamOptions
    from .base import Image


class PictureSource(Source):
    """Not live. ``pts_ns`` is ``index / input_rate``, or None without that option; ``captured_ns``: when it was read.

    The order is that of ``turbo-run``'s pictures (``runtime.jobs``): sorted by path. Among several, a picture that
    cannot be decoded is skipped and counted in ``faults`` as ``corrupt``; when none can be, the last one's ImageError
    is raised.
    """

    def __init__(self, path: Path, description: str, options: StreamOptions) -> None:
        refuse_given("pictures", input_width=options.input_width, input_codec=options.input_codec)
        super().__init__(description, options)
        self._path = path
        self._rate = options.input_rate
        self._paths: list[Path] = []
        self._position = 0
        self._passes = 0
        self._shown = 0
        self._ahead: Image | None = None
        self._last_error: ImageError | None = None

    def open(self) -> None:
        """Raises ImageError or UsageError when there is no picture to read. Decodes the first one."""
        self._refuse_interrupted()
        self._paths = pictures_of(self._path)
        self._position = self._passes = self._shown = 0
        self._ahead = self._next_image()
        if self._ahead is not None:
            self._describe(self._flipped(self._ahead))

    def read(self, timeout: float) -> Frame | Signal:  # noqa: ARG002 -- a file does not keep its reader waiting
        """The next picture; TIMEOUT only after ``interrupt``."""
        if self._interrupted.is_set():
            return Signal.TIMEOUT
        image = self._next_image() if self._ahead is None else self._ahead
        self._ahead = None
        if image is None:
            return Signal.EOS
        pts_ns = None if self._rate is None else round(self._shown * 1e9 / self._rate)
        self._shown += 1
        return self._deliver(image, pts_ns, time.monotonic_ns())

    def close(self) -> None:
        self._paths = []
        self._ahead = None
        self._interrupted.clear()

    def _next_image(self) -> Image | None:
        while self._more():
            path = self._paths[self._position]
            self._position += 1
            try:
                image = load_frame(path)
            except ImageError as error:
                self._faults["corrupt"] += 1
                self._last_error = error
                continue
            self._last_error = None
            return image
        return None

    def _more(self) -> bool:
        """Whether a picture is left, or the first one comes again."""
        if self._position < len(self._paths):
            return True
        if not self._shown and self._ahead is None and self._last_error is not None:
            raise self._last_error
        if not self._paths or (self.options.loop >= 0 and self._passes >= self.options.loop):
            return False
        self._passes += 1
        self._position = 0
        return True
