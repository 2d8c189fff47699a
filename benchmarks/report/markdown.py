"""The report as Markdown, with its charts and pictures as files beside it."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from ..result import BenchResult
from .pictures import before_and_after, jpeg, triptych
from .section import Section
from .sections import headline, sections, title_of
from .svg import standalone

if TYPE_CHECKING:
    from ..row_suite import Shown

_WIDTH = 860
_ENDINGS = {"jpeg": "jpg", "png": "png"}


def as_markdown(result: BenchResult, shown: Mapping[str, Shown]) -> tuple[str, dict[str, bytes]]:
    """The text, and the files it refers to by their paths relative to it."""
    files: dict[str, bytes] = {}
    parts = [f"# {_escaped(title_of(result))}", _escaped(headline(result))]
    first = shown.get(result.subject.name)
    if first is not None:
        before, after = (jpeg(picture) for picture in before_and_after(first))
        files |= {"pictures/before.jpg": before, "pictures/after.jpg": after}
        parts.append("![before](pictures/before.jpg) ![after](pictures/after.jpg)")
    for section in sections(result, shown):
        parts += _section(section, files)
    return "\n\n".join(parts) + "\n", files


def _section(section: Section, files: dict[str, bytes]) -> Iterator[str]:
    yield f"## {section.title}"
    for line in section.lines:
        yield f"> {_escaped(line)}" if section.warns else _escaped(line)
    if section.chart is not None:
        path = f"charts/{_slug(section.title)}.svg"
        files[path] = standalone(section.chart(_WIDTH)).encode()
        yield f"![{section.title}]({path})"
    if section.cells:
        yield "\n".join([_row(section.head), _row(("---",) * len(section.head)), *map(_row, section.cells)])
    for row, (name, shown) in enumerate((section.pictures or {}).items(), 1):
        shown_at = []
        for number, (caption, shot) in enumerate(triptych(shown).items()):
            path = f"pictures/{row}-{_slug(name)}-{number}.{_ENDINGS[shot.kind]}"
            files[path] = shot.content
            shown_at.append(f"![{_escaped(name)}: {caption}]({path})")
        yield f"{_escaped(name)}, its worst frame: reference, this row, {caption}\n\n{' '.join(shown_at)}"


def _row(cells: tuple[str, ...]) -> str:
    return f"| {' | '.join(_escaped(cell) if cell != '---' else cell for cell in cells)} |"


def _escaped(text: str) -> str:
    """Text that Markdown leaves as it is, on one line."""
    return re.sub(r"([\\`*_|<>\[\]])", r"\\\1", " ".join(text.split()))


def _slug(text: str) -> str:
    return "-".join(re.findall(r"[a-z0-9]+", text.lower()))[:60]
