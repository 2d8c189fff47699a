"""The unmerged PyTorch reference as an engine, so that `turbo-run --engine pytorch` shows what all else is held to."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn

from ..engines.bundle import Bundle
from ..engines.errors import UsageError
from ..engines.files import sha256_of
from ..engines.pytorch import PyTorchEngine
from .base import open_base
from .checkpoints import read_checkpoint
from .generator import FrameIn, ImageOut
from .native import Border
from .reference import Reference, ReferenceInputs
from .text import encode_prompt


class _FrameReference(nn.Module):
    """The reference behind the generator's own border: uint8 frames in, uint8 images out."""

    def __init__(self, reference: Reference, *, signed: bool, border: Border | None) -> None:
        super().__init__()
        self.frame_in = FrameIn(signed=signed, border=border)
        self.reference = reference
        self.image_out = ImageOut(border)

    def forward(self, frame: Tensor, noise: Tensor | None = None, posterior_noise: Tensor | None = None) -> Tensor:
        image: Tensor = self.image_out(self.reference(ReferenceInputs(self.frame_in(frame), noise, posterior_noise)))[0]
        return image.contiguous()


def pytorch_engine(bundle_path: Path, ckpt: Path, base: str) -> PyTorchEngine:
    """The reference of the bundle at ``bundle_path``: the same direction, prompt, strength and size, unmerged, FP32.

    Raises UsageError when ``ckpt`` is not the file that the bundle was made from, and what reading it raises.
    """
    manifest = Bundle.open(bundle_path).manifest
    digest = sha256_of(ckpt)
    if digest != manifest.provenance.checkpoint_sha256:
        raise UsageError(
            f"{ckpt} is not the checkpoint that this bundle was made from",
            expected=f"{manifest.provenance.checkpoint}, sha256 {manifest.provenance.checkpoint_sha256}",
            got=f"sha256 {digest}",
        )
    checkpoint, opened = read_checkpoint(ckpt), open_base(base)
    model = manifest.model
    embedding = encode_prompt(opened, model.prompt)
    with torch.no_grad():  # not inference_mode: convolutions ask a weight for its version, which it then lacks
        reference = Reference(opened, checkpoint, model.direction, embedding, model.strength)
    signed = manifest.frame_rules.resize == "squash"
    module = _FrameReference(reference, signed=signed, border=Border.of(manifest))
    return PyTorchEngine(module, manifest.inputs, manifest.outputs[0])
