"""Exports that several tests look at, and every process of a test run: one of them makes each, the others read it."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import pytest
from edgeturbo.engines.bundle import ONNX, Bundle
from edgeturbo.export.events import Event
from edgeturbo.export.recipe import ExportOptions
from edgeturbo.export.session import ExportReport, export_bundle
from shared import once
from unrepaired import export_keeping

KEPT = "kept"  # beside a bundle's folder: its graph before anything was measured


@dataclass
class Exported:
    """An export that succeeded: its options, its report and what it said on the way."""

    options: ExportOptions
    report: ExportReport
    events: list[Event]

    @property
    def root(self) -> Path:
        return self.report.bundle.root

    @property
    def unrepaired(self) -> Path:
        """The graph as it was before anything was measured, where ``export_into`` kept it."""
        return self.root.parent.parent / KEPT / ONNX


def place(folder: Path) -> Path:
    """Where an export in ``folder`` puts its bundle: it is alone there."""
    return folder / "alone" / "bundle"


def export_into(folder: Path, options: ExportOptions, *, keep: bool = False) -> None:
    """Export to ``place(folder)``, and write down what ``read_export`` reads."""
    events: list[Event] = []
    if keep:
        (folder / KEPT).mkdir()
        report = export_keeping(options, folder / KEPT, events.append)
    else:
        report = export_bundle(options, events.append)
    assert report.bundle == Bundle.open(place(folder))
    said = {"seconds": report.seconds, "notes": report.notes, "warnings": report.warnings}
    told = {**said, "events": [asdict(event) for event in events]}
    (folder / "told.json").write_text(json.dumps(told), encoding="utf-8")


def read_export(folder: Path, options: ExportOptions) -> Exported:
    told = json.loads((folder / "told.json").read_text(encoding="utf-8"))
    bundle = Bundle.open(place(folder))
    report = ExportReport(bundle, told["seconds"], tuple(told["notes"]), tuple(told["warnings"]))
    return Exported(options, report, [Event(**event) for event in told["events"]])


def export_once(
    factory: pytest.TempPathFactory, name: str, options_of: Callable[[Path], ExportOptions], *, keep: bool = False
) -> Exported:
    """The export called ``name`` with ``options_of(out)``. ``keep``: with the graph before anything was measured."""
    folder = once(factory, name, lambda made: export_into(made, options_of(place(made)), keep=keep))
    return read_export(folder, options_of(place(folder)))
