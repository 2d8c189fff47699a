"""An export that keeps its graph as it was before anything was measured, to show what a repair changes."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgeturbo.engines.bundle import ONNX, ONNX_DATA
from edgeturbo.export.events import Event
from edgeturbo.export.recipe import ExportOptions
from edgeturbo.export.session import ExportReport, _Session


@dataclass
class _Keeping(_Session):
    kept: Path = Path()

    def _write_onnx(self, prepared: Any, root: Path) -> Any:
        result = super()._write_onnx(prepared, root)
        for name in (ONNX, ONNX_DATA):
            shutil.copyfile(root / name, self.kept / name)
        return result


def export_keeping(options: ExportOptions, kept: Path, on_event: Callable[[Event], None]) -> ExportReport:
    """``export_bundle``, with the unrepaired ONNX files in the folder ``kept``, which exists."""
    return _Keeping(options, on_event, kept=kept).run()
