"""What the export tests share: tiny models written once, opened goldens, and the only two exports they make."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch
from edgeturbo.benchmarks import synthetic
from edgeturbo.engines.errors import RangeError
from edgeturbo.export.base import BaseModel, open_base
from edgeturbo.export.demo import demo_base
from edgeturbo.export.recipe import ExportOptions
from edgeturbo.export.session import Event, ExportReport, export_bundle
from tiny import GOLDEN, GOLDEN_BASE, Tiny

PROMPT = "a prompt"


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Tiny:
    if not demo_base().exists():
        synthetic.demo_base = lambda: GOLDEN_BASE
    return Tiny(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="session")
def golden_base() -> BaseModel:
    return open_base(str(GOLDEN_BASE))


@pytest.fixture
def edited(tmp_path: Path) -> Callable[..., Path]:
    """``edited(path, change)``: a copy of a checkpoint whose content ``change`` was applied to."""

    def make(path: Path, change: Callable[[dict[str, Any]], object], name: str = "edited.pkl") -> Path:
        content = torch.load(path, weights_only=True)
        change(content)
        torch.save(content, tmp_path / name)
        return tmp_path / name

    return make


@dataclass
class Exported:
    """An export that succeeded: its options, its report and what it said on the way."""

    options: ExportOptions
    report: ExportReport
    events: list[Event]

    @property
    def root(self) -> Path:
        return self.report.bundle.root


@dataclass
class Overflow:
    """An export that the range ledger refused, over a folder where something stood before."""

    error: RangeError
    out: Path
    before: dict[str, bytes]
    after: dict[str, bytes] = field(default_factory=dict)


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture(scope="session")
def overflow(tmp_path_factory: pytest.TempPathFactory) -> Overflow:
    """The golden checkpoint with the delta that makes a convolution overflow, refused while an old bundle stands."""
    folder = tmp_path_factory.mktemp("overflow")
    content = torch.load(GOLDEN / "cyclegan.pkl", weights_only=True)
    for part, delta in torch.load(GOLDEN / "cyclegan_overflow_delta.pt", weights_only=True).items():
        content[part].update(delta)
    torch.save(content, folder / "overflow.pkl")
    out = folder / "parent" / "bundle"
    out.mkdir(parents=True)
    # All that --force looks for; that it is no bundle of ours shows that nothing reads or rewrites it.
    (out / "manifest.json").write_text("{}")
    (out / "generator.onnx").write_bytes(b"the earlier one")
    before = contents(out.parent)
    options = ExportOptions(
        folder / "overflow.pkl", out, str(GOLDEN_BASE), "driving in the night", "a2b",
        width=64, height=64, precision="fp16", engine="onnx", parity_frames=1, force=True,
    )  # fmt: skip
    with pytest.raises(RangeError) as caught:
        export_bundle(options)
    return Overflow(caught.value, out, before, contents(out.parent))


def tiny_options(tiny: Tiny, out: Path) -> ExportOptions:
    return ExportOptions(
        tiny.cyclegan(), out, str(tiny.base), PROMPT, "a2b",
        width=64, height=64, precision="fp32", engine="onnx", parity_frames=1, command="turbo-export …",
    )  # fmt: skip


@pytest.fixture(scope="session")
def exported(tiny: Tiny, tmp_path_factory: pytest.TempPathFactory, overflow: Overflow) -> Exported:
    """A tiny FP32 bundle. It is traced second in this process, after ``overflow``: that must not show in its bytes."""
    assert overflow.error
    options = tiny_options(tiny, tmp_path_factory.mktemp("exported") / "bundle")
    events: list[Event] = []
    return Exported(options, export_bundle(options, events.append), events)
