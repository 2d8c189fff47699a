"""Write the trained demo network as a base folder and a CycleGAN-Turbo checkpoint.

The trained weights W are divided as a real checkpoint divides them: LoRA carries half of the `rank` strongest singular
directions of each targeted weight, the base the remainder, so that base + scale * B @ A = W and either alone is a
different network. All tensors are FP16. Imports torch: for `train.py` only.
"""

from __future__ import annotations

import copy
import json
from dataclasses import dataclass
from pathlib import Path

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from peft import LoraConfig
from peft.tuners.lora import LoraLayer
from torch import Tensor, nn

from . import network

State = dict[str, Tensor]
_ADAPTERS = ("default_encoder", "default_decoder", "default_others")
_SCHEDULER = {
    "_class_name": "EulerDiscreteScheduler",
    "_diffusers_version": "0.24.0.dev0",
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "beta_start": 0.00085,
    "clip_sample": False,
    "interpolation_type": "linear",
    "num_train_timesteps": 1000,
    "prediction_type": "epsilon",
    "sample_max_value": 1.0,
    "set_alpha_to_one": False,
    "skip_prk_steps": True,
    "steps_offset": 1,
    "timestep_spacing": "trailing",
    "trained_betas": None,
    "use_karras_sigmas": False,
}
_INDEX = {
    "_class_name": "StableDiffusionPipeline",
    "_diffusers_version": "0.24.0.dev0",
    "scheduler": ["diffusers", "EulerDiscreteScheduler"],
    "text_encoder": ["transformers", "CLIPTextModel"],
    "tokenizer": ["transformers", "CLIPTokenizer"],
    "unet": ["diffusers", "UNet2DConditionModel"],
    "vae": ["diffusers", "AutoencoderKL"],
    "feature_extractor": [None, None],
    "safety_checker": [None, None],
    "requires_safety_checker": False,
}


@dataclass(frozen=True)
class Parts:
    """The divided network: both VAEs and the UNet with their adapters, values already rounded to FP16."""

    vae: AutoencoderKL
    vae_b2a: AutoencoderKL
    unet: UNet2DConditionModel
    targets: tuple[list[str], list[str], list[str]]


def split(vae: AutoencoderKL, unet: UNet2DConditionModel) -> Parts:
    """Divide trained weights into FP16 base and LoRA (see the module docstring)."""
    vae, unet = copy.deepcopy(vae), copy.deepcopy(unet)
    for parameter in (*vae.parameters(), *unet.parameters()):
        parameter.data = parameter.data.half().float()
    targets = network.unet_targets(unet)
    vae.add_adapter(LoraConfig(r=network.RANK_VAE, target_modules=network.VAE_TARGETS), adapter_name="vae_skip")
    for name, modules in zip(_ADAPTERS, targets, strict=True):
        rank = network.RANK_UNET
        unet.add_adapter(LoraConfig(r=rank, target_modules=modules, lora_alpha=rank), adapter_name=name)
    unet.set_adapter(list(_ADAPTERS))
    _divide(vae, network.SCALE_VAE)
    _divide(unet, network.SCALE_UNET)
    return Parts(vae=vae, vae_b2a=copy.deepcopy(vae), unet=unet, targets=targets)


def _divide(model: nn.Module, scale: float) -> None:
    for module in model.modules():
        if not isinstance(module, LoraLayer):
            continue
        (adapter,) = module.lora_A.keys()
        down, up = module.lora_A[adapter].weight, module.lora_B[adapter].weight
        weight = module.base_layer.weight
        u, s, vh = torch.linalg.svd(weight.data.flatten(1).double(), full_matrices=False)
        rank = min(down.shape[0], s.numel())
        root = (0.5 * s[:rank] / scale).sqrt()
        down.data.zero_()
        up.data.zero_()
        down.data[:rank] = (root[:, None] * vh[:rank]).reshape(rank, *down.shape[1:]).half().float()
        up.data[:, :rank] = (u[:, :rank] * root).reshape(up.shape[0], rank, *up.shape[2:]).half().float()
        delta = scale * (up.data.flatten(1) @ down.data.flatten(1)).reshape(weight.shape)
        weight.data = (weight.data - delta).half().float()


def write(parts: Parts, out: Path) -> None:
    """Write `base/` (unet, vae, scheduler, model_index.json) and `day2night_demo.pkl` into `out`."""
    base = out / "base"
    _write_model(parts.unet, network.make_unet(), base / "unet")
    _write_model(parts.vae, network.make_vae(skips=False), base / "vae")
    (base / "scheduler").mkdir(parents=True, exist_ok=True)
    (base / "scheduler" / "scheduler_config.json").write_text(json.dumps(_SCHEDULER, indent=1))
    (base / "model_index.json").write_text(json.dumps(_INDEX, indent=1))
    torch.save(_checkpoint(parts), out / "day2night_demo.pkl")


def _write_model(source: nn.Module, plain: AutoencoderKL | UNet2DConditionModel, folder: Path) -> None:
    """Save the base weights of `source`, without adapters and skip convolutions, under the names of `plain`."""
    state = {k.replace(".base_layer.", "."): v for k, v in source.state_dict().items() if "lora_" not in k}
    plain.load_state_dict({k: v for k, v in state.items() if "skip_conv" not in k})
    plain.half().save_pretrained(folder, safe_serialization=True)


def _checkpoint(parts: Parts) -> dict[str, object]:
    """The 11 keys of img2img-turbo's src/train_cyclegan_turbo.py. Equal tensors share one storage."""
    vaes: State = {}
    for name, tensor in parts.vae.state_dict().items():
        vaes[f"vae.{name}"] = tensor.half()
    for name, tensor in parts.vae_b2a.state_dict().items():
        half, twin = tensor.half(), vaes[f"vae.{name}"]
        vaes[f"vae_b2a.{name}"] = twin if torch.equal(half, twin) else half
    loras = [_adapter_state(parts.unet, name) for name in _ADAPTERS]
    return {
        "l_target_modules_encoder": parts.targets[0],
        "l_target_modules_decoder": parts.targets[1],
        "l_modules_others": parts.targets[2],
        "rank_unet": network.RANK_UNET,
        "sd_encoder": loras[0],
        "sd_decoder": loras[1],
        "sd_other": loras[2],
        "rank_vae": network.RANK_VAE,
        "vae_lora_target_modules": network.VAE_TARGETS,
        "sd_vae_enc": dict(vaes),
        "sd_vae_dec": dict(vaes),
    }


def _adapter_state(unet: UNet2DConditionModel, adapter: str) -> State:
    """One adapter's tensors, the adapter's name stripped as peft's get_peft_model_state_dict does."""
    suffix = f".{adapter}.weight"
    state = unet.state_dict()
    return {k.removesuffix(suffix) + ".weight": v.half() for k, v in state.items() if k.endswith(suffix)}


def write_text(base: Path, captions: tuple[str, ...], seed: int) -> list[Tensor]:
    """Write a tiny random CLIP text encoder and a byte-level tokenizer; return each caption's embedding [1, 77, D]."""
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

    symbols = [chr(c) for c in range(33, 127)]
    words = ["<|startoftext|>", "<|endoftext|>"]
    vocab = {t: i for i, t in enumerate([*symbols, *(s + "</w>" for s in symbols), *words])}
    special = {"pad_token": "!"}  # SD-Turbo pads with it too
    tokenizer = CLIPTokenizer(vocab=vocab, merges=[], model_max_length=77, **special)
    tokenizer.save_pretrained(base / "tokenizer")
    (base / "tokenizer" / "vocab.json").write_text(json.dumps(vocab))  # read by transformers before 5
    (base / "tokenizer" / "merges.txt").write_text("#version: 0.2\n")
    torch.manual_seed(seed)
    width, ends = network.TEXT_WIDTH, (vocab[words[0]], vocab[words[1]])
    config = CLIPTextConfig(
        vocab_size=len(vocab), hidden_size=width, intermediate_size=2 * width, projection_dim=width,
        num_hidden_layers=2, num_attention_heads=4, hidden_act="gelu", initializer_factor=1.0,
        pad_token_id=vocab["!"], bos_token_id=ends[0], eos_token_id=ends[1],
    )  # fmt: skip
    encoder = CLIPTextModel(config).eval().half().float()
    embeddings = []
    for caption in captions:
        ids = tokenizer(caption, max_length=77, padding="max_length", truncation=True, return_tensors="pt").input_ids
        with torch.no_grad():
            embeddings.append(encoder(ids)[0].clone())
    encoder.half().save_pretrained(base / "text_encoder", safe_serialization=True)
    return embeddings
