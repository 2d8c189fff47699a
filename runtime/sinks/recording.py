"""The file under a recording: never lost, whenever the power goes."""

from __future__ import annotations

import os
import time
from pathlib import Path

from ...engines.errors import OutputExistsError
from ...engines.files import writing_to

# How often what the kernel holds back is put on the disk.
_SYNC_EVERY_S = 1.0
_FRAGMENT, _SKIPPED = b"moof", b"free"  # ISO/IEC 14496-12, 8.8.4 and 8.1.2


def refuse_existing(path: Path, force: bool) -> None:
    """Raise OutputExistsError when ``path`` is taken and may not be replaced."""
    if not force and (path.exists() or path.is_symlink()):
        raise OutputExistsError(f"{path} exists", hint="add --force to replace it, or choose another output")


class RecordingFile:
    """Written as ``name.part.mp4`` beside ``name.mp4``, which it becomes by ``publish``.

    What a power cut leaves is therefore called ``.part``; it can be played. It is never overwritten: the next recording
    of this name is written to ``name.part2.mp4``. A file object as PyAV wants it; what is written reaches the disk a
    second later.

    FFmpeg opens no MP4 that ends within a ``moof`` box. So that box is written with the type ``free``, which readers
    skip, and gets its own type once its fragment is on the disk. A fragment has to begin with a call of ``write``.
    """

    def __init__(self, path: Path) -> None:
        """Raises UsageError, DiskFullError."""
        self.path = path
        with writing_to(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            self.part, self._descriptor = _created_part(path)
        self.name = str(self.part)
        self.failure: OSError | None = None
        self._unsettled: list[int] = []  # where the types of boxes stand
        self._settled = time.monotonic()

    def write(self, data: bytes) -> int:
        """All of ``data``. After a failure nothing more is written, so that what is there stays as it is."""
        if self.failure is not None:
            raise self.failure
        try:
            self._settle_sometimes(data)
            if data[4:8] == _FRAGMENT:
                self._unsettled.append(self.tell() + 4)
                data = data[:4] + _SKIPPED + data[8:]
            self._write_all(memoryview(data))
        except OSError as error:
            self.failure = error
            raise
        return len(data)

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        return os.lseek(self._descriptor, offset, whence)

    def tell(self) -> int:
        return os.lseek(self._descriptor, 0, os.SEEK_CUR)

    def close(self) -> None:
        """On the disk, and closed; a second call has no effect. What a failure cut short is taken off the end."""
        if self._descriptor < 0:
            return
        try:
            if self.failure is not None and self._unsettled:
                os.ftruncate(self._descriptor, self._unsettled.pop() - 4)
            self._settle()
            os.fsync(self._descriptor)
        finally:
            descriptor, self._descriptor = self._descriptor, -1
            os.close(descriptor)

    def publish(self, *, force: bool) -> None:
        """Take the final name. Raises OutputExistsError when another file has taken it meanwhile."""
        try:
            refuse_existing(self.path, force)
        except OutputExistsError as error:
            error.hint = f"the recording is complete in {self.part}"
            raise
        with writing_to(self.path):
            self.part.replace(self.path)

    def discard(self) -> None:
        """Remove a recording that holds nothing."""
        self.part.unlink(missing_ok=True)

    def _write_all(self, data: memoryview) -> None:
        while data:
            data = data[os.write(self._descriptor, data) :]

    def _settle_sometimes(self, data: bytes) -> None:
        """Before ``data`` is written: only where it begins a fragment are all earlier ones complete."""
        if time.monotonic() - self._settled > _SYNC_EVERY_S and (data[4:8] == _FRAGMENT or not self._unsettled):
            self._settle()

    def _settle(self) -> None:
        """Every fragment until now is complete: put it on the disk, and only then say that it is there."""
        os.fdatasync(self._descriptor)
        for place in self._unsettled:
            os.pwrite(self._descriptor, _FRAGMENT, place)
        self._unsettled.clear()
        self._settled = time.monotonic()


def _created_part(path: Path) -> tuple[Path, int]:
    number = 1
    while True:
        part = path.with_name(f"{path.stem}.part{number if number > 1 else ''}{path.suffix}")
        try:
            return part, os.open(part, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
        except FileExistsError:
            number += 1
