"""Reports of ``turbo-bench``: one self-contained HTML file, and the same as Markdown."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from ...engines.errors import OutputExistsError
from ...engines.files import replacing_folder
from .html import as_html
from .markdown import as_markdown

if TYPE_CHECKING:
    from ..result import BenchResult
    from ..row_suite import Shown

PAGE, TEXT, DATA = "report.html", "report.md", "results.json"


def refuse_foreign_folder(folder: Path) -> None:
    """Raise OutputExistsError unless ``folder`` is new, empty or holds an earlier report: it will be replaced whole."""
    if folder.exists() and not (folder / PAGE).is_file() and (not folder.is_dir() or any(folder.iterdir())):
        raise OutputExistsError(f"{folder} exists and is not a report", hint="choose another --report folder")


def write_report(folder: Path, result: BenchResult, shown: Mapping[str, Shown]) -> Path:
    """Write ``report.html``, ``report.md`` with its charts and pictures, and ``results.json``; returns the page.

    The folder appears whole or not at all, and replaces an earlier report. Raises OutputExistsError for another folder.
    """
    refuse_foreign_folder(folder)
    text, files = as_markdown(result, shown)
    with replacing_folder(folder) as staged:
        (staged / PAGE).write_text(as_html(result, shown), encoding="utf-8")
        (staged / TEXT).write_text(text, encoding="utf-8")
        (staged / DATA).write_text(result.to_json(), encoding="utf-8")
        for name, content in files.items():
            (staged / name).parent.mkdir(exist_ok=True)
            (staged / name).write_bytes(content)
    return folder / PAGE


__all__ = ["DATA", "PAGE", "TEXT", "as_html", "as_markdown", "refuse_foreign_folder", "write_report"]
