"""pix2pix-Turbo, deterministic and stochastic: LoRA on UNet and VAE, a trained ``conv_in``, four skip convolutions.

Format: ``Pix2Pix_Turbo.save_model`` in ``src/pix2pix_turbo.py`` of GaParmar/img2img-turbo at 86f5414. The stochastic
variant (sketch to image) replaces ``conv_in`` by a TwinConv.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from .checkpoint import PEFT_DEFAULT_ALPHA, SKIP_CONVS, Checkpoint, NetworkDelta, TwinConv
from .keys import names_in, rank_in, refuse_difference, split_lora, tensors_in

if TYPE_CHECKING:
    from torch import Tensor

FAMILY = "pix2pix-turbo"
KEYS = frozenset(
    {
        "unet_lora_target_modules",
        "vae_lora_target_modules",
        "rank_unet",
        "rank_vae",
        "state_dict_unet",
        "state_dict_vae",
    }
)

_CONV_IN = ("conv_in.weight", "conv_in.bias")
_TWIN = (
    "conv_in.conv_in_pretrained.weight",
    "conv_in.conv_in_pretrained.bias",
    "conv_in.conv_in_curr.weight",
    "conv_in.conv_in_curr.bias",
)


def read(raw: Mapping[str, object], path: Path) -> Checkpoint:
    """Raises KeyMismatchError or CheckpointError."""
    weights, lora = split_lora(tensors_in(raw, "state_dict_unet", str(path)), f"{path}: state_dict_unet")
    stochastic = any(name in weights for name in _TWIN)
    refuse_difference(
        _TWIN if stochastic else _CONV_IN, weights, f"{path}: state_dict_unet must hold conv_in (or twins) and LoRA",
        hint="forks that save the full UNet are not supported; save LoRA and conv_in as the published code does",
    )  # fmt: skip
    twin = TwinConv(*(weights[name] for name in _TWIN)) if stochastic else None
    unet = _delta(raw, "unet", {} if stochastic else weights, lora, path)
    return Checkpoint(FAMILY, path, unet, {"": _vae(raw, path)}, twin_conv=twin)


def _vae(raw: Mapping[str, object], path: Path) -> NetworkDelta:
    weights, lora = split_lora(tensors_in(raw, "state_dict_vae", str(path)), f"{path}: state_dict_vae")
    expected = [f"{name}.weight" for name in SKIP_CONVS]
    refuse_difference(expected, weights, f"{path}: state_dict_vae must hold the four skip convolutions and LoRA")
    return _delta(raw, "vae", weights, lora, path)


def _delta(
    raw: Mapping[str, object], network: str, weights: dict[str, Tensor], lora: Mapping[str, object], path: Path
) -> NetworkDelta:
    rank = rank_in(raw, f"rank_{network}", str(path))
    targets = names_in(raw, f"{network}_lora_target_modules", str(path))
    # LoraConfig without lora_alpha: alpha 8, so scale 2 at rank 4, 1 at rank 8, 0.0625 at rank 128.
    return NetworkDelta(weights, lora, targets, PEFT_DEFAULT_ALPHA / rank, rank)  # type: ignore[arg-type]
