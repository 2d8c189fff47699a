"""A generator's cost table: what its graph computes and moves. Written by the export, read without any graph library.

Nodes of one stage and kind that cost the same stand as one entry, so the table keeps every node's own figures (a
roofline needs them: a sum over nodes hides which of them wait for memory) and stays small: about 60 KB for the 1924
nodes of the SD-Turbo generator.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from ._schema import SchemaError, decode, encode
from .errors import BundleError

COSTS = "costs.json"
SCHEMA = 1

# In the order of a printed table. "other" holds operators that this version has no formula for: 0 operations counted.
KINDS = ("conv", "matmul", "attention", "norm", "elementwise", "movement", "other")

_HINT = "export the bundle again"


@dataclass(frozen=True)
class Growth:
    """A figure at the table's own size, split by how it grows with the number of pixels.

    ``fixed`` does not; ``linear`` grows as the pixels, as everything does that convolutions make; ``quadratic`` as
    their square, as self-attention does, which compares each latent pixel with every other.
    """

    fixed: int = 0
    linear: int = 0
    quadratic: int = 0

    def at(self, scale: float = 1.0) -> float:
        """The figure for ``scale`` times as many pixels."""
        return self.fixed + scale * self.linear + scale * scale * self.quadratic

    def __add__(self, other: Growth) -> Growth:
        return Growth(self.fixed + other.fixed, self.linear + other.linear, self.quadratic + other.quadratic)

    def parts(self) -> tuple[int, int, int]:
        return self.fixed, self.linear, self.quadratic


@dataclass(frozen=True)
class Work:
    """``nodes`` nodes of the same ``stage``, ``kind`` (one of KINDS) and cost; the figures are those of each of them.

    ``flops`` counts matrix products and convolutions, a multiply-add as 2, as ``torch.utils.flop_counter`` does; other
    nodes have 0. ``read`` and ``written`` are bytes of activations, ``weights`` bytes of weights read. A node that only
    renames a shape (Reshape) moves nothing. ``dtype`` is numpy's name of what is computed in (``float16``);
    ``example`` names the first of these nodes in the graph.
    """

    stage: str
    kind: str
    dtype: str
    nodes: int
    example: str
    flops: Growth
    read: Growth
    written: Growth
    weights: int


@dataclass(frozen=True)
class Costs:
    """The table for ``batch`` frames of ``width`` x ``height`` pixels.

    ``weights`` are the graph's weights in bytes, each counted once. ``live`` are the activations, in bytes, that exist
    at the same time while nodes run in the file's order: each moment that no other exceeds in every part.
    """

    schema: int
    width: int
    height: int
    batch: int
    weights: int
    live: tuple[Growth, ...]
    work: tuple[Work, ...]

    @property
    def flops(self) -> int:
        """Of all ``batch`` frames."""
        return sum(item.nodes * round(item.flops.at()) for item in self.work)

    def scale(self, width: int, height: int) -> float:
        """How many times the table's pixels ``width`` x ``height`` has."""
        return (width * height) / (self.width * self.height)

    def peak_live(self, scale: float = 1.0) -> float:
        """The most bytes of activations that exist at once, without an engine's own scratch memory."""
        return max((moment.at(scale) for moment in self.live), default=0.0)

    def to_json(self) -> str:
        return json.dumps(encode(self), separators=(",", ":")) + "\n"


@dataclass(frozen=True)
class Share:
    """One line of a printed table: figures in operations and bytes; ``intensity`` in operations per byte moved."""

    name: str
    nodes: int
    flops: int
    moved: int
    weights: int

    @property
    def intensity(self) -> float:
        return self.flops / self.moved if self.moved else 0.0


def read_costs(path: Path) -> Costs:
    """The table in ``path``. Raises BundleError when it cannot be read, or is damaged or of another schema version."""
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        if isinstance(data, dict) and data.get("schema", SCHEMA) != SCHEMA:
            raise BundleError(
                f"{path} has a cost table that this version does not know",
                expected=f"schema {SCHEMA}", got=f"schema {data['schema']!r}", hint=_HINT,
            )  # fmt: skip
        return _checked(decode(Costs, data))
    except (OSError, ValueError, RecursionError) as error:
        raise BundleError(f"cannot use the cost table {path}: {error}", hint=_HINT) from error


def by_stage(costs: Costs) -> tuple[Share, ...]:
    """A line for each stage, in the graph's order, and a last one called ``total``."""
    return _shares(costs, lambda item: item.stage, dict.fromkeys(item.stage for item in costs.work))


def by_kind(costs: Costs) -> tuple[Share, ...]:
    """A line for each kind that occurs, in the order of KINDS, and a last one called ``total``."""
    present = {item.kind for item in costs.work}
    return _shares(costs, lambda item: item.kind, [kind for kind in KINDS if kind in present])


def most_expensive(costs: Costs, count: int = 10) -> tuple[Share, ...]:
    """The ``count`` entries with the most operations, and by bytes among equals, called after their first node."""
    shares = [_share(item.example, [item]) for item in costs.work]
    return tuple(sorted(shares, key=lambda share: (-share.flops, -share.moved, share.name))[:count])


def moved(item: Work, scale: float = 1.0) -> float:
    """Bytes that one node of ``item`` reads and writes, its weights among them."""
    return item.read.at(scale) + item.written.at(scale) + item.weights


def _shares(costs: Costs, key: Callable[[Work], str], names: Iterable[str]) -> tuple[Share, ...]:
    lines = [_share(name, [item for item in costs.work if key(item) == name]) for name in names]
    return (*lines, _share("total", list(costs.work)))


def _share(name: str, items: list[Work]) -> Share:
    return Share(
        name,
        sum(item.nodes for item in items),
        sum(item.nodes * round(item.flops.at()) for item in items),
        sum(item.nodes * round(moved(item)) for item in items),
        sum(item.nodes * item.weights for item in items),
    )


def _checked(costs: Costs) -> Costs:
    """What the types do not say: sizes are positive, no figure is negative, kinds are known."""
    figures = [costs.weights, *(part for moment in costs.live for part in moment.parts())]
    for item in costs.work:
        figures += [item.weights, *item.flops.parts(), *item.read.parts(), *item.written.parts()]
        if item.kind not in KINDS or item.nodes < 1:
            raise SchemaError(f"{item.example} is {item.nodes} nodes of kind {item.kind!r}")
    if min(costs.width, costs.height, costs.batch) < 1 or min(figures) < 0:
        raise SchemaError("a size below 1 or a cost below 0")
    return costs
