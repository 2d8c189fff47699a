"""``make full-size``: exports at SD-Turbo's true size with random weights: what they cost in time, memory and disk.

Weights of the right sizes and scales stand in for the published ones, which this repository does not hold: seconds,
bytes and whether it all fits are real, the pictures mean nothing.
"""

from __future__ import annotations

import shutil
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .._console import Console
from ..engines.errors import DeviceError
from ..engines.files import write_json
from ..export.demo import demo_frames
from .commands import Ran, run_command
from .environment import finished, read_environment
from .synthetic import SD_TURBO, write_base, write_cyclegan, write_pix2pix

if TYPE_CHECKING:
    from ..export.recipe import ExportOptions

_TARGET = "sm_89"
_PROMPT, _DIRECTION = "driving in the night", "a2b"
_GATES = ("range ledger", "PyTorch reference", "parity")
_BAR_SECONDS, _BAR_BYTES_RESIDENT, _BAR_BYTES_DATA = 120, 8_000_000_000, 1_800_000_000


@dataclass(frozen=True)
class Case:
    """One checkpoint to export, and the flags it needs."""

    name: str
    flags: tuple[str, ...]


CASES = (
    Case("cyclegan", ("--direction", _DIRECTION, "--prompt", _PROMPT)),
    Case("pix2pix", ("--prompt", "a photo of a cat")),
)


def main(
    work: Annotated[Path, typer.Option(help="Where to put 11 GB of weights and bundles.")] = Path("full-size"),
    results: Annotated[Path, typer.Option(help="Where to put the figures.")] = Path("benchmarks/results"),
) -> None:
    """Write a base and checkpoints of both families, export each at 512x512 FP16, run one frame, record the costs."""
    console = Console()
    with console.reporting_errors():
        environment = read_environment()
        work.mkdir(parents=True, exist_ok=True)
        _write_weights(console, work)
        figures = [_measure(console, work, case) for case in CASES]
        target = results / "full_size.json"
        write_json(target, {"environment": asdict(finished(environment)), "exports": figures}, indent=2)
        console.say(str(target))


def cyclegan_options(work: Path, width: int, height: int) -> ExportOptions:
    """How the CycleGAN-Turbo checkpoint that stands in ``work`` is exported at a size in pixels."""
    from ..export.recipe import ExportOptions

    return ExportOptions(
        work / "cyclegan.pkl", base=str(work / "base"), prompt=_PROMPT, direction=_DIRECTION, width=width, height=height
    )


def _write_weights(console: Console, work: Path) -> None:
    if (work / "pix2pix.pkl").exists():
        return
    console.note("writing a random base model and checkpoints at SD-Turbo's size …")
    write_base(work / "base", SD_TURBO)
    write_cyclegan(work / "base", work / "cyclegan.pkl", rank_unet=128)
    write_pix2pix(work / "base", work / "pix2pix.pkl")


def _measure(console: Console, work: Path, case: Case) -> dict[str, Any]:
    bundle = work / f"{case.name}-bundle"
    shutil.rmtree(bundle, ignore_errors=True)
    console.note(f"exporting {case.name} …")
    flags = [*case.flags, "--base", str(work / "base"), "--target", _TARGET, "--out", str(bundle)]
    exported = _done("export", ["--ckpt", str(work / f"{case.name}.pkl"), *flags])
    console.note(f"running {case.name} …")
    words = [str(bundle), str(demo_frames()[0]), str(work / f"{case.name}.png"), "--force", "--engine", "onnxruntime"]
    ran = _done("run", words)
    seconds = exported.result["seconds"]
    without_gate = sum(s for name, s in seconds.items() if name not in _GATES)
    data = (bundle / "generator.onnx.data").stat().st_size
    return {
        "checkpoint": case.name,
        "checkpoint_bytes": (work / f"{case.name}.pkl").stat().st_size,
        "seconds": seconds,
        "seconds_to_plan_without_the_gate": round(without_gate, 1),
        "seconds_in_all": round(sum(seconds.values()), 1),
        "export_peak_rss_bytes": exported.peak_rss_bytes,
        "run_peak_rss_bytes": ran.peak_rss_bytes,
        "frame_ms_onnxruntime": ran.result["pictures"][0]["translate_ms"],
        "psnr_db": exported.result["psnr_db"],
        "bars_met": {
            "120 s to the plan without the gate": without_gate <= _BAR_SECONDS,
            "8 GB of resident memory with it": exported.peak_rss_bytes <= _BAR_BYTES_RESIDENT,
            "1.8 GB of ONNX data": data <= _BAR_BYTES_DATA,
        },
        "bytes": {
            name: (bundle / name).stat().st_size for name in ("generator.onnx", "generator.onnx.data", "engine.plan")
        },
    }


def _done(name: str, words: list[str]) -> Ran:
    """``turbo-NAME WORDS`` in a process of its own. Raises DeviceError when it fails, with what it said."""
    ran = run_command(name, words)
    if ran.error is not None:
        raise DeviceError(f"turbo-{name} failed with exit code {ran.exit}: {ran.error}")
    return ran


if __name__ == "__main__":
    typer.run(main)
