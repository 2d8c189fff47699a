"""Readers of checkpoints, told apart by the keys they hold, never by their file's name."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

from ...engines.errors import CheckpointError
from . import cyclegan_turbo, pix2pix_turbo
from .checkpoint import Checkpoint
from .torch_file import load_torch_file


class Reader(Protocol):
    """A module that reads one family: the keys that tell it, and how."""

    FAMILY: str
    KEYS: frozenset[str]

    def read(self, raw: Mapping[str, object], path: Path) -> Checkpoint: ...


_READERS: tuple[Reader, ...] = (cyclegan_turbo, pix2pix_turbo)

__all__ = ["Checkpoint", "read_checkpoint"]


def read_checkpoint(path: Path) -> Checkpoint:
    """Read ``path``, of whichever family its keys say. Its tensors stay mapped from disk until they are used.

    Raises UnsafePickleError for a file that would run code, KeyMismatchError for missing, unexpected or misshapen
    keys, CheckpointError for anything else that is no checkpoint.
    """
    raw = load_torch_file(path)
    for reader in _READERS:
        if raw.keys() >= reader.KEYS:
            return reader.read(raw, path)
    closest = max(_READERS, key=lambda reader: len(reader.KEYS & raw.keys()))
    missing = sorted(closest.KEYS - raw.keys())
    raise CheckpointError(
        f"{path} is not a checkpoint of a known family",
        expected=f"the keys of {' or '.join(reader.FAMILY for reader in _READERS)}; closest is {closest.FAMILY}",
        got=f"{len(raw)} keys ({', '.join(sorted(raw)[:5])}); missing {', '.join(missing[:10])}",
        hint="export checkpoints that the img2img-turbo training scripts write; a plain LoRA file is not one",
    )
