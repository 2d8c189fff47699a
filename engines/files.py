"""Writing that leaves nothing half-made, and reading that can be checked."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from .errors import DiskFullError, InputError, UsageError

# EFBIG: a file-size limit (ulimit -f) is a full disk to whoever hits it.
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def sha256_of(path: Path) -> str:
    """The file's SHA-256 in hex. Raises InputError when it cannot be read."""
    try:
        with path.open("rb") as stream:
            return (
                hashlib.file_digest(stream, "sha256").hexdigest()
                if hasattr(hashlib, "file_digest")
                else _sha256(stream)
            )
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
        with filling_disk(path):
            yield
    except OSError as error:
        what = f"cannot write {path}: {error.strerror or error}"
        if error.errno in (errno.ENOTDIR, errno.EEXIST, errno.EISDIR):
            what = f"cannot write {path}: a file stands where a folder is needed, or the other way round"
        raise UsageError(what, hint="choose another output path") from error


@contextmanager
def filling_disk(path: Path) -> Iterator[None]:
    """Turn a disk that fills up while ``path`` is written into DiskFullError; any other OSError passes."""
    try:
        yield
    except OSError as error:
        # numpy's tofile says "N requested and M written" and no errno.
        if error.errno in _FULL or "requested and" in str(error):
            raise DiskFullError(
                f"no space left to write {path}",
                hint="free some space, or write elsewhere; what was there is unchanged",
            ) from error
        raise


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary file beside ``path`` to write; it takes ``path``'s place when the block succeeds, else vanishes."""
    with writing_to(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".partial", dir=path.parent)
        os.close(handle)
        temporary = Path(name)
        try:
            yield temporary
            temporary.chmod(0o666 & ~_umask())
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)


def write_json(path: Path, document: Any, indent: int = 1) -> None:
    """Write ``document`` as JSON to ``path``, whole or not at all."""
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(document, indent=indent) + "\n", encoding="utf-8")


@contextmanager
def replacing_folder(path: Path) -> Iterator[Path]:
    """A temporary folder beside ``path`` to fill; it takes ``path``'s place when the block succeeds, else vanishes.

    An earlier folder at ``path`` stays whole until the new one is complete.
    """
    with writing_to(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(prefix=f".{path.name}.", suffix=".partial", dir=path.parent))
        temporary.chmod(0o777 & ~_umask())
    try:
        with filling_disk(path):
            yield temporary
        with writing_to(path):
            _swap(temporary, path)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _swap(new: Path, place: Path) -> None:
    if not place.exists():
        new.rename(place)
        return
    aside = Path(tempfile.mkdtemp(prefix=f".{place.name}.", suffix=".old", dir=place.parent))
    earlier = aside / place.name
    place.rename(earlier)
    try:
        new.rename(place)
    except BaseException:
        earlier.rename(place)
        raise
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
