"""Opening a ``.pkl`` without ever letting it run code."""

from __future__ import annotations

import pickle
import warnings
import zipfile
from pathlib import Path

from ...engines.errors import CheckpointError, UnsafePickleError, first_line

_FORMATS = "a CycleGAN-Turbo or pix2pix-Turbo checkpoint (a torch.save file, whatever its suffix)"


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
        raise _unsafe(path, error) from error
    except (RuntimeError, EOFError, ValueError, KeyError, IndexError, OSError) as error:
        raise _damaged(path, error) from error


def _unsafe(path: Path, error: Exception) -> UnsafePickleError:
    wanted = next((line.strip() for line in str(error).splitlines() if "nsupported" in line), str(error))
    return UnsafePickleError(
        f"{path} holds pickle instructions beyond plain tensors, which may run code; it was not loaded",
        expected="tensors, numbers, strings, lists and dictionaries only",
        got=wanted[:300],
        hint="take the file from its author's own page; if it is yours, save its state_dicts alone with torch.save",
    )


def _damaged(path: Path, error: Exception) -> CheckpointError:
    return CheckpointError(
        f"{path} cannot be read as a checkpoint: it is damaged, cut short or of another format",
        expected=_FORMATS,
        got=f"{path.stat().st_size:,} bytes; {first_line(error)}",
        hint="download it again and compare its size with the server's",
    )


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
