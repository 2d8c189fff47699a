"""The oracle: the checkpoint on the base model as the published code runs it, unmerged, with live peft adapters.

It shares no arithmetic with the merge, the constants or the traced graph: peft scales and adds the adapters, diffusers
steps the scheduler and draws the posterior, the text encoder's embedding enters as it does in training.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from .base import BaseModel
from .checkpoints.checkpoint import Checkpoint, NetworkDelta, TwinConv
from .lora import add_skip_convs, refuse_misfit, refuse_unet_misfit
from .networks import decode, encode, scaling_factor
from .scheduler import TIMESTEP, load_scheduler

if TYPE_CHECKING:
    from diffusers import AutoencoderKL, UNet2DConditionModel


@dataclass(frozen=True)
class ReferenceInputs:
    """``image``: float [B, 3, H, W] in the family's range. ``noise``: float [B, 4, H/8, W/8] or None.

    ``posterior_noise``: the same shape, or None for the posterior's mean.
    """

    image: Tensor
    noise: Tensor | None = None
    posterior_noise: Tensor | None = None


class Reference(nn.Module):
    """``reference(inputs)`` gives float [B, 3, H, W] in [-1, 1]: network input to network output.

    ``embedding`` is the prompt's, [1, 77, width]. ``strength`` is r for stochastic checkpoints, None for others.
    """

    def __init__(
        self, base: BaseModel, checkpoint: Checkpoint, direction: str | None, embedding: Tensor, strength: float | None
    ) -> None:
        super().__init__()
        self.strength = strength
        self.scheduler: Any = load_scheduler(base)
        self.unet = _adapted_unet(base.unet(), checkpoint, strength)
        self.vae = _adapted_vae(base.vae(), checkpoint.vae(direction), strength)
        self.embedding: Tensor
        self.register_buffer("embedding", embedding)
        self.eval()

    @torch.inference_mode()
    def forward(self, inputs: ReferenceInputs) -> Tensor:
        scale = scaling_factor(self.vae)
        dtype = self.embedding.dtype
        features, skips = encode(self.vae.encoder, inputs.image.to(dtype))
        latent = self._posterior(self.vae.quant_conv(features), inputs.posterior_noise) * scale
        if inputs.noise is not None and self.strength is not None:
            latent = latent * self.strength + inputs.noise.to(dtype) * (1 - self.strength)
        timesteps = torch.tensor([TIMESTEP], device=latent.device)
        embedding = self.embedding.expand(latent.shape[0], -1, -1)
        prediction = self.unet(latent, timesteps, encoder_hidden_states=embedding).sample
        denoised = self.scheduler.step(prediction, timesteps, latent, return_dict=True).prev_sample.to(dtype)
        decoded = decode(
            self.vae.decoder, self.vae.post_quant_conv(denoised / scale), skips,
            gamma=1.0 if self.strength is None else self.strength,
        )  # fmt: skip
        clamped: Tensor = decoded.clamp(-1, 1).float()
        return clamped

    @staticmethod
    def _posterior(moments: Tensor, noise: Tensor | None) -> Any:
        from diffusers.models.autoencoders.vae import DiagonalGaussianDistribution

        posterior = DiagonalGaussianDistribution(moments)
        return posterior.mean if noise is None else posterior.mean + posterior.std * noise.to(moments.dtype)


class _LiveTwinConv(nn.Module):
    """The published TwinConv, evaluated as two convolutions."""

    def __init__(self, like: nn.Conv2d, twin: TwinConv, strength: float) -> None:
        super().__init__()
        self.strength = strength
        self.pretrained = _conv_like(like, twin.pretrained_weight, twin.pretrained_bias)
        self.current = _conv_like(like, twin.current_weight, twin.current_bias)

    def forward(self, latent: Tensor) -> Tensor:
        blend: Tensor = self.pretrained(latent) * (1 - self.strength) + self.current(latent) * self.strength
        return blend


def _conv_like(like: nn.Conv2d, weight: Tensor, bias: Tensor) -> nn.Conv2d:
    conv = nn.Conv2d(like.in_channels, like.out_channels, kernel_size=3, padding=1)
    conv.weight = nn.Parameter(weight.float(), requires_grad=False)
    conv.bias = nn.Parameter(bias.float(), requires_grad=False)
    return conv


def _adapted_unet(unet: UNet2DConditionModel, checkpoint: Checkpoint, strength: float | None) -> UNet2DConditionModel:
    refuse_unet_misfit(unet, checkpoint)
    _attach(unet, checkpoint.unet, strength)
    if checkpoint.twin_conv:
        unet.conv_in = _LiveTwinConv(unet.conv_in, checkpoint.twin_conv, 1.0 if strength is None else strength)
    return unet


def _adapted_vae(vae: AutoencoderKL, delta: NetworkDelta, strength: float | None) -> AutoencoderKL:
    add_skip_convs(vae)
    refuse_misfit(vae, delta, "the VAE's part")
    _attach(vae, delta, strength)
    return vae


def _attach(network: UNet2DConditionModel | AutoencoderKL, delta: NetworkDelta, strength: float | None) -> None:
    """Whole weights into the network, then one live peft adapter with the checkpoint's factors."""
    from peft import LoraConfig, inject_adapter_in_model

    for name, tensor in delta.weights.items():
        network.get_parameter(name).data = tensor.detach().float().clone()
    config = LoraConfig(
        r=delta.rank, lora_alpha=round(delta.lora_scale * delta.rank), target_modules=sorted(delta.lora), bias="none"
    )
    with warnings.catch_warnings():
        # peft warns of layers it cannot merge or tie; nothing is merged or trained here.
        warnings.simplefilter("ignore", UserWarning)
        inject_adapter_in_model(config, network, adapter_name="reference")
    for module, pair in delta.lora.items():
        layer = network.get_submodule(module)
        layer.lora_A["reference"].weight.data = pair.down.float()
        layer.lora_B["reference"].weight.data = pair.up.float()
        if strength is not None:
            layer.set_scale("reference", strength)
