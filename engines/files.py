"""Writing that leaves nothing half-made, and reading that can be checked."""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from .errors import DiskFullError, InputError, UsageError

# EFBIG: a file-size limit (ulimit -f) is a full disk to whoever hits it.
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def sha256_of(path: Path) -> str:
    """The file's SHA-256 in hex. Raises InputError when it cannot be read."""
    try:
        with path.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest() if hasattr(hashlib, "file_digest") else _sha256(stream)
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}") from error


def _sha256(stream: object) -> str:
    digest = hashlib.sha256()
    while block := stream.read(1 << 20):  # type: ignore[attr-defined]
        digest.update(block)
    return digest.hexdigest()


@contextmanager
def writing_to(path: Path) -> Iterator[None]:
    """Turn the operating system's complaints about writing ``path`` into typed errors."""
    try:
        yield
    except OSError as error:
        if error.errno in _FULL:
            raise DiskFullError(
                f"no space left to write {path}", hint="free some space, or write elsewhere; what was there is unchanged"
            ) from error
        if error.errno in (errno.ENOTDIR, errno.EEXIST, errno.EISDIR):
            raise UsageError(f"cannot write {path}: a file stands where a folder is needed, or the other way round",
                             hint="choose another output path") from error
        raise UsageError(f"cannot write {path}: {error.strerror}", hint="choose another output path") from error


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary file beside ``path`` to write to; it takes ``path``'s place when the block succeeds, else vanishes."""
    with writing_to(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".partial", dir=path.parent)
        os.close(handle)
        temporary = Path(name)
        try:
            yield temporary
            temporary.chmod(0o666 & ~_umask())
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)


@contextmanager
def replacing_folder(path: Path) -> Iterator[Path]:
    """A temporary folder beside ``path`` to fill; it takes ``path``'s place when the block succeeds, else vanishes.

    An earlier folder at ``path`` stays whole until the new one is complete.
    """
    with writing_to(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(prefix=f".{path.name}.", suffix=".partial", dir=path.parent))
        try:
            temporary.chmod(0o777 & ~_umask())
            yield temporary
            _swap(temporary, path)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)


def _swap(new: Path, place: Path) -> None:
    if not place.exists():
        os.rename(new, place)
        return
    aside = Path(tempfile.mkdtemp(prefix=f".{place.name}.", suffix=".old", dir=place.parent))
    earlier = aside / place.name
    os.rename(place, earlier)
    try:
        os.rename(new, place)
    except BaseException:
        os.rename(earlier, place)
        raise
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
