"""``python -m edgeturbo.export.demo``: the whole chain on the bundled checkpoint, and pictures of what it does."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import numpy as np
import typer

from ..._console import Console
from ...runtime.image import Frame, load_frame, save_image
from ...runtime.pictures import PictureRequest, translate_files
from ...runtime.translator import Translator
from ..events import telling
from ..recipe import ExportOptions
from ..session import export_bundle
from . import demo_base, demo_checkpoint, demo_frames

_GAP = 8  # pixels of white between pictures of the contact sheet


def main(
    out: Annotated[Path, typer.Option(help="Where to put the bundle and the pictures.")] = Path("demo-out"),
) -> None:
    """Export the bundled checkpoint, translate the bundled photographs on the CPU, and lay them side by side."""
    console = Console()
    with console.reporting_errors():
        with console.progress() as show:
            _export(console, out / "day2night", show)
        with Translator(out / "day2night", engine="onnxruntime") as translator:
            console.note(translator.reason)
            summary = translate_files(
                translator, PictureRequest(demo_frames()[0].parent, f"{out / 'night'}/", force=True)
            )
        sheet = out / "contact_sheet.png"
        save_image(contact_sheet([(load_frame(r.source), load_frame(r.target)) for r in summary.results]), sheet)
        for path in (out / "day2night", *(result.target for result in summary.results), sheet):
            console.say(str(path))


def _export(console: Console, out: Path, show: Callable[[str, float | None], None]) -> None:
    options = ExportOptions(ckpt=demo_checkpoint(), base=str(demo_base()), out=out, force=True, command="make demo")
    report = export_bundle(options, telling(console, show))
    parity = report.bundle.manifest.parity
    if parity is not None:
        console.say(f"parity with PyTorch FP32: PSNR {parity.psnr_db} dB, SSIM {parity.ssim}")
    console.say(f"seconds: {sum(report.seconds.values()):.0f} in all, {report.seconds}")


def contact_sheet(pairs: list[tuple[Frame, Frame]]) -> Frame:
    """Input | output, one pair below the other, uint8 RGB; a pair's pictures have one size, pairs may differ."""
    width = max(frame.shape[1] + image.shape[1] for frame, image in pairs) + _GAP
    height = sum(frame.shape[0] for frame, _ in pairs) + _GAP * (len(pairs) - 1)
    sheet = np.full((height, width, 3), 255, dtype=np.uint8)
    top = 0
    for frame, image in pairs:
        sheet[top : top + frame.shape[0], : frame.shape[1]] = frame
        left = frame.shape[1] + _GAP
        sheet[top : top + image.shape[0], left : left + image.shape[1]] = image
        top += frame.shape[0] + _GAP
    return sheet


if __name__ == "__main__":
    typer.run(main)
