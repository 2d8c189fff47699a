"""What every reader returns: one typed description of a checkpoint, whatever its family."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from ...engines.errors import UsageError

if TYPE_CHECKING:
    from torch import Tensor

# The LoraConfig default of peft 0.6 to 0.21; the published training code sets no other, except for CycleGAN's UNet.
PEFT_DEFAULT_ALPHA = 8

SKIP_CONVS = tuple(f"decoder.skip_conv_{i}" for i in (1, 2, 3, 4))


@dataclass(frozen=True)
class LoraPair:
    """The two factors of one module's delta, ``scale * up @ down``.

    ``down`` ("lora_A"): [rank, in] or [rank, in, kh, kw]. ``up`` ("lora_B"): [out, rank] or [out, rank, 1, 1].
    """

    down: Tensor
    up: Tensor


@dataclass(frozen=True)
class NetworkDelta:
    """What a checkpoint changes in one network of the base model.

    ``weights``: whole tensors that replace the base's, or are new, by their name in the base (no ``.base_layer``).
    ``lora``: factors by module name. ``targets``: the module names or name endings that must all have factors.
    ``lora_scale``: alpha / rank, which no checkpoint stores. ``complete``: ``weights`` must hold the network whole.
    """

    weights: Mapping[str, Tensor]
    lora: Mapping[str, LoraPair]
    targets: tuple[str, ...]
    lora_scale: float
    rank: int
    complete: bool = False


@dataclass(frozen=True)
class TwinConv:
    """The stochastic variant's two first convolutions, blended as (1-r) * pretrained + r * current."""

    pretrained_weight: Tensor
    pretrained_bias: Tensor
    current_weight: Tensor
    current_bias: Tensor


@dataclass(frozen=True)
class Checkpoint:
    """A one-step image-translation checkpoint, read but not yet applied to a base model.

    ``vaes`` holds one delta per direction (``a2b``, ``b2a``), or one under ``""`` for paired families.
    ``omissions``: what training changed and the file does not hold.
    """

    family: str
    path: Path
    unet: NetworkDelta
    vaes: Mapping[str, NetworkDelta]
    twin_conv: TwinConv | None = None
    omissions: tuple[str, ...] = field(default=())

    @property
    def directions(self) -> tuple[str, ...]:
        return tuple(name for name in self.vaes if name)

    @property
    def stochastic(self) -> bool:
        return self.twin_conv is not None

    def vae(self, direction: str | None) -> NetworkDelta:
        """The VAE's delta for ``direction`` (None for paired families). Raises UsageError for another."""
        if (direction or "") not in self.vaes:
            raise UsageError(
                f"{self.family} has no direction {direction!r}",
                expected=" or ".join(self.directions) or "no --direction",
                hint=f"--direction {self.directions[0]}" if self.directions else "leave --direction out",
            )
        return self.vaes[direction or ""]
