"""The report as one HTML file: it needs no network, no server and no other file."""

from __future__ import annotations

import base64
from collections.abc import Iterator, Mapping
from html import escape
from pathlib import Path
from string import Template
from typing import TYPE_CHECKING

from ..result import BenchResult
from .pictures import before_and_after, jpeg, triptych
from .section import Section
from .sections import headline, sections, title_of

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from ..row_suite import Shown

# Pixels that a desk's column and a phone's have.
_WIDE, _NARROW = 1040, 350


def as_html(result: BenchResult, shown: Mapping[str, Shown]) -> str:
    """The whole page. ``shown``: pictures by row, as ``suite.Bench`` has them; without any, there are none."""
    page = Template(Path(__file__).with_name("page.html").read_text(encoding="utf-8"))
    first = shown.get(result.subject.name)
    made = sections(result, shown)
    parts = [_section(section) for section in made]
    if first is not None:
        parts.insert(sum(section.warns for section in made), _slider(first))
    title = escape(title_of(result))
    return page.substitute(title=title, headline=escape(headline(result)), body="\n".join(parts))


def _section(section: Section) -> str:
    if section.warns:
        lines = "".join(f"<p>{escape(line)}</p>" for line in section.lines)
        return f'<section class="warning"><h2>{escape(section.title)}</h2>{lines}</section>'
    parts = [f"<h2>{escape(section.title)}</h2>"]
    parts += [f'<p class="faint">{escape(line)}</p>' for line in section.lines]
    if section.chart is not None:
        wide, narrow = section.chart(_WIDE), section.chart(_NARROW)
        parts.append(f'<figure class="wide">{wide}</figure><figure class="narrow">{narrow}</figure>')
    if section.cells:
        parts.append(_table(section))
    parts += _pictures(section.pictures or {})
    return f"<section>{''.join(parts)}</section>"


def _table(section: Section) -> str:
    """Wider than the screen, it scrolls in a frame of its own, which the keyboard can reach."""
    rows = "".join(
        f'<tr><th scope="row">{escape(name)}</th>{"".join(f"<td>{escape(cell)}</td>" for cell in rest)}</tr>'
        for name, *rest in section.cells
    )
    if not any(section.head):
        return f'<div class="plain"><table><tbody>{rows}</tbody></table></div>'
    head = "".join(f'<th scope="col">{escape(name)}</th>' for name in section.head)
    frame = f'class="wide-table" tabindex="0" role="region" aria-label="table: {escape(section.title)}"'
    return f"<div {frame}><table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table></div>"


def _pictures(pictures: Mapping[str, Shown]) -> Iterator[str]:
    for name, shown in pictures.items():
        figures = "".join(
            f"<figure>{_image(shot.content, shot.kind, shot.picture, f'{name}: {caption}')}"
            f"<figcaption>{escape(caption)}</figcaption></figure>"
            for caption, shot in triptych(shown).items()
        )
        yield f'<h3>{escape(name)}: its worst frame</h3><div class="three">{figures}</div>'


def _slider(shown: Shown) -> str:
    """Two pictures beside each other; the page's script lays one over the other."""
    before, after = before_and_after(shown)
    return (
        '<section class="compare" aria-label="before and after">'
        f"<figure>{_image(jpeg(after), 'jpeg', after, 'after: the translated picture')}"
        "<figcaption>after</figcaption></figure>"
        f'<figure class="before">{_image(jpeg(before), "jpeg", before, "before: the frame")}'
        "<figcaption>before</figcaption></figure>"
        '<input type="range" min="0" max="100" value="50" hidden aria-label="percent of the picture shown as before">'
        '<div class="handle" hidden></div></section>'
    )


def _image(content: bytes, kind: str, picture: NDArray[np.uint8], text: str) -> str:
    height, width = picture.shape[:2]
    data = base64.b64encode(content).decode("ascii")
    return f'<img width="{width}" height="{height}" alt="{escape(text)}" src="data:image/{kind};base64,{data}">'
