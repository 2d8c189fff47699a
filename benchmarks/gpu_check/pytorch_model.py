"""The generator in PyTorch, merged and unmerged, behind the bundle's own border: uint8 frame in, uint8 image out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from .options import DIRECTION, PROMPT, CheckOptions

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

    from ...export.base import BaseModel
    from ...export.checkpoints import Checkpoint
    from ...export.generator import Generator
    from ...export.recipe import ExportOptions, Recipe


@dataclass(frozen=True)
class Parts:
    """What both kinds of model are made from, read once."""

    recipe: Recipe
    checkpoint: Checkpoint
    base: BaseModel
    embedding: Tensor

    @classmethod
    def of(cls, options: ExportOptions) -> Parts:
        """Read what an export with ``options`` would read. Raises as that does."""
        from ...export.base import open_base
        from ...export.checkpoints import read_checkpoint
        from ...export.recipe import recipe_for
        from ...export.text import encode_prompt

        checkpoint, base = read_checkpoint(options.ckpt), open_base(options.base)
        recipe = recipe_for(options, checkpoint)
        return cls(recipe, checkpoint, base, encode_prompt(base, recipe.prompt))

    def merged(self) -> Generator:
        """The generator that an export traces, FP32, on the CPU."""
        from ...export.assemble import assemble

        return assemble(self.recipe, self.checkpoint, self.base, self.embedding)

    def live(self) -> nn.Module:
        """The reference with live adapters, FP32, on the CPU."""
        import torch

        from ...export.reference import Reference

        with torch.no_grad():  # not inference_mode: convolutions ask a weight for its version, which it then lacks
            return Reference(self.base, self.checkpoint, self.recipe.direction, self.embedding, self.recipe.strength)


def load_parts(options: CheckOptions) -> Parts:
    """Read the checkpoint and the base model that the stage ``prepare-weights`` wrote."""
    from ...export.recipe import ExportOptions

    return Parts.of(ExportOptions(
        options.checkpoint, base=str(options.base), prompt=PROMPT, direction=DIRECTION,
        width=options.pixels, height=options.pixels,
    ))  # fmt: skip


class PromptEncoder:
    """The tokenizer and text encoder that the published script runs for every frame."""

    def __init__(self, base: BaseModel, device: str, dtype: torch.dtype, prompt: str = PROMPT) -> None:
        from transformers import AutoTokenizer, CLIPTextModel

        self._device = device
        self._prompt = prompt
        self._tokenizer = AutoTokenizer.from_pretrained(base.folder, subfolder="tokenizer", local_files_only=True)
        encoder = CLIPTextModel.from_pretrained(
            base.folder, subfolder="text_encoder", dtype=dtype, local_files_only=True
        )
        self._encoder: Any = encoder.eval().to(device)

    def __call__(self) -> Tensor:
        """The prompt's embedding, [1, 77, width], on the device."""
        tokens = self._tokenizer(
            self._prompt, max_length=self._tokenizer.model_max_length, padding="max_length", truncation=True,
            return_tensors="pt",
        )  # fmt: skip
        embedding: Tensor = self._encoder(tokens.input_ids.to(self._device))[0]
        return embedding


def merged_module(
    generator: Generator, device: str, dtype: torch.dtype, *, channels_last: bool = False,
    encoder: PromptEncoder | None = None,
) -> nn.Module:  # fmt: skip
    """``module(frame=uint8 [1, H, W, 3])`` gives uint8 [1, H, W, 3], both on ``device``.

    Networks in ``dtype``; pixels, latent, x0 and quantisation in FP32 as in the exported graph. ``encoder`` runs before
    every frame when given. The generator's own networks are converted, not copied.
    """
    import torch
    from torch import nn

    layout = torch.channels_last if channels_last else torch.contiguous_format

    class Merged(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.generator = generator
            for network in (generator.vae_encoder, generator.unet, generator.vae_decoder):
                network.to(device=device, dtype=dtype, memory_format=layout)  # type: ignore[call-overload]

        def forward(self, frame: Tensor) -> Tensor:
            parts = self.generator
            if encoder is not None:
                parts.unet.embedding = encoder()
            image = parts.frame_in(frame).to(dtype).contiguous(memory_format=layout)
            moments, skips = parts.vae_encoder(image)
            latent = parts.latent(moments.float(), None, None)
            x0 = parts.x0(latent, parts.unet(latent.to(dtype)).float())
            out: Tensor = parts.image_out(parts.vae_decoder(x0.to(dtype), skips).float())[0]
            return out.contiguous()

    return Merged().eval()


def live_module(reference: Any, device: str, dtype: torch.dtype, encoder: PromptEncoder | None = None) -> nn.Module:
    """As ``merged_module``, for the unmerged model: peft adds its adapters and diffusers steps its scheduler."""
    from torch import nn

    from ...export.generator import FrameIn, ImageOut
    from ...export.reference import ReferenceInputs

    reference.to(device=device, dtype=dtype)
    # As make_1step_sched of the published model.py has them.
    reference.scheduler.set_timesteps(1, device=device)
    reference.scheduler.alphas_cumprod = reference.scheduler.alphas_cumprod.to(device)

    class Live(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.reference = reference
            self.frame_in, self.image_out = FrameIn(signed=True), ImageOut()

        def forward(self, frame: Tensor) -> Tensor:
            if encoder is not None:
                self.reference.embedding = encoder()
            image = self.reference(ReferenceInputs(self.frame_in(frame)))
            out: Tensor = self.image_out(image)[0]
            return out.contiguous()

    return Live().eval()
