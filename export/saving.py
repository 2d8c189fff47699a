"""A generator's graph written over the files that it was read from."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from ..engines.files import writing_to

if TYPE_CHECKING:
    import onnx_ir as ir


def save_over(model: ir.Model, onnx: Path) -> None:
    """Write ``model``, whose weights may still be read from the files at ``onnx``, and then put it in their place.

    Raises DiskFullError and UsageError; the old files are then as they were.
    """
    import onnx_ir as ir

    with writing_to(onnx), tempfile.TemporaryDirectory(prefix=f".{onnx.name}.", dir=onnx.parent) as folder:
        ir.save(model, Path(folder) / onnx.name, external_data=f"{onnx.name}.data")
        # The weights first; a graph so small that it holds them itself has no such file.
        for part in sorted(Path(folder).iterdir(), key=lambda part: part.name == onnx.name):
            part.replace(onnx.with_name(part.name))
