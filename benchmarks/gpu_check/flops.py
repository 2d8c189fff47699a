"""How much arithmetic the generator is, counted on networks without weights; a multiply-add counts as two."""

from __future__ import annotations

from pathlib import Path

from ..synthetic import on_meta


def generator_flops(base: Path, pixels: int) -> dict[str, int]:
    """Floating-point operations of one frame of ``pixels`` x ``pixels``, batch 1, by stage and as ``total``.

    ``base`` is a diffusers folder; its ``config.json`` files are all that is read. Matrix products and convolutions are
    counted, as ``torch.utils.flop_counter`` does: 2 per multiply-add. That is the generator as written: what an export
    folds into constants (time embedding, keys and values of the 77 tokens) is in it, and so are the four skip
    convolutions (0.032 TFLOP at 512x512). Takes about a second.
    """
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    from ...export.generator import Generator, GeneratorOptions, Networks
    from ...export.scheduler import OneStep

    unet, vae = on_meta(base, "unet"), on_meta(base, "vae")
    with torch.device("meta"), torch.no_grad():
        embedding = torch.zeros(1, 77, int(unet.config["cross_attention_dim"]))  # type: ignore[index]
        options = GeneratorOptions(signed_input=True, strength=None, posterior="mean", batch=1)
        networks = Networks(unet, vae, embedding, OneStep(1.0, 1.0))
        generator = Generator(networks, options).eval()
        with FlopCounterMode(display=False) as counter:
            generator(torch.zeros(1, pixels, pixels, 3, dtype=torch.uint8))
    counts = counter.get_flop_counts()
    stages = {name: sum(counts[f"Generator.{name}"].values()) for name in ("vae_encoder", "unet", "vae_decoder")}
    return {**stages, "total": int(counter.get_total_flops())}
