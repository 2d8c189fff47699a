"""When each picture of an output is due: as the source says, and never backwards."""

from __future__ import annotations

import time

from ..frame import Emission

_LEAST_STEP_NS = 1_000_000  # Matroska counts in milliseconds


class Timeline:
    """Presentation times in ns. While the source's times grow they are kept as they are, so a variable rate stays.

    A picture without a time, a repeated one, and one whose time lies before its predecessor's (the source began anew)
    come as long after their predecessor as the clock says.
    """

    def __init__(self) -> None:
        self._last_ns: int | None = None
        self._last_clock_ns = 0
        self._offset_ns = 0

    def place(self, emission: Emission) -> int:
        """The time of this picture, later than that of the one before. The first one's own, or 0 without one."""
        clock_ns = time.monotonic_ns() if emission.repeated else emission.frame.captured_ns
        pts_ns = None if emission.repeated else emission.frame.pts_ns
        due_ns = self._due_ns(pts_ns, clock_ns)
        self._last_ns, self._last_clock_ns = due_ns, clock_ns
        return due_ns

    def _due_ns(self, pts_ns: int | None, clock_ns: int) -> int:
        if self._last_ns is None:
            self._offset_ns = -min(pts_ns or 0, 0)
            return max(pts_ns or 0, 0)
        if pts_ns is not None and pts_ns + self._offset_ns > self._last_ns:
            return pts_ns + self._offset_ns
        due_ns = self._last_ns + max(clock_ns - self._last_clock_ns, _LEAST_STEP_NS)
        if pts_ns is not None:
            self._offset_ns = due_ns - pts_ns
        return due_ns
