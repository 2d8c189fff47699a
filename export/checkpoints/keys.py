"""Names inside checkpoints: peft's spellings brought to one, and whatever is left over named aloud."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from ...engines.errors import CheckpointError, KeyMismatchError
from .checkpoint import LoraPair

if TYPE_CHECKING:
    from torch import Tensor

# conv_in.lora_A.weight (adapter stripped) or conv_in.lora_A.vae_skip.weight
_LORA = re.compile(r"^(?P<module>.+)\.lora_(?P<factor>[AB])(?:\.[^.]+)?\.weight$")
_SHOWN = 10


def split_lora(tensors: Mapping[str, Tensor], where: str) -> tuple[dict[str, Tensor], dict[str, LoraPair]]:
    """Part a network's tensors into whole weights and LoRA pairs, both by the base model's own names.

    peft 0.7 and later call an adapted module's own weight ``x.base_layer.weight``, earlier ones ``x.weight``.
    Raises KeyMismatchError for a factor without its partner.
    """
    weights: dict[str, Tensor] = {}
    factors: dict[str, dict[str, Tensor]] = {"A": {}, "B": {}}
    for name, tensor in tensors.items():
        if match := _LORA.match(name):
            factors[match["factor"]][match["module"]] = tensor
        else:
            weights[name.replace(".base_layer.", ".")] = tensor
    refuse_difference(factors["A"], factors["B"], f"{where}: LoRA factors without their partner")
    lora = {module: LoraPair(down, factors["B"][module]) for module, down in factors["A"].items()}
    return weights, lora


def refuse_difference(expected: Iterable[str], got: Iterable[str], what: str, hint: str | None = None) -> None:
    """Raise KeyMismatchError, with the first ten of each and the counts, unless both name the same keys."""
    expected, got = set(expected), set(got)
    missing, unexpected = sorted(expected - got), sorted(got - expected)
    if missing or unexpected:
        parts = [
            f"{title} {_listing(names)}" for title, names in (("missing", missing), ("unexpected", unexpected)) if names
        ]
        raise KeyMismatchError(
            what, expected=f"{len(expected)} keys", got="; ".join(parts), hint=hint or "is this the right checkpoint?"
        )


def refuse_misshapen(problems: list[str], what: str, hint: str) -> None:
    """Raise KeyMismatchError naming the first ten of ``problems``, if there are any."""
    if problems:
        raise KeyMismatchError(what, got=_listing(problems), hint=hint)


def _listing(names: list[str]) -> str:
    more = f", and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return f"{len(names)}: {', '.join(names[:_SHOWN])}{more}"


def tensors_in(raw: Mapping[str, object], key: str, where: str) -> dict[str, Tensor]:
    """``raw[key]`` as a dictionary of named tensors. Raises CheckpointError."""
    import torch

    value = raw[key]
    if not isinstance(value, dict) or not all(isinstance(tensor, torch.Tensor) for tensor in value.values()):
        raise CheckpointError(f"{where}: '{key}' is not a dictionary of tensors", got=type(value).__name__)
    return value


def rank_in(raw: Mapping[str, object], key: str, where: str) -> int:
    """``raw[key]`` as a positive rank. Raises CheckpointError."""
    value = raw[key]
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise CheckpointError(f"{where}: '{key}' is not a LoRA rank", expected="a positive integer", got=repr(value))
    return value


def names_in(raw: Mapping[str, object], key: str, where: str) -> tuple[str, ...]:
    """``raw[key]`` as module names. Raises CheckpointError."""
    value = raw[key]
    if not isinstance(value, list | tuple | set) or not all(isinstance(name, str) for name in value):
        raise CheckpointError(f"{where}: '{key}' is not a list of module names", got=type(value).__name__)
    return tuple(value)
