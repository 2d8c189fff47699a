"""Nowhere, for measuring."""

from __future__ import annotations

from ..frame import Emission, FrameSink, StreamInfo


class NullSink(FrameSink):
    """Takes everything at once; ``taken`` counts it."""

    fixed_size = False

    def __init__(self) -> None:
        self.taken = 0

    @property
    def description(self) -> str:
        return "null://"

    def open(self, info: StreamInfo) -> None:
        """Any size and rate."""

    def write(self, emission: Emission) -> None:  # noqa: ARG002 -- it goes nowhere
        self.taken += 1

    def interrupt(self) -> None:
        """``write`` never waits."""

    def close(self) -> None:
        """There is nothing to give back."""
