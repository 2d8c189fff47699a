"""Train the demo checkpoint: a miniature CycleGAN-Turbo day-to-night model, small enough for a repository.

    python -m edgeturbo.export.demo.train --photos DIR --out DIR --minutes N

writes `base/` (a diffusers folder standing for stabilityai/sd-turbo) and `day2night_demo.pkl` into --out. N is the
training time in all. The committed files took 38 minutes on two busy CPU cores, in several sittings (--stage), with about
1,140, 260 and 215 steps for a2b and 105 for b2a. Needs torch, diffusers, transformers, peft and Pillow.

a2b: all weights learn `relight.relight` (L1 on four scales of the picture and its gradients; no adversary) in the
three stages of A2B_STAGES; then half of each weight's strongest directions moves into LoRA (see `checkpoint.py`).
b2a: LoRA and skip convolutions alone learn the way back. Seeds are fixed, but the number of steps depends on the
machine's speed, so a second run gives a like checkpoint, not the same one.

--photos is a folder of daytime photographs, longest side 1024. The committed checkpoint used:
  * mapillary/OpenSfM (BSD-2-Clause) data/lund/images/{01,02,08..29}.jpg, data/berlin/images/{01,02,03}.jpg
  * Debian lomiri-wallpapers-16.04 (CC BY 4.0, CC BY-SA 4.0): Bridge, Dragonfly, aitzgorri, life, picosdeeuropa
  * Debian opencv-doc (Apache-2.0) examples/data/{leuvenA,building,home}.jpg
  * scikit-learn datasets/images/flower.jpg (CC BY 2.0)
  * Carol M. Highsmith, Arena Stage (public domain); Ted Eytan, DC rowhouses (CC BY-SA 4.0);
    Another Believer, Haupt Garden (CC BY-SA 3.0)
Held out: OpenSfM lund 03..07 (05 is frames/day.jpg) and scikit-learn's china.jpg (frames/pagoda.jpg).
"""

from __future__ import annotations

import argparse
import logging
import math
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from . import checkpoint, network
from .relight import relight

log = logging.getLogger(__name__)

SEED = 20240318
LAMP_WEIGHT = 10.0  # lit windows cover 1 % of the pictures: plain L1 would leave them dark
SIZES = (512, 384, 256)  # the product squashes frames to 512x512; smaller squashes show more scene per crop
GAINS = (1.0, 0.82, 1.0)  # exposure of each variant before relighting
BATCH = 3
CAPTIONS = ("driving in the night", "driving in the day")


@dataclass(frozen=True)
class Stage:
    """One run of `fit`: its share of the time, learning rates, and how much lit windows weigh and are sought."""

    share: float
    lr: float
    unet_lr: float
    lamp_weight: float
    tries: int
    fresh_unet: bool = False


# In the first stage the UNet's residual stream, which no norm bounds, grows to 1e5: too much for FP16. The last
# stage therefore starts a new UNet at a rate that keeps it small; the VAE, which does most of the work, goes on.
A2B_STAGES = (
    Stage(share=0.56, lr=2e-3, unet_lr=2e-3, lamp_weight=0.0, tries=1),
    Stage(share=0.185, lr=1.2e-3, unet_lr=1.2e-3, lamp_weight=LAMP_WEIGHT, tries=3),
    Stage(share=0.155, lr=1e-3, unet_lr=3e-4, lamp_weight=0.6 * LAMP_WEIGHT, tries=2, fresh_unet=True),
)
B2A_STAGE = Stage(share=0.10, lr=4e-3, unet_lr=0.0, lamp_weight=0.0, tries=1)


@dataclass(frozen=True)
class Pair:
    """A day picture and its relit version, float32 [3, S, S] in [-1, 1]."""

    day: Tensor
    night: Tensor


def load_pairs(folder: Path) -> list[list[Pair]]:
    """Squash, expose and relight every photograph; one list of pairs per entry of SIZES."""
    files = sorted(p for p in folder.iterdir() if p.suffix.lower() in {".jpg", ".jpeg", ".png"})
    if not files:
        raise FileNotFoundError(f"no photographs in {folder}")
    pairs: list[list[Pair]] = [[] for _ in SIZES]
    for file in files:
        photo = Image.open(file).convert("RGB")
        for group, size, gain in zip(pairs, SIZES, GAINS, strict=True):
            squashed = np.asarray(photo.resize((size, size), Image.Resampling.LANCZOS), np.float32)
            day = np.clip(squashed * gain, 0, 255).astype(np.uint8)
            group.append(Pair(to_tensor(day), to_tensor(relight(day))))
    log.info("%d photographs, %d pairs", len(files), len(files) * len(SIZES))
    return pairs


def to_tensor(image: np.ndarray) -> Tensor:
    """uint8 [H, W, 3] to float32 [3, H, W] in [-1, 1]."""
    return torch.from_numpy(image.copy()).permute(2, 0, 1).float() / 127.5 - 1.0


def batches(pairs: list[list[Pair]], seed: int, tries: int = 1) -> Iterator[tuple[Tensor, Tensor]]:
    """Endless random crops: mostly 192 x 3, now and then 256 x 2 or a whole small frame.

    Each crop is the one with most lamp light of `tries`.
    """
    rng = np.random.default_rng(seed)
    step = 0
    while True:
        step += 1
        side, count = (192, BATCH) if step % 4 else (256, 2)
        if step % 24 == 0:
            side, count = 384, 1  # long attention sequences, whole scenes
        crops = [max((_crop(pairs, side, rng) for _ in range(tries)), key=_lit) for _ in range(count)]
        day, night = (torch.stack([getattr(c, k) for c in crops]) for k in ("day", "night"))
        yield day.contiguous(memory_format=torch.channels_last), night


def _crop(pairs: list[list[Pair]], side: int, rng: np.random.Generator) -> Pair:
    groups = [g for g, size in zip(pairs, SIZES, strict=True) if size >= side]
    weights = {1: [1.0], 2: [0.6, 0.4], 3: [0.6, 0.25, 0.15]}[len(groups)]
    group = groups[rng.choice(len(groups), p=weights)]
    pair = group[rng.integers(len(group))]
    room = pair.day.shape[-1] - side
    top, left = rng.integers(room + 1, size=2)
    flip = [-1] if rng.random() < 0.5 else []
    day, night = (t[:, top : top + side, left : left + side].flip(flip) for t in (pair.day, pair.night))
    jitter = float(rng.uniform(0.95, 1.05))
    return Pair(((day + 1.0) * jitter - 1.0).clamp(-1.0, 1.0), night)


def _lit(pair: Pair) -> float:
    return float(lamp_light(pair.night[None]).mean())


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
            output, target = F.avg_pool2d(output, 2), F.avg_pool2d(target, 2)
        error = output - target
        loss = loss + error.abs().mean() * (1.0 if scale == 0 else 0.5)
        loss = loss + error.diff(dim=-1).abs().mean() + error.diff(dim=-2).abs().mean()
    return loss


def fit(
    vae: AutoencoderKL,
    unet: UNet2DConditionModel,
    text: Tensor,
    data: Iterator[tuple[Tensor, Tensor]],
    groups: list[dict[str, object]],
    minutes: float,
    lamp_weight: float = 0.0,
) -> None:
    """AdamW, warm-up, then a cosine over the wall-clock budget."""
    optimizer = torch.optim.AdamW(groups, betas=(0.9, 0.98), weight_decay=1e-4)
    peaks = [float(g["lr"]) for g in optimizer.param_groups]
    params = [p for g in optimizer.param_groups for p in g["params"]]
    begin, step, mean = time.monotonic(), 0, 0.0
    while (done := (time.monotonic() - begin) / (60.0 * minutes)) < 1.0:
        pace = min(1.0, (step + 1) / 60) * (0.5 + 0.5 * math.cos(math.pi * done)) + 0.002
        for group, peak in zip(optimizer.param_groups, peaks, strict=True):
            group["lr"] = peak * pace
        source, target = next(data)
        output, z, eps = network.translate(vae, unet, source, text)
        # large latents or eps would cost precision in FP16: x0 / 0.18215 multiplies both by 80
        loss = picture_loss(output, target, lamp_weight) + 1e-3 * z.square().mean() + 1e-2 * eps.square().mean()
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(params, 1.0)
        optimizer.step()
        step += 1
        mean += 0.02 * (float(loss.detach()) - mean) if step > 1 else float(loss.detach())
        if step % 50 == 0:
            log.info("%5.1f %% step %d loss %.4f z %.2f eps %.3f", 100 * done, step, mean, z.std(), eps.std())


def train_a2b(
    pairs: list[list[Pair]], text: Tensor, minutes: float, out: Path, first: int
) -> tuple[AutoencoderKL, UNet2DConditionModel]:
    """Day to night: every weight learns, in three stages; each leaves its weights in `out`.

    `first` is the stage to begin with; from 1 on, the weights of the stage before are read from `out`.
    """
    torch.manual_seed(SEED)
    vae = network.make_vae(skips=True).to(memory_format=torch.channels_last)
    unet = network.make_unet()
    network.init_gentle(vae, unet)
    if first:
        state = torch.load(out / f"stage{first - 1}.pt", weights_only=True)
        vae.load_state_dict(state["vae"])
        unet.load_state_dict(state["unet"])
    for number, stage in enumerate(A2B_STAGES[first:], start=first):
        if stage.fresh_unet:
            torch.manual_seed(SEED + number)
            unet = network.make_unet()
            network.init_quiet(unet)
        data = batches(pairs, SEED + 2 * number, stage.tries)
        fit(vae, unet, text, data, _groups(vae, unet, stage), stage.share * minutes, stage.lamp_weight)
        torch.save({"vae": vae.state_dict(), "unet": unet.state_dict()}, out / f"stage{number}.pt")
    return vae.eval(), unet.eval()


def _groups(vae: AutoencoderKL, unet: UNet2DConditionModel, stage: Stage) -> list[dict[str, object]]:
    """Parameters and rates; the weights beside the 80-fold gain go slower, or they would shake everything."""
    slow_vae = [*vae.quant_conv.parameters(), *vae.post_quant_conv.parameters()]
    slow_unet = [*unet.conv_out.parameters()]
    known = {id(p) for p in (*slow_vae, *slow_unet)}
    return [
        {"params": [p for p in vae.parameters() if id(p) not in known], "lr": stage.lr},
        {"params": [p for p in unet.parameters() if id(p) not in known], "lr": stage.unet_lr},
        {"params": [*slow_vae, *slow_unet], "lr": 0.05 * stage.lr},
    ]


def train_b2a(
    vae: AutoencoderKL, unet: UNet2DConditionModel, pairs: list[list[Pair]], text: Tensor, minutes: float
) -> None:
    """Night to day: LoRA and skip convolutions of `vae` (with adapter) learn; its base and the UNet stay."""
    unet.requires_grad_(False)
    trained = [p for n, p in vae.named_parameters() if "lora_" in n or "skip_conv" in n]
    vae.requires_grad_(False)
    for parameter in trained:
        parameter.requires_grad_(True)
    swapped = ((night.contiguous(memory_format=torch.channels_last), day) for day, night in batches(pairs, SEED + 1))
    fit(vae, unet, text, swapped, [{"params": trained, "lr": B2A_STAGE.lr}], minutes)
    vae.eval()


def main(argv: list[str] | None = None) -> None:
    """Command line entry point."""
    parser = argparse.ArgumentParser(description="Train the demo checkpoint.")
    parser.add_argument("--photos", type=Path, required=True, help="folder of daytime photographs")
    parser.add_argument("--out", type=Path, required=True, help="receives base/ and day2night_demo.pkl")
    parser.add_argument("--minutes", type=float, default=38.0, help="training time, both directions")
    parser.add_argument("--stage", type=int, default=0, help="go on from this a2b stage of an earlier run in --out")
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    torch.set_num_threads(args.threads)
    args.out.mkdir(parents=True, exist_ok=True)
    texts = checkpoint.write_text(args.out / "base", CAPTIONS, SEED)
    pairs = load_pairs(args.photos)
    vae, unet = train_a2b(pairs, texts[0], args.minutes, args.out, args.stage)
    parts = checkpoint.split(vae, unet)
    train_b2a(parts.vae_b2a, parts.unet, pairs, texts[1], B2A_STAGE.share * args.minutes)
    checkpoint.write(parts, args.out)


if __name__ == "__main__":
    main()
