"""The same bundle at other sizes and batches: exported again from its checkpoint, each past the export's own gates."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from ..engines.bundle import ONNX
from ..engines.errors import EdgeTurboError, MissingComponentError, UsageError
from ..engines.select import ONNXRUNTIME, TENSORRT_RTX
from .apart import call_apart
from .devices import DEVICES, Device
from .result import SWEEP, Shape
from .rivals import same_options
from .roofline import mixture_target
from .rows import RowPlan, Setting, plan_row

if TYPE_CHECKING:
    from ..engines.manifest import Quantisation
    from ..engines.select import Choice
    from ..export.recipe import ExportOptions

Tell = Callable[[str], None]


@dataclass(frozen=True)
class Sweep:
    """``sizes`` (width, height) at the bundle's own batch, and ``batches`` at its own size; its own are left out."""

    sizes: tuple[tuple[int, int], ...] = ()
    batches: tuple[int, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.sizes or self.batches)

    def shapes(self, own: Shape) -> list[Shape]:
        """What remains to be exported, each once."""
        sizes = [replace(own, width=width, height=height) for width, height in self.sizes]
        batches = [replace(own, batch=batch) for batch in self.batches]
        return [shape for shape in dict.fromkeys([*sizes, *batches]) if shape != own]


@dataclass(frozen=True)
class Swept:
    """A further size or batch: its ``plan``, or the reason why there is none."""

    shape: Shape
    label: str
    plan: RowPlan | None = None
    why: str = ""


def refuse_without_checkpoint(setting: Setting, sweep: Sweep) -> None:
    """Raise UsageError unless there is a checkpoint to export again from, or nothing to export."""
    if sweep and setting.ckpt is None:
        asked = [
            ("--size", ",".join(f"{w}x{h}" for w, h in sweep.sizes)),
            ("--batch", ",".join(map(str, sweep.batches))),
        ]
        words = " ".join(f"{flag} {text}" for flag, text in asked if text)
        raise UsageError(
            "a bundle is for one size and one batch and holds no checkpoint: others are exported again from that",
            expected="--ckpt and --base, from which the bundle was made", got=words,
            hint=f"turbo-bench {setting.bundle} {words} --ckpt day2night.pkl --base {setting.base}",
        )  # fmt: skip


def export_sweep(setting: Setting, sweep: Sweep, choice: Choice, folder: Path, tell: Tell) -> list[Swept]:
    """Export the bundle for every further shape into ``folder``, each in a process of its own, one after the other.

    With the bundle's own options, and for what runs it here (``choice``). A shape that cannot be exported, or that the
    parity gate refuses, comes back with the reason. Raises UsageError for another checkpoint than the bundle's.
    """
    model = choice.bundle.manifest.model
    own = Shape(model.width, model.height, model.batch)
    shapes = sweep.shapes(own)
    if not shapes:
        return []
    options, told = quantised_alike(same_options(setting, choice.bundle), choice.bundle.manifest.quantisation)
    found = []
    for shape in shapes:
        label = _label(shape, own) + told
        tell(f"exporting{label}")
        out = folder / str(shape).replace(" ", "-")
        wanted = replace(options, out=out, width=shape.width, height=shape.height, batch=shape.batch)
        try:
            call_apart(_export, _built_alike(wanted, choice))
            found.append(Swept(shape, label, _plan(setting, choice, out, label)))
        except EdgeTurboError as error:
            found.append(Swept(shape, label, why=str(error)))
    return found


def quantised_alike(options: ExportOptions, found: Quantisation | None) -> tuple[ExportOptions, str]:
    """``options`` that quantise as ``found`` says the bundle was, and what is to be said of a row made with them.

    A bundle does not hold the pictures that it was calibrated on: the bundled ones stand in. What is fastest, and what
    keeps the bound, depends on the size and the batch: a mixture is searched again for its own device and its bound.
    Raises UsageError when that device is none of the table's.
    """
    if found is None or not found.method:  # weights alone are quantised as they are
        return options, ""
    options, told = replace(options, method=found.method), ", calibrated on the bundled photographs"
    if found.min_psnr_db is None:
        return options, told
    target = mixture_target(_device(found.device))
    told = f", mixed anew for {found.device} at {found.min_psnr_db:g} dB{told}"
    return replace(options, min_psnr=found.min_psnr_db, target=target), told


def _device(name: str) -> Device:
    """The one that a manifest calls ``name``."""
    found = next((device for device in DEVICES.values() if device.name == name), None)
    if found is None:
        raise UsageError(
            "the bundle's mixture of precisions is for a device that the table does not have",
            expected=", ".join(device.name for device in DEVICES.values()), got=name,
            hint="leave --size and --batch out",
        )  # fmt: skip
    return found


def _label(shape: Shape, own: Shape) -> str:
    return f", batch {shape.batch}" if shape.batch != own.batch else f" at {shape.width}x{shape.height}"


def _built_alike(options: ExportOptions, choice: Choice) -> ExportOptions:
    """``options`` that also build the kind of plan that runs the bundle here."""
    if choice.plan is None:
        return options
    entry = choice.bundle.engine(choice.plan)
    targets = entry.targets if choice.backend == TENSORRT_RTX else options.targets
    return replace(options, engine=choice.backend, targets=targets)  # type: ignore[arg-type] # plans' backends are such


def _export(options: ExportOptions) -> None:
    """In a process of its own: what PyTorch and the checkpoint take is gone with it."""
    from ..export.session import export_bundle

    export_bundle(options)


def _plan(setting: Setting, choice: Choice, out: Path, label: str) -> RowPlan:
    # The ONNX file by its name is run by ONNX Runtime on the CPU, a folder by the first that can.
    path = out / ONNX if choice.backend == ONNXRUNTIME else out
    there = Setting(path, setting.ckpt, setting.base)
    plan = plan_row(there, "bundle")
    if plan.choice is None or plan.choice.backend != choice.backend:
        backend = plan.choice.backend if plan.choice else "nothing"
        raise MissingComponentError(f"{backend} would run it here, and {choice.backend} runs the bundle")
    return replace(plan, role=SWEEP, label=label)
