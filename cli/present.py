"""What the commands say of their results: for a person line by line, for a machine as one line of JSON."""

from __future__ import annotations

import shlex
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .._console import Console
    from ..engines.manifest import EngineEntry
    from ..export.plans import BuildReport
    from ..export.session import ExportReport
    from ..runtime.pictures import PictureFailure, PictureResult


def tell_export(console: Console, report: ExportReport) -> None:
    manifest, root = report.bundle.manifest, report.bundle.root
    model, parity = manifest.model, manifest.parity
    size = sum(entry.bytes for entry in manifest.files.values())
    kind = " ".join(filter(None, (model.family, model.direction, f"{model.width}x{model.height}", model.precision)))
    console.say(f"{root}: {kind}, {size / 1e6:,.1f} MB")
    if parity:
        psnr = "equal" if parity.psnr_db is None else f"{parity.psnr_db:.1f} dB"
        console.say(
            f"  parity with PyTorch FP32: PSNR {psnr}, SSIM {parity.ssim:.4f}, largest difference {parity.max_abs:.2g}"
        )
    for entry in manifest.engines:
        tell_plan(console, entry)
    console.say(f"  next: turbo-run {shlex.quote(str(root))} frame.jpg")
    console.result({
        "bundle": str(root), "bytes": size, "seconds": report.seconds, "warnings": list(report.warnings),
        "psnr_db": parity.psnr_db if parity else None, "max_abs": parity.max_abs if parity else None,
        "plans": [entry.plan for entry in manifest.engines],
    })  # fmt: skip


def tell_picture(console: Console, outcome: PictureResult | PictureFailure) -> None:
    from ..runtime.pictures import PictureFailure

    if isinstance(outcome, PictureFailure):
        sys.stderr.write(f"error: {outcome.error}\n")
        return
    if outcome.fault:
        console.warn(f"{outcome.target} is a bad picture ({outcome.fault}): it broke in the network")
    if outcome.note:
        console.note(f"{outcome.source}: {outcome.note}")
    console.say(f"{outcome.source} -> {outcome.target}  ({outcome.translate_ms:,.0f} ms)")


def picture_data(result: PictureResult) -> dict[str, Any]:
    return {
        "input": str(result.source), "output": str(result.target), "decode_ms": round(result.decode_ms, 2),
        "translate_ms": round(result.translate_ms, 2), "encode_ms": round(result.encode_ms, 2),
        "bad_frame": result.fault,
    }  # fmt: skip


def tell_rows(console: Console, description: dict[str, Any], indent: str = "") -> None:
    """Nested data as indented lines: short values on one line, lists and tables below their name."""
    for name, value in description.items():
        if isinstance(value, dict):
            console.say(f"{indent}{name}:")
            tell_rows(console, value, indent + "  ")
        elif isinstance(value, list):
            console.say(f"{indent}{name}:{'' if value else ' none'}")
            for item in value:
                console.say(f"{indent}  - {item}")
        else:
            console.say(f"{indent}{name}: {value}")


def tell_plan(console: Console, entry: EngineEntry) -> None:
    """A plan in a few lines: what made it, for what, and what is known of its pictures."""
    console.say(f"  {entry.plan}: {entry.backend} {entry.version} for {', '.join(entry.targets)}")
    if entry.parity:
        psnr = "equal" if entry.parity.psnr_db is None else f"PSNR {entry.parity.psnr_db:.1f} dB"
        console.say(f"    on this device against the goldens: {psnr}, up to {entry.parity.max_levels} grey levels")
    for sentence in entry.unchecked:
        console.say(f"    not checked here: {sentence}")


def tell_build(console: Console, report: BuildReport) -> None:
    """What ``turbo-build`` did."""
    root, entry = report.bundle.root, report.entry
    console.say(f"{root}: {report.reason}")
    tell_plan(console, entry)
    console.say(f"  next: turbo-run {shlex.quote(str(root / entry.plan))} frame.jpg")
    console.result({
        "bundle": str(root), "plan": entry.plan, "backend": entry.backend, "version": entry.version,
        "targets": list(entry.targets), "built": report.built, "reason": report.reason, "seconds": report.seconds,
        "psnr_db": entry.parity.psnr_db if entry.parity else None, "unchecked": list(entry.unchecked),
    })  # fmt: skip
