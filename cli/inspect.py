"""``turbo-inspect``: what a bundle, plan or checkpoint is."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .._console import Console
from .options import AsJson, Debug
from .present import tell_rows


def main() -> None:
    """Entry point of ``turbo-inspect``."""
    typer.run(inspect)


def inspect(
    path: Annotated[Path, typer.Argument(metavar="BUNDLE|PLAN|CKPT", help="A bundle, a plan in one, or a checkpoint.")],
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Say what a bundle, plan or checkpoint is: tensors, sizes, provenance, parity, and what would run it here."""
    console = Console(as_json, quiet=False, debug=debug)
    with console.reporting_errors():
        from ..export.describe import describe

        description = describe(path)
        console.result(description)
        tell_rows(console, description)
