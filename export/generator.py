"""The single-step generator as one function: uint8 frame in, uint8 image out.

Each stage (``export/stages.py``) is a module of its own, so that every node of the traced graph belongs to one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from .native import Border, frame_of, planes_of
from .networks import decode, encode, scaling_factor
from .resample import passes, resized
from .scheduler import TIMESTEP, OneStep

if TYPE_CHECKING:
    from diffusers import AutoencoderKL, UNet2DConditionModel

# diffusers' DiagonalGaussianDistribution clamps the log-variance to this range.
_LOGVAR_MIN, _LOGVAR_MAX = -30.0, 20.0


@dataclass(frozen=True)
class GeneratorOptions:
    """``signed_input``: the network sees [-1, 1] (unpaired families) rather than [0, 1] (paired ones).

    ``strength``: None for deterministic generators; else r, which the weights were already merged at.
    ``posterior``: ``mean``, or ``sample`` for mean + std * ``posterior_noise``.
    ``border``: None for frames and images that are RGB at the model's size.
    """

    signed_input: bool
    strength: float | None
    posterior: str
    batch: int
    border: Border | None = None


@dataclass(frozen=True)
class Networks:
    """Merged networks and constants: ``embedding`` is the prompt's, float32 [1, 77, width]."""

    unet: UNet2DConditionModel
    vae: AutoencoderKL
    embedding: Tensor
    step: OneStep


class Resize(nn.Module):
    """Planes of whole numbers, float32 [B, C, H, W], 0 to 255, resized exactly as the host's PIL does.

    Sizes are (width, height) in pixels.
    """

    across: Tensor | None
    down: Tensor | None

    def __init__(self, size: tuple[int, int], new_size: tuple[int, int]) -> None:
        super().__init__()
        steps = passes(size, new_size)
        self.down_first = steps.down_first
        self.register_buffer("across", None if steps.across is None else torch.from_numpy(steps.across.T.copy()))
        self.register_buffer("down", None if steps.down is None else torch.from_numpy(steps.down))

    def forward(self, planes: Tensor) -> Tensor:
        return resized(planes, self.across, self.down, down_first=self.down_first)


class FrameIn(nn.Module):
    """A frame to what the network sees, float32 [B, 3, H, W]: ToTensor and, if ``signed``, Normalize(0.5, 0.5).

    The frame is uint8 [B, H, W, 3]; with a ``border`` the camera's own, of its format and size, and what the
    reference does to it before ToTensor is done here: PIL's resize and the sketch's threshold.
    """

    def __init__(self, *, signed: bool, border: Border | None = None) -> None:
        super().__init__()
        self.signed = signed
        self.border = border
        if border is not None:
            self.resize = Resize((border.layout.width, border.layout.height), (border.width, border.height))

    def forward(self, frame: Tensor) -> Tensor:
        unit = self._levels(frame) / 255.0
        return (unit - 0.5) / 0.5 if self.signed else unit

    def _levels(self, frame: Tensor) -> Tensor:
        if self.border is None:
            return frame.to(torch.float32).permute(0, 3, 1, 2)
        levels: Tensor = self.resize(planes_of(frame, self.border.layout.format, self.border.coding))
        # The reference's to_tensor(image) < 0.5, that is, below 127.5.
        return torch.where(levels < 127.5, 255.0, 0.0) if self.border.sketch else levels


class VaeEncoder(nn.Module):
    """Image to posterior moments and skip activations. With ``posterior`` mean, the variance half is never computed."""

    def __init__(self, vae: AutoencoderKL, posterior: str) -> None:
        super().__init__()
        self.encoder = vae.encoder
        self.quant_conv = vae.quant_conv if posterior == "sample" else _mean_half(vae.quant_conv)

    def forward(self, image: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        features, skips = encode(self.encoder, image)
        return self.quant_conv(features), skips


class Latent(nn.Module):
    """Posterior moments to the UNet's input: mean or sample, scaled, and mixed with noise at strength r."""

    def __init__(self, options: GeneratorOptions, scale: float) -> None:
        super().__init__()
        self.options = options
        self.scale = scale

    def forward(self, moments: Tensor, noise: Tensor | None, posterior_noise: Tensor | None) -> Tensor:
        latent = moments
        if posterior_noise is not None:
            mean, logvar = moments.chunk(2, dim=1)
            latent = mean + torch.exp(0.5 * logvar.clamp(_LOGVAR_MIN, _LOGVAR_MAX)) * posterior_noise
        latent = latent * self.scale
        if noise is not None and self.options.strength is not None:
            latent = latent * self.options.strength + noise * (1.0 - self.options.strength)
        return latent


class Unet(nn.Module):
    """The noise prediction at the one timestep and the one prompt, both constants."""

    def __init__(self, unet: UNet2DConditionModel, embedding: Tensor, batch: int) -> None:
        super().__init__()
        self.network = unet
        self.register_buffer("embedding", embedding.expand(batch, -1, -1).contiguous())
        self.register_buffer("timestep", torch.full((batch,), TIMESTEP, dtype=torch.int64))

    def forward(self, latent: Tensor) -> Tensor:
        prediction: Tensor = self.network(
            latent, self.timestep, encoder_hidden_states=self.embedding, return_dict=False
        )[0]
        return prediction


class X0(nn.Module):
    """The scheduler's one step, and back to the VAE's own scale.

    It amplifies an error of the UNet 14.6 times, so it stays float32 in every precision.
    """

    def __init__(self, step: OneStep, scale: float) -> None:
        super().__init__()
        self.step = step
        self.scale = scale

    def forward(self, latent: Tensor, noise_prediction: Tensor) -> Tensor:
        return (self.step.latent * latent + self.step.noise * noise_prediction) / self.scale


class VaeDecoder(nn.Module):
    def __init__(self, vae: AutoencoderKL) -> None:
        super().__init__()
        self.post_quant_conv = vae.post_quant_conv
        self.decoder = vae.decoder

    def forward(self, latent: Tensor, skips: tuple[Tensor, ...]) -> Tensor:
        decoded: Tensor = decode(self.decoder, self.post_quant_conv(latent), skips)
        return decoded


class ImageOut(nn.Module):
    """float [B, 3, H, W] to uint8 [B, H, W, 3]; the reference's ToPILImage truncates, so does this.

    With a ``border`` the picture is a frame of the camera's size, in the layout's output format: what the host would
    do to the truncated picture. Returns the picture and, for the parity gate, the clamped float32 tensor in [-1, 1]
    before quantisation, at the model's size.
    """

    def __init__(self, border: Border | None = None) -> None:
        super().__init__()
        self.border = border
        if border is not None:
            self.resize = Resize((border.width, border.height), (border.layout.width, border.layout.height))

    def forward(self, decoded: Tensor) -> tuple[Tensor, Tensor]:
        clamped = decoded.clamp(-1.0, 1.0)
        levels = torch.floor((clamped * 0.5 + 0.5) * 255.0)
        if self.border is None:
            return levels.permute(0, 2, 3, 1).to(torch.uint8), clamped
        return frame_of(self.resize(levels), self.border.layout.output_format, self.border.coding), clamped


class Generator(nn.Module):
    """uint8 frame [B, H, W, 3] RGB to uint8 image [B, H, W, 3] RGB, and the float32 [B, 3, H, W] it was quantised from.

    With ``options.border``, frame and image are a camera's own, and only the float32 is of the model's size.

    ``noise`` is float32 [B, 4, H/8, W/8] for stochastic checkpoints, ``posterior_noise`` the same for a sampled
    posterior. The networks' weights are shared, not copied. H and W are multiples of 8.
    """

    def __init__(self, networks: Networks, options: GeneratorOptions) -> None:
        super().__init__()
        scale = scaling_factor(networks.vae)
        self.frame_in = FrameIn(signed=options.signed_input, border=options.border)
        self.vae_encoder = VaeEncoder(networks.vae, options.posterior)
        self.latent = Latent(options, scale)
        self.unet = Unet(networks.unet, networks.embedding, options.batch)
        self.x0 = X0(networks.step, scale)
        self.vae_decoder = VaeDecoder(networks.vae)
        self.image_out = ImageOut(options.border)

    def forward(
        self, frame: Tensor, noise: Tensor | None = None, posterior_noise: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        moments, skips = self.vae_encoder(self.frame_in(frame))
        latent = self.latent(moments, noise, posterior_noise)
        return self.image_out(self.vae_decoder(self.x0(latent, self.unet(latent)), skips))  # type: ignore[no-any-return]


def _mean_half(quant_conv: nn.Conv2d) -> nn.Conv2d:
    """``quant_conv`` without the rows that compute the posterior's log-variance."""
    latent_channels = quant_conv.out_channels // 2
    half = nn.Conv2d(quant_conv.in_channels, latent_channels, kernel_size=1)
    for name, whole in quant_conv.named_parameters():
        half.get_parameter(name).data = whole.detach()[:latent_channels].clone()
    return half
