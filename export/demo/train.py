"""Train the demo checkpoint: a miniature CycleGAN-Turbo day-to-night model, small enough for a repository.

    python -m edgeturbo.export.demo.train --photos DIR --out DIR --steps A B C D

writes `base/` (a diffusers folder standing for stabilityai/sd-turbo) and `day2night_demo.pkl` into --out. README.md
names the photographs. Seeds and step counts are fixed: only rounding differs between machines.
Needs torch, diffusers, transformers, peft and Pillow.

a2b: from random weights, all of them learn `relight.relight` (L1 on four scales of the picture and its gradients; no
adversary) in the stages of A2B_STAGES; then half of each weight's strongest directions moves into LoRA (see
`checkpoint.py`). b2a: LoRA and skip convolutions alone learn the way back.
"""

from __future__ import annotations

import argparse
import itertools
import logging
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from torch import Tensor
from torch.nn import functional

from . import checkpoint, network, photos
from .photos import Crops
from .relight import U8

log = logging.getLogger(__name__)

SEED = 20240318
STEPS = (600, 200, 220, 80)  # of the three a2b stages and of b2a
CAPTIONS = ("driving in the night", "driving in the day")


@dataclass(frozen=True)
class Stage:
    """One run of `fit`: how to cut its batches, its learning rates, and how much lit windows weigh."""

    plan: tuple[Crops, ...]
    lr: float
    unet_lr: float = 0.0
    lamp_weight: float = 0.0


def mixed(tries: int) -> tuple[Crops, ...]:
    """Mostly crops; every fourth batch a larger crop or a whole small picture, every 24th a whole frame."""
    detail, scene = Crops(192, 2, tries), Crops(256, 1, tries)
    return (*(detail, detail, detail, scene) * 5, detail, detail, detail, Crops(512, 1))


# The UNet goes slowly: no norm bounds its residual stream, and at the VAE's rate that grows to 1e5, too much for FP16.
# Lit windows cover 1 % of the pictures, and plain L1 would leave them dark: the later stages weigh and seek them.
A2B_STAGES = (
    Stage(mixed(1), lr=2e-3, unet_lr=1.5e-4),
    Stage(mixed(3), lr=1.2e-3, unet_lr=1e-4, lamp_weight=8.0),
    Stage(mixed(6), lr=2e-3, unet_lr=1e-4, lamp_weight=20.0),
)
B2A_STAGE = Stage((Crops(128, 3),), lr=4e-3)


@dataclass(frozen=True)
class Generator:
    """What translates: VAE, UNet and the caption's embedding [1, 77, TEXT_WIDTH]."""

    vae: AutoencoderKL
    unet: UNet2DConditionModel
    text: Tensor


Batches = Iterator[tuple[Tensor, Tensor]]


def tensors(batches: Iterator[tuple[U8, U8]]) -> Batches:
    """uint8 [N, H, W, 3] to float32 [N, 3, H, W] in [-1, 1], both of each pair."""
    for pair in batches:
        day, night = (torch.from_numpy(array).permute(0, 3, 1, 2).float() / 127.5 - 1.0 for array in pair)
        yield day, night


def lamp_light(night: Tensor) -> Tensor:
    """How much warmer than neutral each pixel of a night picture is: [N, 1, H, W], 0 where it is not."""
    return (night[:, :1] - night[:, 2:]).clamp_min(0.0)


def picture_loss(output: Tensor, target: Tensor, lamp_weight: float) -> Tensor:
    """L1 of the pictures and of their horizontal and vertical gradients, on four scales; lit places weigh more."""
    loss = output.new_zeros(())
    if lamp_weight:
        loss = loss + (lamp_weight * lamp_light(target) * (output - target).abs()).mean()
    for scale in range(4):
        if scale:
            output, target = functional.avg_pool2d(output, 2), functional.avg_pool2d(target, 2)
        error = output - target
        loss = loss + error.abs().mean() * (1.0 if scale == 0 else 0.5)
        loss = loss + error.diff(dim=-1).abs().mean() + error.diff(dim=-2).abs().mean()
    return loss


def fit(generator: Generator, data: Batches, groups: list[dict[str, Any]], steps: int, lamp_weight: float) -> None:
    """AdamW, warm-up, then a cosine."""
    optimizer = torch.optim.AdamW(groups, betas=(0.9, 0.98), weight_decay=1e-4)
    peaks = [float(g["lr"]) for g in optimizer.param_groups]
    params = [p for g in optimizer.param_groups for p in g["params"]]
    mean = 0.0
    for step, (source, target) in enumerate(itertools.islice(data, steps)):
        pace = min(1.0, (step + 1) / 60) * (0.5 + 0.5 * math.cos(math.pi * step / steps)) + 0.002
        for group, peak in zip(optimizer.param_groups, peaks, strict=True):
            group["lr"] = peak * pace
        output, z, eps = network.translate(generator.vae, generator.unet, source, generator.text)
        # large latents or eps would cost precision in FP16: x0 / 0.18215 multiplies both by 80
        loss = picture_loss(output, target, lamp_weight) + 1e-3 * z.square().mean() + 1e-2 * eps.square().mean()
        optimizer.zero_grad(set_to_none=True)
        torch.autograd.backward(loss)
        torch.nn.utils.clip_grad_norm_(params, 1.0)
        optimizer.step()
        mean += (0.02 if step else 1.0) * (loss.item() - mean)
        if step % 50 == 49:
            log.info("step %d of %d, loss %.4f, z %.2f, eps %.3f", step + 1, steps, mean, z.std(), eps.std())


def train_a2b(pairs: dict[int, list[photos.Pair]], text: Tensor, steps: Sequence[int], out: Path) -> Generator:
    """Day to night: every weight learns. Each stage leaves its weights in `out`, to look at."""
    torch.manual_seed(SEED)
    vae = network.make_vae(skips=True).to(memory_format=torch.channels_last)
    unet = network.make_unet()
    network.init_gentle(vae, unet)
    generator = Generator(vae, unet, text)
    for number, (stage, count) in enumerate(zip(A2B_STAGES, steps, strict=True)):
        data = tensors(photos.batches(pairs, stage.plan, SEED + number))
        fit(generator, data, _groups(generator, stage), count, stage.lamp_weight)
        torch.save({"vae": vae.state_dict(), "unet": unet.state_dict()}, out / f"stage{number}.pt")
    vae.eval()
    unet.eval()
    return generator


def _groups(generator: Generator, stage: Stage) -> list[dict[str, Any]]:
    """Parameters and rates; the weights beside the 80-fold gain go slower, or they would shake everything."""
    vae, unet = generator.vae, generator.unet
    slow = [*vae.quant_conv.parameters(), *vae.post_quant_conv.parameters(), *unet.conv_out.parameters()]
    known = {id(p) for p in slow}
    return [
        {"params": [p for p in vae.parameters() if id(p) not in known], "lr": stage.lr},
        {"params": [p for p in unet.parameters() if id(p) not in known], "lr": stage.unet_lr},
        {"params": slow, "lr": 0.05 * stage.lr},
    ]


def train_b2a(generator: Generator, pairs: dict[int, list[photos.Pair]], steps: int) -> None:
    """Night to day: LoRA and skip convolutions of the VAE (with adapter) learn; its base and the UNet stay."""
    generator.unet.requires_grad_(False)
    generator.vae.requires_grad_(False)
    learning = [p for n, p in generator.vae.named_parameters() if "lora_" in n or "skip_conv" in n]
    for parameter in learning:
        parameter.requires_grad_(True)
    data = tensors(photos.batches(pairs, B2A_STAGE.plan, SEED))
    swapped = ((night, day) for day, night in data)
    fit(generator, swapped, [{"params": learning, "lr": B2A_STAGE.lr}], steps, 0.0)
    generator.vae.eval()


def main(argv: list[str] | None = None) -> None:
    """Command line entry point."""
    parser = argparse.ArgumentParser(description="Train the demo checkpoint.")
    parser.add_argument("--photos", type=Path, required=True, help="folder of daytime photographs")
    parser.add_argument("--out", type=Path, required=True, help="receives base/ and day2night_demo.pkl")
    parser.add_argument("--steps", type=int, nargs=4, default=STEPS, help="of the three a2b stages and of b2a")
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    torch.set_num_threads(args.threads)
    args.out.mkdir(parents=True, exist_ok=True)
    texts = checkpoint.write_text(args.out / "base", CAPTIONS, SEED)
    pairs = photos.load_pairs(args.photos, SEED)
    log.info("%s", ", ".join(f"{len(group)} pairs of {size} pixels" for size, group in pairs.items()))
    a2b = train_a2b(pairs, texts[0], args.steps[:-1], args.out)
    parts = checkpoint.split(a2b.vae, a2b.unet)
    train_b2a(Generator(parts.vae_b2a, parts.unet, texts[1]), pairs, args.steps[-1])
    checkpoint.write(parts, args.out)


if __name__ == "__main__":
    main()
