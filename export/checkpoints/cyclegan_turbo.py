"""CycleGAN-Turbo: one UNet with three disjoint LoRA adapters, and one whole VAE for each direction.

Format: ``src/train_cyclegan_turbo.py`` of GaParmar/img2img-turbo at 86f5414, which also says how to read it
(``CycleGAN_Turbo.load_ckpt_from_state_dict``).
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from .checkpoint import PEFT_DEFAULT_ALPHA, Checkpoint, NetworkDelta
from .keys import names_in, rank_in, refuse_difference, split_lora, tensors_in

if TYPE_CHECKING:
    from torch import Tensor

FAMILY = "cyclegan-turbo"
KEYS = frozenset(
    {
        "l_target_modules_encoder", "l_target_modules_decoder", "l_modules_others", "rank_unet",
        "sd_encoder", "sd_decoder", "sd_other",
        "rank_vae", "vae_lora_target_modules", "sd_vae_enc", "sd_vae_dec",
    }
)  # fmt: skip

_ADAPTERS = (
    ("sd_encoder", "l_target_modules_encoder"),
    ("sd_decoder", "l_target_modules_decoder"),
    ("sd_other", "l_modules_others"),
)
_VAE_PREFIXES = {"a2b": "vae.", "b2a": "vae_b2a."}
_CONV_IN = (
    "unet.conv_in: training changes the base weight, the file stores only its LoRA; the result is that of the "
    "published loader, SD-Turbo's conv_in plus LoRA (img2img-turbo issue 113)"
)


def read(raw: Mapping[str, object], path: Path) -> Checkpoint:
    """Raises KeyMismatchError or CheckpointError."""
    return Checkpoint(FAMILY, path, _unet(raw, path), _vaes(raw, path), omissions=(_CONV_IN,))


def _unet(raw: Mapping[str, object], path: Path) -> NetworkDelta:
    rank = rank_in(raw, "rank_unet", str(path))
    tensors: dict[str, Tensor] = {}
    targets: list[str] = []
    for state_key, targets_key in _ADAPTERS:
        named = tensors_in(raw, state_key, str(path))
        names = names_in(raw, targets_key, str(path))
        _, lora = split_lora(named, f"{path}: {state_key}")
        refuse_difference(names, lora, f"{path}: {state_key} does not hold what {targets_key} lists")
        tensors.update(named)
        targets.extend(names)
    weights, lora = split_lora(tensors, str(path))
    refuse_difference((), weights, f"{path}: the UNet adapters hold whole weights")
    # lora_alpha=rank_unet in load_ckpt_from_state_dict: scale 1.
    return NetworkDelta(weights={}, lora=lora, targets=tuple(targets), lora_scale=1.0, rank=rank)


def _vaes(raw: Mapping[str, object], path: Path) -> dict[str, NetworkDelta]:
    encoder_side, decoder_side = (tensors_in(raw, key, str(path)) for key in ("sd_vae_enc", "sd_vae_dec"))
    refuse_difference(encoder_side, decoder_side, f"{path}: sd_vae_enc and sd_vae_dec hold different keys")
    rank = rank_in(raw, "rank_vae", str(path))
    targets = names_in(raw, "vae_lora_target_modules", str(path))
    vaes: dict[str, NetworkDelta] = {}
    taken: set[str] = set()
    for direction, prefix in _VAE_PREFIXES.items():
        # Both dictionaries hold both VAEs whole; the published loader reads sd_vae_dec last, so it has the last word.
        own = {name: tensor for name, tensor in decoder_side.items() if name.startswith(prefix)}
        taken.update(own)
        weights, lora = split_lora({name[len(prefix) :]: tensor for name, tensor in own.items()}, f"{path}: {prefix}*")
        vaes[direction] = NetworkDelta(weights, lora, targets, PEFT_DEFAULT_ALPHA / rank, rank, complete=True)
    refuse_difference(taken, decoder_side, f"{path}: sd_vae_dec holds more than vae.* and vae_b2a.*")
    return vaes
