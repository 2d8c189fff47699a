"""``turbo-inspect``: what a bundle, plan or checkpoint is."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Optional

import typer

from .._console import Console
from ..engines.errors import UsageError
from .options import AsJson, Debug
from .present import tell_rows

if TYPE_CHECKING:
    from ..benchmarks.predict import Prediction


def main() -> None:
    """Entry point of ``turbo-inspect``."""
    typer.run(inspect)


def inspect(
    path: Annotated[Path, typer.Argument(metavar="BUNDLE|PLAN|CKPT", help="A bundle, a plan in one, or a checkpoint.")],
    ranges: Annotated[bool, typer.Option("--ranges", help="Only a bundle's FP16 ranges, stage by stage.")] = False,
    predict: Annotated[
        Optional[str],
        typer.Option(metavar="DEVICE,…", help="Only estimates for these devices, e.g. agx-orin,rtx-4090, or all."),
    ] = None,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Say what a bundle, plan or checkpoint is: tensors, sizes, provenance, parity, and what would run it here."""
    console = Console(as_json, quiet=False, debug=debug)
    with console.reporting_errors():
        from ..export.describe import describe, describe_ranges

        if ranges and predict is not None:
            raise UsageError("--ranges and --predict each say one thing only", hint="one of them")
        if predict is not None:
            description = describe_predictions(path, predict)
        else:
            description = describe_ranges(path) if ranges else describe(path)
        console.result(description)
        tell_rows(console, description)


def describe_predictions(path: Path, devices: str) -> dict[str, Any]:
    """What ``turbo-inspect --predict`` says: what the bundle in ``path`` is estimated to take on each device.

    Nothing is run, but for ``cpu``, which is measured. Raises UsageError for a device that is not in the table and a
    bundle without costs, InputError for what is no bundle, BundleError for a damaged one.
    """
    from ..benchmarks.devices import find
    from ..benchmarks.predict import predict
    from ..benchmarks.roofline import costs_of
    from ..engines.bundle import Bundle

    bundle = Bundle.open(path)
    costs = costs_of(bundle)
    found = find(devices)
    return {"bundle": str(bundle.root), "estimates": {device.name: _told(predict(costs, device)) for device in found}}


def _told(prediction: Prediction) -> dict[str, Any]:
    from ..benchmarks.predict import rows

    heading, line = rows([prediction])
    stages = [f"{stage.stage}: {stage.ms:,.3g} ms, {stage.bound_by}" for stage in prediction.per_stage]
    return {**dict(zip(heading, line, strict=True)), "stages": stages}
