"""Which hardware a pipeline can use."""

from __future__ import annotations

from enum import Enum

from ...engines.device import Jetson


class Board(Enum):
    """What a machine has for video. All but PC have NVIDIA's decoder, converter (VIC) and memory (NVMM).

    Orin Nano has no hardware encoder ("Software Encode in Orin Nano", Jetson Linux developer guide r36). Thor's decoder
    takes no MJPEG (DeepStream, Gst-nvvideo4linux2).
    """

    PC = "pc"
    ORIN = "orin"
    ORIN_NANO = "orin-nano"
    THOR = "thor"

    @property
    def has_nvmm(self) -> bool:
        return self is not Board.PC

    @property
    def encodes(self) -> bool:
        return self in (Board.ORIN, Board.THOR)

    @property
    def decodes_mjpeg(self) -> bool:
        return self in (Board.ORIN, Board.ORIN_NANO)


def board_of(jetson: Jetson | None) -> Board:
    """The board by its model's name; a Jetson that is neither Nano nor Thor is taken for an Orin."""
    if jetson is None:
        return Board.PC
    model = jetson.model.lower()
    if "thor" in model:
        return Board.THOR
    return Board.ORIN_NANO if "orin nano" in model else Board.ORIN
