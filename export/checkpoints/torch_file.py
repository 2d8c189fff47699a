"""Opening a ``.pkl`` without ever letting it run code."""

from __future__ import annotations

import pickle
import pickletools
import struct
import warnings
import zipfile
from itertools import islice
from pathlib import Path

from ...engines.errors import CheckpointError, UnsafePickleError, first_line

_FORMATS = "a CycleGAN-Turbo or pix2pix-Turbo checkpoint (a torch.save file, whatever its suffix)"

# What torch.load raises on damaged files, found by changing bytes of both of its formats: it is written for whole ones.
_DAMAGE = (
    RuntimeError,
    EOFError,
    ValueError,
    LookupError,
    OSError,
    TypeError,
    AttributeError,
    AssertionError,
    ArithmeticError,
    MemoryError,
    struct.error,
)
_OPENING = 20  # instructions: noise seldom has two that are valid


def load_torch_file(path: Path) -> dict[str, object]:
    """The dictionary in a ``torch.save`` file, tensors on the CPU and mapped from disk where the format allows.

    Only ``weights_only=True`` is ever used: a file that asks for anything but tensors and plain containers is refused
    (UnsafePickleError) without running it. Raises CheckpointError for what is no such file at all.
    """
    _refuse_other_formats(path)
    content = _load(path)
    if not isinstance(content, dict) or not all(isinstance(key, str) for key in content):
        raise CheckpointError(f"{path} is not a checkpoint", expected=_FORMATS, got=f"a saved {type(content).__name__}")
    return content


def _load(path: Path) -> object:
    import torch

    try:
        with warnings.catch_warnings():
            # A plain pickle of a newer protocol: refused below like any other, the warning adds nothing.
            warnings.filterwarnings("ignore", message="Detected pickle protocol")
            return torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
    except pickle.UnpicklingError as error:
        raise (_unsafe if _is_pickle(path, error) else _damaged)(path, error) from error
    except _DAMAGE as error:
        raise _damaged(path, error) from error


def _is_pickle(path: Path, error: Exception) -> bool:
    """Whether a refused file is a pickle at all, and not a web page or noise. It is taken apart, not run."""
    if "Unsupported operand" not in str(error) or zipfile.is_zipfile(path):
        return True
    try:
        with path.open("rb") as stream:
            return sum(1 for _ in islice(pickletools.genops(stream), _OPENING)) > 1
    except ValueError:
        return False


def _unsafe(path: Path, error: Exception) -> UnsafePickleError:
    return UnsafePickleError(
        f"{path} holds pickle instructions beyond plain tensors, which may run code; it was not loaded",
        expected="tensors, numbers, strings, lists and dictionaries only",
        got=_reason(error),
        hint="take the file from its author's own page; if it is yours, save its state_dicts alone with torch.save",
    )


def _damaged(path: Path, error: Exception) -> CheckpointError:
    return CheckpointError(
        f"{path} cannot be read as a checkpoint: it is damaged, cut short or of another format",
        expected=_FORMATS,
        got=f"{path.stat().st_size:,} bytes; {_reason(error)}",
        hint="download it again and compare its size with the server's",
    )


def _reason(error: Exception) -> str:
    """What torch's unpickler itself says, without its advice on how to load the file all the same."""
    inner = error.__context__ if isinstance(error, pickle.UnpicklingError) else None
    reason = first_line(inner or error).partition(" Please use ")[0]
    return "torch.load refuses it" if "weights_only" in reason else reason


def _refuse_other_formats(path: Path) -> None:
    if not path.is_file():
        raise CheckpointError(f"{path} is not a file", expected=_FORMATS, hint="check the path given to --ckpt")
    if path.stat().st_size == 0:
        raise CheckpointError(f"{path} is empty", expected=_FORMATS, hint="download it again")
    if path.suffix == ".safetensors":
        raise CheckpointError(
            f"{path} is a safetensors file: a plain LoRA or a base model, not an image-translation checkpoint",
            expected=_FORMATS,
            got="a .safetensors file, which holds no VAE skip convolutions",
            hint="turbo-export --ckpt day2night.pkl",
        )
