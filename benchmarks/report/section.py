"""What a report is made of: a title, sentences, a table, a chart, pictures."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ..row_suite import Shown

Cells = tuple[tuple[str, ...], ...]
NONE = "-"


@dataclass(frozen=True)
class Section:
    """``lines`` are sentences, ``head`` and ``cells`` a table (or empty), ``chart`` draws for a width in pixels.

    ``pictures``: by row, what to show of its worst frame. ``warns``: the sentences are warnings.
    """

    title: str
    lines: tuple[str, ...] = ()
    head: tuple[str, ...] = ()
    cells: Cells = ()
    chart: Callable[[int], str] | None = None
    pictures: Mapping[str, Shown] | None = None
    warns: bool = False
