"""The prompt as the constant that the generator bakes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..engines.errors import BaseModelError, first_line
from .base import BaseModel

if TYPE_CHECKING:
    import torch


def encode_prompt(base: BaseModel, prompt: str) -> torch.Tensor:
    """The prompt's embedding, float32 [1, 77, width], as ``CycleGAN_Turbo.forward`` computes it for every frame.

    The last hidden state with the final layer norm: SD-Turbo's text encoder has the penultimate layer of its parent
    as its last. Raises BaseModelError.
    """
    import torch
    from transformers import AutoTokenizer, CLIPTextModel
    from transformers.utils import logging

    # Its bar for loading weights would stand in the middle of ours, and in what --quiet prints.
    logging.disable_progress_bar()
    try:
        tokenizer = AutoTokenizer.from_pretrained(base.folder, subfolder="tokenizer", local_files_only=True)
        encoder = CLIPTextModel.from_pretrained(
            base.folder, subfolder="text_encoder", dtype=torch.float32, local_files_only=True
        )
    except (OSError, ValueError, RuntimeError, KeyError) as error:
        raise BaseModelError(
            f"{base.folder}: the text encoder or tokenizer cannot be loaded: {first_line(error)}",
            hint="--base stabilityai/sd-turbo, or a complete diffusers folder",
        ) from error
    tokens = tokenizer(
        prompt, max_length=tokenizer.model_max_length, padding="max_length", truncation=True, return_tensors="pt"
    )
    with torch.inference_mode():
        embedding: torch.Tensor = encoder.eval()(tokens.input_ids)[0]
    return embedding.clone()
