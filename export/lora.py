"""Merging: a checkpoint's deltas folded into the base model's weights, exactly and in place."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from .checkpoints.checkpoint import SKIP_CONVS, Checkpoint, LoraPair, NetworkDelta, TwinConv
from .checkpoints.keys import refuse_difference, refuse_misshapen

if TYPE_CHECKING:
    from diffusers import AutoencoderKL, UNet2DConditionModel
    from torch import Tensor, nn

_WRONG_BASE = "the checkpoint was trained on another base model; pass that one with --base"


def add_skip_convs(vae: AutoencoderKL) -> None:
    """Give the VAE's decoder its four skip convolutions (1x1, no bias), as ``CycleGAN_Turbo.__init__`` does.

    Widths follow from the VAE: ``skip_conv_i`` maps what encoder down block 5-i takes to what decoder up block i takes
    (SD-Turbo: 512 to 512, 256 to 512, 128 to 512, 128 to 256). Their weights are empty until the checkpoint's arrive.
    """
    import torch

    taps = [block.resnets[0].conv1.in_channels for block in reversed(vae.encoder.down_blocks)]
    joins = [block.resnets[0].conv1.in_channels for block in vae.decoder.up_blocks]
    for name, tap, join in zip(SKIP_CONVS, taps, joins, strict=True):
        conv = torch.nn.Conv2d(tap, join, kernel_size=1, bias=False).requires_grad_(requires_grad=False)
        vae.decoder.add_module(name.removeprefix("decoder."), conv)


def merge_unet(unet: UNet2DConditionModel, checkpoint: Checkpoint, strength: float = 1.0) -> None:
    """Fold the checkpoint into ``unet`` at ``strength`` r: LoRA times r, TwinConv blended at r. In place.

    Raises KeyMismatchError when the checkpoint does not fit this UNet; the UNet is then unchanged.
    """
    refuse_unet_misfit(unet, checkpoint)
    _replace(unet, checkpoint.unet.weights)
    if checkpoint.twin_conv:
        _replace(unet, blended(checkpoint.twin_conv, strength))
    _add_lora(unet, checkpoint.unet, strength)


def merge_vae(vae: AutoencoderKL, delta: NetworkDelta, where: str, strength: float = 1.0) -> None:
    """Fold ``delta`` into ``vae`` (which has its skip convolutions) at ``strength`` r. In place.

    The published decoder multiplies what enters a skip convolution by r, so a skip's weight becomes
    r * (W + r * scale * up @ down): quadratic in r where everything else is linear. Raises KeyMismatchError.
    """
    refuse_misfit(vae, delta, where)
    _replace(vae, delta.weights)
    _add_lora(vae, delta, strength)
    for name in SKIP_CONVS:
        vae.get_submodule(name).weight.data.mul_(strength)


def blended(twin: TwinConv, strength: float) -> dict[str, Tensor]:
    """The one convolution that a TwinConv is at a fixed r: x1 * (1 - r) + x2 * r, linear in weight and bias."""
    return {
        "conv_in.weight": twin.pretrained_weight.float() * (1 - strength) + twin.current_weight.float() * strength,
        "conv_in.bias": twin.pretrained_bias.float() * (1 - strength) + twin.current_bias.float() * strength,
    }


def delta_of(pair: LoraPair) -> Tensor:
    """``up @ down`` as a weight: [out, in] for a linear layer, [out, in, kh, kw] for a convolution, float32.

    A convolution's down factor is the k x k convolution and its up factor a 1x1 one (peft's Conv2d LoRA), so the
    product of the flattened factors is the whole kernel.
    """
    product = pair.up.float().flatten(1) @ pair.down.float().flatten(1)
    return product.reshape(pair.up.shape[0], *pair.down.shape[1:])


def refuse_unet_misfit(unet: UNet2DConditionModel, checkpoint: Checkpoint) -> None:
    """Raise KeyMismatchError unless the checkpoint's UNet part fits ``unet``, a TwinConv's four tensors included."""
    where = f"{checkpoint.path}: the UNet's part"
    refuse_misfit(unet, checkpoint.unet, where)
    if twin := checkpoint.twin_conv:
        weight, bias = unet.conv_in.weight.shape, unet.conv_in.bias.shape
        pairs = (
            ("conv_in_pretrained.weight", twin.pretrained_weight, weight),
            ("conv_in_pretrained.bias", twin.pretrained_bias, bias),
            ("conv_in_curr.weight", twin.current_weight, weight),
            ("conv_in_curr.bias", twin.current_bias, bias),
        )
        misshapen = [f"{name} {list(t.shape)} for {list(shape)}" for name, t, shape in pairs if t.shape != shape]
        refuse_misshapen(misshapen, f"{where}: shapes differ from the base model's", _WRONG_BASE)


def refuse_misfit(network: nn.Module, delta: NetworkDelta, where: str) -> None:
    """Raise KeyMismatchError unless every weight and factor fits ``network``, and every target has its factors."""
    own = dict(network.named_parameters())
    refuse_difference(
        _targeted(network, delta.targets),
        delta.lora,
        f"{where}: its LoRA does not cover the layers it targets",
        _WRONG_BASE,
    )
    refuse_difference(
        own if delta.complete else own.keys() & delta.weights.keys(),
        delta.weights, f"{where}: its weights do not match the base model's", _WRONG_BASE,
    )  # fmt: skip
    misshapen = [
        f"{name} {list(tensor.shape)} for {list(own[name].shape)}"
        for name, tensor in delta.weights.items()
        if tensor.shape != own[name].shape
    ]
    misshapen += [
        f"{module} LoRA {list(pair.up.shape)} x {list(pair.down.shape)} for {list(own[f'{module}.weight'].shape)}"
        for module, pair in delta.lora.items()
        if not _fits(pair, own[f"{module}.weight"], delta.rank)
    ]
    refuse_misshapen(misshapen, f"{where}: shapes differ from the base model's", _WRONG_BASE)


def _targeted(network: nn.Module, targets: tuple[str, ...]) -> set[str]:
    """The layers that peft adapts for ``targets``: those named so, or whose name ends so after a dot."""
    import torch

    layers = (name for name, m in network.named_modules() if isinstance(m, torch.nn.Linear | torch.nn.Conv2d))
    exact = frozenset(targets)
    return {name for name in layers if name in exact or any(name.endswith(f".{target}") for target in targets)}


def _fits(pair: LoraPair, weight: Tensor, rank: int) -> bool:
    out, *inner = weight.shape
    return tuple(pair.down.shape) == (rank, *inner) and tuple(pair.up.shape) == (out, rank, *(1 for _ in inner[1:]))


def _replace(network: nn.Module, weights: Mapping[str, Tensor]) -> None:
    for name, tensor in weights.items():
        network.get_parameter(name).data = tensor.detach().float().clone()


def _add_lora(network: nn.Module, delta: NetworkDelta, strength: float) -> None:
    for module, pair in delta.lora.items():
        # In place: the base's weights are a private mapping of its file, so this copies the touched pages and no more
        # (half of the memory of a sum beside the original), and the file itself never changes.
        network.get_parameter(f"{module}.weight").data.add_(delta_of(pair), alpha=delta.lora_scale * strength)
