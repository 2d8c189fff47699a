"""The demo network: a CycleGAN-Turbo generator in miniature, and its real forward path at t = 999.

Same classes and block structure as SD-Turbo (four blocks, two layers each), only narrower. The forward path is that of
img2img-turbo (src/cyclegan_turbo.py, src/model.py) with the posterior mean. Imports torch: for `train.py` only.
"""

from __future__ import annotations

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from torch import Tensor, nn

SCALING = 0.18215  # AutoencoderKL.scaling_factor of Stable Diffusion
ALPHA_BAR = 0.00466009508818388  # alphas_cumprod[999], scaled_linear betas 0.00085..0.012
TIMESTEP = 999
RANK_UNET, RANK_VAE = 4, 4
SCALE_UNET, SCALE_VAE = 1.0, 2.0  # lora_alpha / rank: alpha = rank in the UNet, peft's default 8 in the VAE
VAE_CHANNELS = (16, 32, 32, 32)
UNET_CHANNELS = (32, 32, 48, 48)
UNET_HEADS = (2, 2, 3, 3)  # diffusers calls the number of heads `attention_head_dim`
TEXT_WIDTH = 32
VAE_TARGETS = [
    *("conv1", "conv2", "conv_in", "conv_shortcut", "conv", "conv_out"),
    *(f"skip_conv_{i}" for i in range(1, 5)),
    *("to_k", "to_q", "to_v", "to_out.0"),
]
_UNET_PATTERNS = ("to_k", "to_q", "to_v", "to_out.0", "conv", "proj_out", "proj_in", "ff.net.2", "ff.net.0.proj")


def make_vae(skips: bool) -> AutoencoderKL:
    """A small AutoencoderKL; with `skips`, its decoder carries skip_conv_1..4 as img2img-turbo adds them."""
    vae = AutoencoderKL(
        block_out_channels=VAE_CHANNELS,
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        layers_per_block=2,
        norm_num_groups=8,
        latent_channels=4,
        sample_size=512,
        scaling_factor=SCALING,
    )
    if skips:
        add_skips(vae)
    return vae


def add_skips(vae: AutoencoderKL) -> None:
    """Add the bias-free 1x1 convolutions from encoder block 3-i to the input of decoder block i."""
    outs = VAE_CHANNELS[::-1]
    taps = (VAE_CHANNELS[2], VAE_CHANNELS[1], VAE_CHANNELS[0], VAE_CHANNELS[0])
    entries = (outs[0], outs[0], outs[1], outs[2])
    for index, (tap, entry) in enumerate(zip(taps, entries, strict=True), start=1):
        conv = nn.Conv2d(tap, entry, kernel_size=1, bias=False)
        nn.init.normal_(conv.weight, std=0.5 / tap**0.5)
        setattr(vae.decoder, f"skip_conv_{index}", conv)


def make_unet() -> UNet2DConditionModel:
    """A small UNet2DConditionModel with SD-Turbo's block types."""
    return UNet2DConditionModel(
        sample_size=64,
        in_channels=4,
        out_channels=4,
        layers_per_block=2,
        block_out_channels=UNET_CHANNELS,
        norm_num_groups=8,
        cross_attention_dim=TEXT_WIDTH,
        attention_head_dim=UNET_HEADS,
        use_linear_projection=True,
        down_block_types=(*("CrossAttnDownBlock2D",) * 3, "DownBlock2D"),
        up_block_types=("UpBlock2D", *("CrossAttnUpBlock2D",) * 3),
    )


def init_gentle(vae: AutoencoderKL, unet: UNet2DConditionModel) -> None:
    """Start near a dark picture, with a small eps, and undo the 80-fold gain of x0 / 0.18215."""
    init_quiet(unet)
    with torch.no_grad():
        vae.post_quant_conv.weight.mul_(1.0 / 15.0)
        vae.decoder.conv_out.bias.fill_(-0.8)  # about the mean of a night picture


def init_quiet(unet: UNet2DConditionModel) -> None:
    """Start with a small eps, so that activations stay modest in FP16."""
    with torch.no_grad():
        unet.conv_out.weight.mul_(0.02)
        unet.conv_out.bias.zero_()


def encode(vae: AutoencoderKL, frame: Tensor) -> tuple[Tensor, list[Tensor]]:
    """Frame [N, 3, H, W] in [-1, 1] to the scaled latent mean [N, 4, H/8, W/8] and four skip activations."""
    encoder = vae.encoder
    hidden, skips = encoder.conv_in(frame), []
    for block in encoder.down_blocks:
        skips.append(hidden)
        hidden = block(hidden)
    hidden = encoder.conv_act(encoder.conv_norm_out(encoder.mid_block(hidden)))
    moments = vae.quant_conv(encoder.conv_out(hidden))
    return moments.chunk(2, dim=1)[0] * SCALING, skips


def decode(vae: AutoencoderKL, x0: Tensor, skips: list[Tensor]) -> Tensor:
    """Scaled latent [N, 4, H/8, W/8] and skips to the unclamped picture [N, 3, H, W]."""
    decoder = vae.decoder
    hidden = decoder.mid_block(decoder.conv_in(vae.post_quant_conv(x0 / SCALING)))
    for index, block in enumerate(decoder.up_blocks):
        hidden = block(hidden + getattr(decoder, f"skip_conv_{index + 1}")(skips[3 - index]))
    picture: Tensor = decoder.conv_out(decoder.conv_act(decoder.conv_norm_out(hidden)))
    return picture


def translate(
    vae: AutoencoderKL, unet: UNet2DConditionModel, frame: Tensor, text: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """One step of the generator: the unclamped picture [N, 3, H, W], the latent z and the UNet's eps.

    `frame` is [N, 3, H, W] in [-1, 1], `text` the caption embedding [1, 77, TEXT_WIDTH].
    """
    z, skips = encode(vae, frame)
    eps = unet(z, TIMESTEP, encoder_hidden_states=text.expand(len(z), -1, -1)).sample
    x0 = (z.float() - (1.0 - ALPHA_BAR) ** 0.5 * eps.float()) / ALPHA_BAR**0.5
    return decode(vae, x0.to(frame.dtype), skips), z, eps


def unet_targets(unet: UNet2DConditionModel) -> tuple[list[str], list[str], list[str]]:
    """Full names of the UNet's LoRA modules: (down_blocks + conv_in, up_blocks, mid_block + conv_out)."""
    encoder: list[str] = []
    decoder: list[str] = []
    others: list[str] = []
    for name, _ in unet.named_parameters():
        if "bias" in name or "norm" in name or not any(p in name for p in _UNET_PATTERNS):
            continue
        module = name.removesuffix(".weight")
        if "down_blocks" in name or "conv_in" in name:
            encoder.append(module)
        elif "up_blocks" in name:
            decoder.append(module)
        else:
            others.append(module)
    return encoder, decoder, others
