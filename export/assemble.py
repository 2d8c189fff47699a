"""From a checkpoint and its base model to a generator: the one place where the parts meet."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .base import BaseModel
from .checkpoints import Checkpoint
from .lora import add_skip_convs, merge_unet, merge_vae
from .recipe import Recipe
from .scheduler import one_step

if TYPE_CHECKING:
    from torch import Tensor

    from .generator import Generator


def assemble(recipe: Recipe, checkpoint: Checkpoint, base: BaseModel, embedding: Tensor) -> Generator:
    """The merged generator, FP32, on the CPU, in evaluation mode. ``embedding`` is the prompt's, [1, 77, width].

    Raises KeyMismatchError when the checkpoint was trained on another base model, BaseModelError for a base that
    cannot be used.
    """
    from .generator import Generator, GeneratorOptions, Networks

    strength = 1.0 if recipe.strength is None else recipe.strength
    unet, vae = base.unet(), base.vae()
    add_skip_convs(vae)
    merge_unet(unet, checkpoint, strength)
    merge_vae(vae, checkpoint.vae(recipe.direction), f"{checkpoint.path}: the VAE's part", strength)
    options = GeneratorOptions(
        signed_input=recipe.signed_input,
        strength=recipe.strength,
        posterior=recipe.options.posterior,
        batch=recipe.shape.batch,
        border=recipe.border,
    )
    return Generator(Networks(unet, vae, embedding, one_step(base)), options).eval()
