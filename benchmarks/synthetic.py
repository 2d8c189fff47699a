"""Base models and checkpoints with random weights in the real formats, at any size: for tests and for full-size runs.

The classes, key names and scales are the real ones (``export/checkpoints`` says where they come from); only the
numbers in the tensors mean nothing.
"""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..export.demo import demo_base

if TYPE_CHECKING:
    from torch import Generator, Tensor, nn

UNET_TARGETS = (
    "to_k", "to_q", "to_v", "to_out.0", "conv", "conv1", "conv2", "conv_shortcut", "conv_out", "proj_in", "proj_out",
    "ff.net.2", "ff.net.0.proj",
)  # fmt: skip
VAE_TARGETS = (
    "conv1", "conv2", "conv_in", "conv_shortcut", "conv", "conv_out", "skip_conv_1", "skip_conv_2", "skip_conv_3",
    "skip_conv_4", "to_k", "to_q", "to_v", "to_out.0",
)  # fmt: skip

# Small enough that a random delta does not drown the base weights, large enough that a lost one shows.
_LORA_SPREAD = 0.05
_SKIP_SPREAD = 0.02


@dataclass(frozen=True)
class Architecture:
    """What tells SD-Turbo from its tiny twin. Channels per resolution; ``text`` is (width, layers, heads)."""

    unet_channels: tuple[int, ...]
    unet_heads: tuple[int, ...]
    vae_channels: tuple[int, ...]
    norm_groups: int
    text: tuple[int, int, int]
    vocabulary: int


SD_TURBO = Architecture((320, 640, 1280, 1280), (5, 10, 20, 20), (128, 256, 512, 512), 32, (1024, 23, 16), 49408)
TINY = Architecture((8, 16, 16, 16), (2, 2, 2, 2), (8, 8, 16, 16), 4, (16, 1, 2), 520)


def write_base(folder: Path, architecture: Architecture, seed: int = 0) -> None:
    """A diffusers folder as stabilityai/sd-turbo's, in FP32 safetensors: 4.8 GB at SD-Turbo's own size."""
    import torch
    from diffusers import AutoencoderKL, UNet2DConditionModel
    from transformers import CLIPTextModel

    torch.manual_seed(seed)
    for part in ("tokenizer", "scheduler"):
        shutil.copytree(demo_base() / part, folder / part, dirs_exist_ok=True)
    shutil.copy(demo_base() / "model_index.json", folder)
    UNet2DConditionModel(**_unet_config(architecture)).save_pretrained(folder / "unet")
    AutoencoderKL(**_vae_config(architecture)).save_pretrained(folder / "vae")
    CLIPTextModel(_text_config(architecture)).save_pretrained(folder / "text_encoder")


def write_cyclegan(
    base: Path, path: Path, *, rank_unet: int = 8, rank_vae: int = 4, seed: int = 1, old_names: bool = False
) -> None:
    """A CycleGAN-Turbo checkpoint for ``base``. ``old_names``: as peft up to 0.6.2 wrote it, no ``.base_layer``."""
    import torch

    random = torch.Generator().manual_seed(seed)
    unet, vae = on_meta(base, "unet"), on_meta(base, "vae")
    layers = [name for name in _layers(unet) if _is_target(name, (*UNET_TARGETS, "conv_in"))]
    parts = {
        "encoder": [name for name in layers if name.startswith(("down_blocks", "conv_in"))],
        "decoder": [name for name in layers if name.startswith("up_blocks")],
        "other": [name for name in layers if name.startswith(("mid_block", "conv_out"))],
    }
    whole = {}
    for prefix in ("vae.", "vae_b2a."):
        state = _whole_vae(base, vae, rank_vae, random, old_names=old_names)
        whole.update({prefix + name: tensor for name, tensor in state.items()})
    content: dict[str, Any] = {
        "l_target_modules_encoder": parts["encoder"],
        "l_target_modules_decoder": parts["decoder"],
        "l_modules_others": parts["other"],
        "rank_unet": rank_unet,
        "rank_vae": rank_vae,
        "vae_lora_target_modules": list(VAE_TARGETS),
        "sd_vae_enc": whole,
        "sd_vae_dec": whole,
    }
    for part, names in parts.items():
        content[f"sd_{part}"] = _lora(unet, names, rank_unet, random, adapter="")
    torch.save(content, path)


def write_pix2pix(
    base: Path, path: Path, *, rank_unet: int = 8, rank_vae: int = 4, seed: int = 2, stochastic: bool = False
) -> None:
    """A pix2pix-Turbo checkpoint for ``base``; ``stochastic`` with a TwinConv, as sketch-to-image has it."""
    import torch

    random = torch.Generator().manual_seed(seed)
    unet, vae = on_meta(base, "unet"), on_meta(base, "vae")
    unet_layers = [name for name in _layers(unet) if _is_target(name, UNET_TARGETS)]
    vae_layers = [name for name in _layers(vae) if _is_target(name, VAE_TARGETS)]
    state_unet = _lora(unet, unet_layers, rank_unet, random, adapter=".default")
    for name in ("conv_in.conv_in_pretrained", "conv_in.conv_in_curr") if stochastic else ("conv_in",):
        state_unet[f"{name}.weight"] = _randn(random, unet.get_parameter("conv_in.weight").shape, 0.1)
        state_unet[f"{name}.bias"] = _randn(random, unet.get_parameter("conv_in.bias").shape, 0.1)
    state_vae = _lora(vae, vae_layers, rank_vae, random, adapter=".vae_skip")
    state_vae.update(_skips(vae, random, ".base_layer"))
    torch.save(
        {
            "unet_lora_target_modules": list(UNET_TARGETS),
            "vae_lora_target_modules": list(VAE_TARGETS),
            "rank_unet": rank_unet,
            "rank_vae": rank_vae,
            "state_dict_unet": state_unet,
            "state_dict_vae": state_vae,
        },
        path,
    )


def _whole_vae(base: Path, vae: nn.Module, rank: int, random: Generator, *, old_names: bool) -> dict[str, Tensor]:
    from safetensors.torch import load_file

    layers = [name for name in _layers(vae) if _is_target(name, VAE_TARGETS)]
    own = ".base_layer" if not old_names else ""
    renamed = {
        name
        if (module := name.rpartition(".")[0]) not in layers
        else f"{module}{own}.{name.rpartition('.')[2]}": tensor
        for name, tensor in load_file(base / "vae" / "diffusion_pytorch_model.safetensors").items()
    }
    return {**renamed, **_skips(vae, random, own), **_lora(vae, layers, rank, random, adapter=".vae_skip")}


def _skips(vae: nn.Module, random: Generator, own: str) -> dict[str, Tensor]:
    return {
        f"decoder.skip_conv_{i}{own}.weight": _randn(
            random, vae.get_parameter(f"decoder.skip_conv_{i}.weight").shape, _SKIP_SPREAD
        )
        for i in (1, 2, 3, 4)
    }


def _lora(network: nn.Module, layers: list[str], rank: int, random: Generator, *, adapter: str) -> dict[str, Tensor]:
    state = {}
    for name in layers:
        weight = network.get_parameter(f"{name}.weight")
        out, *inner = weight.shape
        state[f"{name}.lora_A{adapter}.weight"] = _randn(random, (rank, *inner), _LORA_SPREAD)
        state[f"{name}.lora_B{adapter}.weight"] = _randn(random, (out, rank, *(1 for _ in inner[1:])), _LORA_SPREAD)
    return state


def _randn(random: Generator, shape: Any, spread: float) -> Tensor:
    import torch

    return torch.randn(tuple(shape), generator=random) * spread


def on_meta(base: Path, part: str) -> nn.Module:
    """The network's structure without its weights, the VAE with its skip convolutions."""
    import torch
    from diffusers import AutoencoderKL, UNet2DConditionModel

    from ..export.lora import add_skip_convs

    config = json.loads((base / part / "config.json").read_text(encoding="utf-8"))
    with torch.device("meta"):
        if part == "unet":
            return UNet2DConditionModel.from_config(config)  # type: ignore[no-any-return]
        vae = AutoencoderKL.from_config(config)
        add_skip_convs(vae)
    return vae  # type: ignore[no-any-return]


def _layers(network: nn.Module) -> list[str]:
    import torch

    return [name for name, m in network.named_modules() if isinstance(m, torch.nn.Linear | torch.nn.Conv2d)]


def _is_target(name: str, targets: tuple[str, ...]) -> bool:
    return name in targets or name.endswith(tuple(f".{target}" for target in targets))


def _unet_config(a: Architecture) -> dict[str, Any]:
    return {
        "block_out_channels": a.unet_channels, "attention_head_dim": a.unet_heads, "cross_attention_dim": a.text[0],
        "norm_num_groups": a.norm_groups, "layers_per_block": 2, "in_channels": 4, "out_channels": 4, "sample_size": 64,
        "use_linear_projection": True,
        "down_block_types": ("CrossAttnDownBlock2D",) * 3 + ("DownBlock2D",),
        "up_block_types": ("UpBlock2D",) + ("CrossAttnUpBlock2D",) * 3,
    }  # fmt: skip


def _vae_config(a: Architecture) -> dict[str, Any]:
    return {
        "block_out_channels": a.vae_channels, "norm_num_groups": a.norm_groups, "layers_per_block": 2,
        "latent_channels": 4, "sample_size": 512, "scaling_factor": 0.18215,
        "down_block_types": ("DownEncoderBlock2D",) * 4, "up_block_types": ("UpDecoderBlock2D",) * 4,
    }  # fmt: skip


def _text_config(a: Architecture) -> Any:
    from transformers import CLIPTextConfig

    width, layers, heads = a.text
    return CLIPTextConfig(
        hidden_size=width, intermediate_size=4 * width, num_hidden_layers=layers, num_attention_heads=heads,
        vocab_size=a.vocabulary, max_position_embeddings=77, hidden_act="gelu",
        bos_token_id=518, eos_token_id=519, pad_token_id=0,
    )  # fmt: skip
