"""A row of the study of precisions: one bundle, made by ``turbo-export``, its plans, and what both cost."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..engines.bundle import Bundle
from ..engines.errors import UsageError
from ..engines.files import write_json
from . import devices
from .commands import Ran, run_command
from .precisions_figures import facts_of

PRECISIONS = ("fp32", "fp16", "int8", "fp8", "int8-weights", "mixed:int8", "mixed:fp8")
PREDICTED = "jetson-orin-nano-super,agx-orin,thor,rtx-4090"
_TARGET = "sm_89"

Row = dict[str, Any]


@dataclass(frozen=True)
class Study:
    """``ckpt`` at ``size`` (width, height) in each of ``precisions``, in ``work``.

    ``plans``: the backends to build for. ``device`` and ``min_psnr``: what mixtures are to be fast on and to keep, in
    dB. ``keep`` False deletes every bundle that all was read of.
    """

    ckpt: Path
    base: Path
    work: Path
    size: tuple[int, int]
    precisions: tuple[str, ...]
    plans: tuple[str, ...] = ()
    calibrate: Path | None = None
    device: str = "agx-orin"
    min_psnr: float = 35.0
    keep: bool = True

    def __post_init__(self) -> None:
        unknown = [name for name in self.precisions if name not in PRECISIONS]
        if unknown:
            raise UsageError("--precision names what is not known", expected=", ".join(PRECISIONS), got=unknown[0])

    def name(self, precision: str) -> str:
        mixture = f"-{self.device}" if precision.startswith("mixed:") else ""
        return f"{precision.replace(':', '-')}{mixture}-{self.size[0]}x{self.size[1]}"

    def bundle(self, precision: str) -> Path:
        return self.work / self.name(precision)


def made_row(study: Study, precision: str, tell: Callable[[str], None]) -> Row:
    """The row of ``precision``: what ``study.work`` has of it already, and what is missing is made now."""
    path = study.work / "rows" / f"{study.name(precision)}.json"
    row: Row = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {"precision": precision}
    if "export" not in row:
        tell(f"{study.name(precision)}: turbo-export …")
        row |= _exported(study, precision)
    if study.bundle(precision).exists():
        row |= facts_of(study.bundle(precision), devices.find(PREDICTED))
    write_json(path, row)
    for backend in study.plans:
        if backend not in row["plans"] and row["export"]["error"] is None:
            tell(f"{study.name(precision)}: turbo-build --engine {backend} …")
            row["plans"][backend] = _built(study.bundle(precision), backend)
            write_json(path, row)
    if not study.keep and row["plans"]:
        shutil.rmtree(study.bundle(precision), ignore_errors=True)
    return row


def rows_of(work: Path) -> list[Row]:
    """All rows that were ever made in ``work``, the largest size first and in the order of PRECISIONS.

    ``key`` is what a row is called: its precision, and for mixtures their device; ``bundle`` its folder's name.
    """
    found = [
        {"key": _key(row), "bundle": path.stem, **row}
        for path in sorted((work / "rows").glob("*.json"))
        for row in (json.loads(path.read_text(encoding="utf-8")),)
    ]
    return sorted(found, key=lambda row: (-row["size"][0], PRECISIONS.index(row["precision"]), row["key"]))


def _key(row: Row) -> str:
    device = (row.get("quantisation") or {}).get("device")
    return f"{row['precision']} for {device}" if device else str(row["precision"])


def _exported(study: Study, precision: str) -> Row:
    ran = run_command("export", _words(study, precision))
    stages = ran.result.get("seconds", {})
    return {"size": list(study.size), "export": {**_cost(ran), "stages": stages}, "plans": {}}


def _words(study: Study, precision: str) -> list[str]:
    words = [
        "--ckpt", str(study.ckpt), "--base", str(study.base), "--direction", "a2b", "--prompt", "driving in the night",
        "--size", f"{study.size[0]}x{study.size[1]}", "--precision", precision, "--engine", "onnx",
        "--out", str(study.bundle(precision)), "--force",
        "--parity-frames", "1",
    ]  # fmt: skip
    if precision.startswith("mixed:"):
        words += ["--device", study.device, "--min-psnr", f"{study.min_psnr:g}"]
    if study.calibrate is not None and precision != "fp32":
        words += ["--calibrate", str(study.calibrate)]
    return words


def _built(bundle: Path, backend: str) -> Row:
    target = ["--target", _TARGET] if backend == "tensorrt-rtx" else []
    ran = run_command("build", [str(bundle), "--engine", backend, *target])
    if ran.exit != 0:
        return _cost(ran)
    plans = {entry.backend: entry.plan for entry in Bundle.open(bundle).manifest.engines}
    return {**_cost(ran), "bytes": _size(bundle / plans[backend]), "target": _TARGET if target else "this CPU"}


def _size(plan: Path) -> int:
    """A plan's bytes; OpenVINO's weights lie beside its graph."""
    return sum(path.stat().st_size for path in {plan, plan.with_suffix(".bin")} if path.exists())


def _cost(ran: Ran) -> Row:
    return {
        "seconds": ran.seconds, "cpu_seconds": ran.cpu_seconds, "peak_rss_bytes": ran.peak_rss_bytes,
        "error": ran.error,
    }  # fmt: skip
