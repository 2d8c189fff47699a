"""The generator's stages, by which every node, value and weight of its graph is named."""

from __future__ import annotations

STAGES = ("frame_in", "vae_encoder", "latent", "unet", "x0", "vae_decoder", "image_out")


def stage_of(name: str | None) -> str:
    """The stage of a node, value or weight, by its name; empty for graph inputs and outputs."""
    head, separator, _ = (name or "").partition("/")
    return head if separator else ""
