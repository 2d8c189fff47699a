"""The published forward passes of the VAE with skips, as functions of values instead of module attributes.

Source: ``my_vae_encoder_fwd`` and ``my_vae_decoder_fwd`` in ``src/model.py`` of GaParmar/img2img-turbo at 86f5414.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .checkpoints.checkpoint import SKIP_CONVS

if TYPE_CHECKING:
    from diffusers import AutoencoderKL
    from torch import Tensor


def encode(encoder: Any, image: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
    """Features before ``quant_conv`` [B, 2*latent, H/8, W/8], and the four skip activations.

    ``image`` is float [B, 3, H, W] in the range that the family was trained with. A skip activation is what enters a
    down block, so the first is [B, 128, H, W] and the last [B, 512, H/8, W/8] for SD-Turbo.
    """
    hidden = encoder.conv_in(image)
    skips = []
    for block in encoder.down_blocks:
        skips.append(hidden)
        hidden = block(hidden)
    hidden = encoder.mid_block(hidden)
    return encoder.conv_out(encoder.conv_act(encoder.conv_norm_out(hidden))), tuple(skips)


def decode(decoder: Any, latent: Tensor, skips: tuple[Tensor, ...], gamma: float = 1.0) -> Any:
    """The image before clamping, float [B, 3, H, W], from ``post_quant_conv``'s output and the encoder's skips.

    ``gamma`` scales the skips (the stochastic variant's r); a merged generator has it in the weights and leaves it 1.
    """
    hidden = decoder.mid_block(decoder.conv_in(latent))
    for name, block, skip in zip(SKIP_CONVS, decoder.up_blocks, reversed(skips), strict=True):
        skip_conv = decoder.get_submodule(name.removeprefix("decoder."))
        hidden = block(hidden + skip_conv(skip if gamma == 1.0 else skip * gamma))
    return decoder.conv_out(decoder.conv_act(decoder.conv_norm_out(hidden)))


def scaling_factor(vae: AutoencoderKL) -> float:
    """0.18215 for SD-Turbo: what the UNet's latents are scaled by."""
    return float(vae.config.scaling_factor)
