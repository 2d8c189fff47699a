"""Pictures in files: one a frame, or one file that always holds the newest."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from ..frame import Emission, FrameSink, StreamInfo
from ..image import refuse_unwritable_suffix, save_image
from ..uri import numbered, numbers_pictures
from .recording import refuse_existing

if TYPE_CHECKING:
    from ..options import StreamOptions

_IN_A_FOLDER = "%05d.png"


class PictureSink(FrameSink):
    """``out/%05d.jpg`` numbers the frames from 0, a folder holds ``00000.png`` and so on, ``out.png`` the newest frame.

    A repeated picture gets no number of its own. Each file is written under another name and renamed, so whoever looks
    finds it whole. Pictures may change their size.
    """

    fixed_size = False

    def __init__(self, path: Path, options: StreamOptions) -> None:
        """Raises UsageError for a suffix that no picture format has."""
        self._numbers = numbers_pictures(path) or not path.suffix or path.is_dir()
        self._path = path / _IN_A_FOLDER if self._numbers and not numbers_pictures(path) else path
        refuse_unwritable_suffix(self._path)
        self._force = options.force
        self._count = 0

    @property
    def description(self) -> str:
        return str(self._path)

    def open(self, info: StreamInfo) -> None:  # noqa: ARG002 -- pictures of any size
        """Raises OutputExistsError without ``force`` when the first picture's name is taken."""
        refuse_existing(self._target(), self._force)
        self._count = 0

    def write(self, emission: Emission) -> None:
        """Raises DiskFullError, and OutputExistsError where a further name turns out to be taken."""
        if self._numbers:
            if emission.repeated:
                return
            refuse_existing(self._target(), self._force)
        save_image(emission.image, self._target())
        self._count += 1

    def interrupt(self) -> None:
        """``write`` waits for nothing but the disk."""

    def close(self) -> None:
        """Every picture is complete already."""

    def _target(self) -> Path:
        return numbered(self._path, self._count) if self._numbers else self._path
