"""The report as one HTML file: it needs no network, no server and no other file."""

from __future__ import annotations

import base64
from collections.abc import Iterator, Mapping
from html import escape
from pathlib import Path
from string import Template
from typing import TYPE_CHECKING

from ..result import BenchResult
from .pictures import before_and_after, jpeg, png, triptych
from .sections import Section, headline, sections, title_of

if TYPE_CHECKING:
    from ..suite import Shown

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
        return f'<div class="warning"><h2>{escape(section.title)}</h2>{lines}</div>'
    parts = [f"<h2>{escape(section.title)}</h2>"]
    parts += [f'<p class="faint">{escape(line)}</p>' for line in section.lines]
    if section.chart is not None:
        wide, narrow = section.chart(_WIDE), section.chart(_NARROW)
        parts.append(f'<figure class="wide">{wide}</figure><figure class="narrow">{narrow}</figure>')
    if section.cells:
        parts.append(_table(section))
    parts += _pictures(section.pictures or {})
    return "\n".join(parts)


def _table(section: Section) -> str:
    rows = "".join(f"<tr>{''.join(f'<td>{escape(cell)}</td>' for cell in row)}</tr>" for row in section.cells)
    if not any(section.head):
        return f'<div class="wide-table"><table class="plain"><tbody>{rows}</tbody></table></div>'
    head = "".join(f"<th>{escape(name)}</th>" for name in section.head)
    return f'<div class="wide-table"><table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table></div>'


def _pictures(pictures: Mapping[str, Shown]) -> Iterator[str]:
    for name, shown in pictures.items():
        figures = "".join(
            f'<figure><img alt="{escape(caption)}" src="{_data(png(picture), "png")}">'
            f"<figcaption>{escape(caption)}</figcaption></figure>"
            for caption, picture in triptych(shown).items()
        )
        yield f'<h3>{escape(name)}: its worst frame</h3><div class="three">{figures}</div>'


def _slider(shown: Shown) -> str:
    before, after = (_data(jpeg(picture), "jpeg") for picture in before_and_after(shown))
    return (
        f'<div class="stage"><img alt="the translated picture" src="{after}">'
        f'<img class="before" alt="the frame" src="{before}"><div class="handle"></div>'
        '<span style="left: 10px">before</span><span style="right: 10px">after</span></div>'
        '<input type="range" min="0" max="100" value="50" aria-label="how much of the frame to show">'
    )


def _data(content: bytes, kind: str) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(content).decode('ascii')}"
