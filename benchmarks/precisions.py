"""``python -m edgeturbo.benchmarks.precisions``: one checkpoint in every precision: bytes, estimates, pictures, times.

Each bundle is made by ``turbo-export`` itself, in a process that is watched. What ended is kept in WORK/rows and not
repeated; delete a file there and it is. ``--full-size`` takes the random weights of ``make full-size`` instead of the
demo: there seconds, bytes and memory are real, pictures mean nothing, and bundles are deleted once their figures and
plans are recorded.
"""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
import typer

from .._console import Console
from ..engines.errors import EdgeTurboError, UsageError
from ..engines.files import replacing, write_json
from ..engines.frame_layout import size_of
from ..export.demo import demo_base, demo_checkpoint, demo_frames
from .environment import finished, read_environment
from .latency import StoppingRule
from .precisions_figures import ENGINES, engine_images, judged_frames, pytorch_images, quality_of, times_of
from .precisions_picture import strip
from .precisions_rows import PRECISIONS, Study, made_row, rows_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

RESULTS = "precisions.json"
_EXACT = "pytorch-fp32"
_SHOWN, _BOX = 1, (316, 24, 486, 194)  # a judged frame with a lamp and a roof; left, upper, right, lower
_LEAST_ROUNDS, _SECONDS = 8, 300.0


def main(  # noqa: PLR0913, PLR0917 -- each is an option of the command
    work: Annotated[Path, typer.Option(metavar="DIR", help="For bundles, plans and what was measured.")] = Path(
        "precisions"
    ),
    results: Annotated[Path, typer.Option(metavar="DIR", help="Where to put the figures.")] = Path(
        "benchmarks/results"
    ),
    ckpt: Annotated[Path | None, typer.Option(help="A CycleGAN-Turbo checkpoint; default: the demo's.")] = None,
    base: Annotated[Path | None, typer.Option(help="Its base model; default: the demo's.")] = None,
    precision: Annotated[list[str] | None, typer.Option(help=f"Default: {', '.join(PRECISIONS)}.")] = None,
    size: Annotated[str, typer.Option(metavar="WxH", help="The generator's size.")] = "512x512",
    calibrate: Annotated[Path | None, typer.Option(metavar="DIR", help="Pictures for ranges and scales.")] = None,
    device: Annotated[str, typer.Option(help="What mixtures are to be fast on.")] = "agx-orin",
    min_psnr: Annotated[float, typer.Option(help="What mixtures have to keep, in dB.")] = 35.0,
    plan: Annotated[list[str] | None, typer.Option(help="Backends to build plans with; none: no plans.")] = None,
    rounds: Annotated[int, typer.Option(help="The most rounds of timing on this CPU; 0: none.")] = 0,
    picture: Annotated[Path | None, typer.Option(help="Write a strip of crops here, a JPEG.")] = None,
    full_size: Annotated[bool, typer.Option("--full-size", help="Random weights: see above.")] = False,
) -> None:
    """Export a checkpoint in each precision and write down what each costs and what it does to pictures."""
    console = Console()
    with console.reporting_errors():
        if full_size and (ckpt is None or base is None):
            raise UsageError(
                "--full-size needs its weights", hint="--ckpt full-size/cyclegan.pkl --base full-size/base"
            )
        study = Study(
            ckpt or demo_checkpoint(), base or demo_base(), work, size_of(size, "--size"),
            tuple(precision or PRECISIONS), tuple(plan or ()), calibrate, device, min_psnr,
            keep=not full_size,
        )  # fmt: skip
        environment = read_environment()
        for name in study.precisions:
            made_row(study, name, console.note)
        found: dict[str, Any] = {"rows": rows_of(work)}
        if not full_size:
            found |= _measured(study, rounds, console.note)
        found["environment"] = asdict(finished(environment))
        console.say(str(_record(results / RESULTS, "full_size" if full_size else "demo", found)))
        if picture is not None:
            _write_strip(study, picture)


def _record(target: Path, part: str, found: dict[str, Any]) -> Path:
    whole = json.loads(target.read_text(encoding="utf-8")) if target.exists() else {}
    write_json(target, {**whole, part: found})
    return target


def _measured(study: Study, rounds: int, tell: Callable[[str], None]) -> dict[str, Any]:
    """Pictures of every bundle that is there, held against PyTorch's; times, where ``rounds`` asks for them."""
    bundles = {row["key"]: study.work / row["bundle"] for row in rows_of(study.work)}
    bundles = {key: bundle for key, bundle in bundles.items() if bundle.exists()}
    if not bundles:
        return {}
    frames, any_of_them = judged_frames(demo_frames()), next(iter(bundles.values()))
    exact = _kept(study, _EXACT, lambda: pytorch_images(any_of_them, study.ckpt, str(study.base), frames), tell)
    quality: dict[str, Any] = {engine: {} for engine in ENGINES}
    for engine in ENGINES:
        for name, bundle in bundles.items():
            quality[engine][name] = _quality(study, exact, engine, bundle, frames, tell)
    times = study.work / "times.json"
    if rounds:
        rule = StoppingRule(least=min(_LEAST_ROUNDS, rounds), most=rounds, seconds=_SECONDS)
        environment = read_environment()
        taken = times_of(bundles, frames[0], rule)
        write_json(times, {**taken, "environment": asdict(finished(environment))})
    return {
        "frames": f"{len(frames)} pictures: each bundled photograph and its quarters",
        "quality": quality,
        "times": json.loads(times.read_text(encoding="utf-8")) if times.exists() else None,
    }


def _quality(
    study: Study, exact: NDArray[np.uint8], engine: str, bundle: Path, frames: list[NDArray[np.uint8]],
    tell: Callable[[str], None],
) -> dict[str, Any]:  # fmt: skip
    try:
        got = _kept(study, f"{bundle.name}-{engine}", lambda: engine_images(bundle, engine, frames), tell)
    except EdgeTurboError as error:
        return {"not_run": error.what}
    return quality_of(exact, got)


def _kept(
    study: Study, name: str, make: Callable[[], NDArray[np.uint8]], tell: Callable[[str], None]
) -> NDArray[np.uint8]:
    """Pictures that were made before, or are made now and kept."""
    path = study.work / "pictures" / f"{name}.npy"
    if not path.exists():
        tell(f"{name}: pictures …")
        images = make()
        with replacing(path) as temporary, temporary.open("wb") as file:
            np.save(file, images)
    return np.asarray(np.load(path), dtype=np.uint8)


def _write_strip(study: Study, picture: Path) -> None:
    folder = study.work / "pictures"
    exact = np.load(folder / f"{_EXACT}.npy")[_SHOWN]
    shown = {"PyTorch FP32": exact}
    for row in rows_of(study.work):
        path = folder / f"{row['bundle']}-{ENGINES[0]}.npy"
        if row["precision"] != "fp32" and path.exists():
            shown[row["precision"]] = np.load(path)[_SHOWN]
    with replacing(picture) as temporary:
        strip(exact, shown, _BOX).save(temporary, format="JPEG", quality=85)


if __name__ == "__main__":
    typer.run(main)
