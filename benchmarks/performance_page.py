"""``python -m edgeturbo.benchmarks.performance_page``: the figures of the pages in docs, from benchmarks/results.

The pages are written by hand but for what stands between ``made:begin NAME`` and ``made:end NAME``, and the tables of
``gpu_check``. A test regenerates it: a figure that nobody measured cannot stand there.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, cast

import typer

from .._console import Console
from ..engines._schema import decode
from ..engines.errors import InputError, UsageError
from ..engines.files import replacing
from .gpu_check.options import CheckOptions, Device, ModelSize
from .gpu_check.record import StageRecord
from .gpu_check.report import MORE, markdown, with_block
from .performance_blocks import BLOCKS
from .performance_text import Block

_MARKED = re.compile(r"<!-- made:begin ([a-z-]+) -->\n(.*?)<!-- made:end \1 -->", re.DOTALL)
_IMAGES = "images"
PAGES = (Path("docs/performance.md"), Path("docs/precision.md"))
Results = Mapping[str, Any]


def main(
    results: Annotated[Path, typer.Option(help="Where the figures are.")] = Path("benchmarks/results"),
    page: Annotated[list[Path] | None, typer.Option(help="A page to bring up to date; default: both.")] = None,
) -> None:
    """Bring the pages and their charts up to date with the figures."""
    console = Console()
    with console.reporting_errors():
        for path in page or PAGES:
            for written in write_page(path, results):
                console.say(str(written))


def write_page(page: Path, results: Path) -> list[Path]:
    """Write the page and its charts, each whole or not at all; returns their paths.

    Raises InputError for figures that cannot be read, UsageError for a page with an unknown block.
    """
    text, charts = made_page(page.read_text(encoding="utf-8"), read_results(results))
    files = {page: text, **{page.parent / name: chart for name, chart in charts.items()}}
    for path, content in files.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as temporary:
            temporary.write_text(content, encoding="utf-8")
    return list(files)


def read_results(folder: Path) -> Results:
    """Every JSON file in ``folder``, by its name without the ending. Raises InputError for a damaged one."""
    found = {}
    for path in sorted(folder.glob("*.json")):
        try:
            found[path.stem] = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise InputError(f"cannot read the figures in {path}: {error}", hint="git checkout the file") from error
    return found


def made_page(text: str, results: Results) -> tuple[str, dict[str, str]]:
    """``text`` with every block and every machine's table made anew, and the charts by their paths beside the page."""
    charts: dict[str, str] = {}

    def made(match: re.Match[str]) -> str:
        name = match.group(1)
        if name not in BLOCKS:
            raise UsageError(f"the page has a block {name} that nobody makes", expected=", ".join(BLOCKS))
        block = BLOCKS[name](results)
        charts.update({f"{_IMAGES}/{file}": chart for file, chart in block.charts.items()})
        return f"<!-- made:begin {name} -->\n{_body(block)}<!-- made:end {name} -->"

    text = _MARKED.sub(made, text)
    for name, summary in results.items():
        if "stages" in summary and MORE in text:
            text = with_block(text, name, _machine(name, summary))
    return text, charts


def _body(block: Block) -> str:
    pictures = [f"![{_alt(chart)}]({_IMAGES}/{file})" for file, chart in block.charts.items()]
    return "\n\n".join([*block.lines[:1], *pictures, *block.lines[1:]]) + "\n"


def _alt(chart: str) -> str:
    found = re.search(r'aria-label="([^"]*)"', chart)
    return found.group(1) if found else ""


def _machine(name: str, summary: dict[str, Any]) -> str:
    """What ``gpu_check`` writes of one machine, from its summary."""
    records = [decode(StageRecord, stage) for stage in summary["stages"]]
    model, device = cast("ModelSize", summary["model"]), cast("Device", summary["device"])
    options = CheckOptions(Path("work"), Path("results"), model, device)
    return markdown(name, {record.stage: record for record in records}, options)


if __name__ == "__main__":
    typer.run(main)
