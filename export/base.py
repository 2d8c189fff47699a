"""The base model, SD-Turbo or a relative: a diffusers folder on this disk, or a hub id."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..engines.errors import BaseModelError, MissingComponentError, first_line
from ..engines.files import sha256_of

if TYPE_CHECKING:
    from diffusers import AutoencoderKL, UNet2DConditionModel

DEFAULT_BASE = "stabilityai/sd-turbo"

# The text encoder's and UNet's alternatives (fp16, flax, onnx, single-file) are left on the server.
_FILES = (
    "model_index.json",
    "scheduler/scheduler_config.json",
    "text_encoder/config.json",
    "text_encoder/model.safetensors",
    "tokenizer/*",
    "unet/config.json",
    "unet/diffusion_pytorch_model.safetensors",
    "vae/config.json",
    "vae/diffusion_pytorch_model.safetensors",
)
_NEEDED = (
    "scheduler/scheduler_config.json",
    "text_encoder/config.json",
    "unet/config.json",
    "vae/config.json",
)


@dataclass(frozen=True)
class BaseModel:
    """A base model's folder. ``name`` is what the user wrote, ``revision`` identifies its content."""

    name: str
    folder: Path
    revision: str

    @property
    def scheduler_config(self) -> Path:
        return self.folder / "scheduler" / "scheduler_config.json"

    def unet(self) -> UNet2DConditionModel:
        """The UNet in FP32 on the CPU, in evaluation mode. Raises BaseModelError."""
        from diffusers import UNet2DConditionModel

        return self._load(UNet2DConditionModel, "unet")

    def vae(self) -> AutoencoderKL:
        """The VAE in FP32 on the CPU, in evaluation mode. Raises BaseModelError."""
        from diffusers import AutoencoderKL

        return self._load(AutoencoderKL, "vae")

    def _load(self, kind: Any, subfolder: str) -> Any:
        import torch

        try:
            network, info = kind.from_pretrained(
                self.folder, subfolder=subfolder, torch_dtype=torch.float32, low_cpu_mem_usage=True,
                output_loading_info=True, local_files_only=True, use_safetensors=True,
            )  # fmt: skip
        except (OSError, ValueError, RuntimeError, KeyError, ImportError) as error:
            raise BaseModelError(
                f"{self.folder / subfolder} cannot be loaded as SD-Turbo's {subfolder}: {first_line(error)}",
                expected=f"a diffusers folder with {subfolder}/config.json and safetensors weights",
                hint=f"--base {DEFAULT_BASE}, or a folder saved by diffusers' save_pretrained",
            ) from error
        wrong = {kind: names for kind, names in info.items() if names}
        if wrong:
            raise BaseModelError(f"{self.folder / subfolder}: the weights do not fit the config", got=str(wrong)[:500])
        network.requires_grad_(requires_grad=False)
        return network.eval()


def open_base(name: str) -> BaseModel:
    """The base model called ``name``: a folder, else a hub id, downloaded or taken from the hub's cache.

    Raises BaseModelError for a folder that is no base model, MissingComponentError when a hub id cannot be had.
    """
    folder = Path(name)
    if folder.is_dir():
        revision = None
    elif name.count("/") == 1 and not name.startswith((".", "/", "~")):
        folder = _from_hub(name)
        revision = folder.name
    else:
        raise BaseModelError(
            f"--base {name} is neither a folder nor a hub id",
            expected=f"a diffusers folder, or an id such as {DEFAULT_BASE}",
            hint="check the path given to --base",
        )
    missing = [file for file in _NEEDED if not (folder / file).is_file()]
    if missing:
        raise BaseModelError(
            f"{folder} is not a complete base model",
            expected="a diffusers folder (unet, vae, text_encoder, tokenizer, scheduler)",
            got=f"missing {', '.join(missing)}",
            hint=f"huggingface-cli download {DEFAULT_BASE} --local-dir sd-turbo && turbo-export --base sd-turbo …",
        )
    return BaseModel(name, folder, revision or _content_hash(folder))


def _from_hub(repository: str) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(repository, allow_patterns=list(_FILES)))
    except (LocalEntryNotFoundError, HfHubHTTPError, OSError, ValueError) as error:
        raise MissingComponentError(
            f"the base model {repository} is not on this machine and could not be downloaded",
            expected="a network connection, or the model in the hub's cache, or its folder",
            got=f"{type(error).__name__}: {first_line(error)}",
            hint=f"on a machine with network: huggingface-cli download {repository} --local-dir sd-turbo; "
            "copy the folder here and add --base sd-turbo",
        ) from error


def _content_hash(folder: Path) -> str:
    """One SHA-256 over the configurations and weights that an export reads, so that two bases can be told apart."""
    files = sorted(
        path for path in folder.rglob("*") if path.suffix in (".json", ".safetensors", ".txt") and path.is_file()
    )
    listing = {path.relative_to(folder).as_posix(): sha256_of(path) for path in files}
    return "sha256:" + hashlib.sha256(json.dumps(listing, sort_keys=True).encode()).hexdigest()
