"""An export from beginning to end: each stage timed, the gates passed, and only then a bundle."""

from __future__ import annotations

import ctypes
import gc
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from importlib import metadata, util
from pathlib import Path
from typing import TYPE_CHECKING

from .. import __version__
from ..engines.bundle import GOLDENS, ONNX, ONNX_DATA, Bundle, refuse_existing, staging
from ..engines.costs import COSTS
from ..engines.errors import MissingComponentError
from ..engines.files import sha256_of
from ..engines.manifest import Manifest, Parity, Provenance, Quantisation
from ..engines.select import ONNXRUNTIME, TENSORRT_RTX
from .costs import write_costs
from .describe import told
from .events import Event
from .plans import BuildOptions, add_plan, gpu_backend_here, require_builder
from .recipe import ExportOptions, Recipe, recipe_for, refuse_impossible

if TYPE_CHECKING:
    import numpy as np
    import onnx_ir as ir
    from numpy.typing import NDArray
    from torch import Tensor

    from .base import BaseModel
    from .checkpoints import Checkpoint
    from .repair import Outcome
    from .samples import Sample
    from .shape import Shaped
    from .verify import ReferenceOutputs

# Pillow, because a graph that resizes does it as the Pillow here does.
_TOOLS = (
    *("torch", "diffusers", "transformers", "peft", "onnx", "onnx-ir", "onnxscript", "onnxruntime", "tensorrt-rtx"),
    "pillow",
)
_PARITY_FRAMES, _PARITY_FRAMES_FULL_SIZE = 3, 1
_FULL_SIZE_BYTES = 1_000_000_000  # of generator.onnx.data: SD-Turbo is 1.8 GB in FP16, a tiny model a few MB
_GOLDEN_PAIRS = 2
_GOLDENS_LIMIT = 4_000_000  # bytes: they travel to every device


@dataclass(frozen=True)
class ExportReport:
    """``seconds`` per stage in order; ``notes`` and ``warnings`` as they were reported."""

    bundle: Bundle
    seconds: dict[str, float]
    notes: tuple[str, ...]
    warnings: tuple[str, ...]


def export_bundle(options: ExportOptions, on_event: Callable[[Event], None] | None = None) -> ExportReport:
    """Turn a checkpoint into a bundle at ``options.folder``.

    Raises UsageError, CheckpointError, BaseModelError, MissingComponentError, ParityError, RangeError, BuildError or
    DiskFullError; a bundle that stood there before is then unchanged, and nothing half-made is left.
    """
    return _Session(options, on_event or (lambda _: None)).run()


@dataclass(frozen=True)
class _Prepared:
    """All that the stages after the first share."""

    recipe: Recipe
    checkpoint: Checkpoint
    base: BaseModel
    embedding: Tensor


@dataclass
class _Session:
    options: ExportOptions
    emit: Callable[[Event], None]
    seconds: dict[str, float] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    def run(self) -> ExportReport:
        refuse_impossible(self.options)
        refuse_existing(self.options.folder, force=self.options.force)
        backend = self._plan_backend()
        self._settle_passes(backend)
        prepared = self._prepare()
        with staging(self.options.folder, force=self.options.force) as staged:
            shaped = self._write_onnx(prepared, staged.root)
            held = self._hold_ranges(prepared.recipe, staged.root / ONNX, shaped.originals)
            quantisation = self._quantise(prepared.recipe, staged.root / ONNX)
            parity = self._check(prepared, staged.root / ONNX)
            manifest = replace(self._manifest(prepared, shaped.islands, parity, held), quantisation=quantisation)
            del prepared
            with self._stage("seal"):
                write_costs(staged.root / ONNX, staged.root / COSTS)
                bundle = staged.seal(manifest)
            if backend:
                self._build(backend, bundle)
        bundle = Bundle.open(self.options.folder)
        return ExportReport(bundle, self.seconds, tuple(self.notes), tuple(self.warnings))

    @contextmanager
    def _stage(self, name: str) -> Iterator[None]:
        self.emit(Event("stage", name))
        started = time.perf_counter()
        yield
        self.seconds[name] = round(time.perf_counter() - started, 2)

    def _note(self, text: str) -> None:
        self.notes.append(text)
        self.emit(Event("note", text))

    def _warn(self, text: str) -> None:
        self.warnings.append(text)
        self.emit(Event("warning", text))

    def _plan_backend(self) -> str | None:
        """What will build a plan; None for ONNX alone. Raises MissingComponentError before the long work."""
        wanted = self.options.engine
        if wanted == "onnx":
            return None
        if wanted != "auto":
            require_builder(wanted)
            return wanted
        backend = gpu_backend_here()
        choice = f"{backend}, which is installed" if backend else "ONNX alone: no builder of GPU plans is installed"
        self._note(f"engine: {choice}")
        return backend

    def _settle_passes(self, backend: str | None) -> None:
        from .passes.choice import default_passes

        if self.options.passes is None:
            self.options = replace(self.options, passes=default_passes(backend or ONNXRUNTIME))
        if self.options.passes:
            self._note(f"passes: {', '.join(self.options.passes)}")

    def _prepare(self) -> _Prepared:
        require_export_packages()
        from .base import open_base
        from .checkpoints import read_checkpoint
        from .text import encode_prompt

        with self._stage("read checkpoint"):
            checkpoint = read_checkpoint(self.options.ckpt)
            recipe = recipe_for(self.options, checkpoint)
        for omission in checkpoint.omissions:
            self._note(f"not in the checkpoint: {omission}")
        with self._stage("open base model"):
            base = open_base(self.options.base)
        with self._stage("encode prompt"):
            embedding = encode_prompt(base, recipe.prompt)
        return _Prepared(recipe, checkpoint, base, embedding)

    def _write_onnx(self, prepared: _Prepared, root: Path) -> Shaped:
        """Write the ONNX files into ``root``."""
        import onnx_ir as ir

        from .passes.specialise import release
        from .shape import shape_graph

        model = self._trace(prepared)
        with self._stage("specialise"):
            shaped = shape_graph(model, self.options.passes or (), half=self.options.precision != "fp32")
        with self._stage("save ONNX"):
            ir.save(model, root / ONNX, external_data=ONNX_DATA)
        release(model)
        give_memory_back()
        return shaped

    def _trace(self, prepared: _Prepared) -> ir.Model:
        from .assemble import assemble
        from .trace import onnx_from_generator

        with self._stage("merge"):
            generator = assemble(prepared.recipe, prepared.checkpoint, prepared.base, prepared.embedding)
        with self._stage("trace"):
            return onnx_from_generator(generator, prepared.recipe.shape, self.options.opset)

    def _hold_ranges(self, recipe: Recipe, onnx: Path, originals: dict[str, NDArray[np.float32]]) -> Outcome | None:
        """Measure what FP16 has to hold, and repair the graph in ``onnx`` where it does not; None in FP32."""
        from .calibration import calibration
        from .repair import Request, hold_ranges

        if self.options.precision == "fp32":
            return None
        full_size = _is_full_size(onnx)
        frames = calibration(recipe.shape, recipe.input_prep, self.options.calibrate, full_size=full_size)
        self._note(f"ranges: {len(frames.names)} frames, {frames.source}")
        with self._stage("range ledger"):
            held = hold_ranges(onnx, Request(frames.frames, frames.source, self.options.fp16_margin, originals))
        for repair in held.ledger.repairs:
            self._note(f"FP16 repair: {told(repair)}")
        give_memory_back()
        return held

    def _quantise(self, recipe: Recipe, onnx: Path) -> Quantisation | None:
        """Put the products on eight bits that ``--precision`` asks for; None where it asks for none."""
        from .calibration import photographs
        from .quantise.apply import QUANTISATIONS
        from .quantised import quantise

        if self.options.precision not in QUANTISATIONS:
            return None
        frames = photographs(recipe.shape, recipe.input_prep, self.options.calibrate)
        if self.options.calibrate is None and self.options.precision != "int8-weights":
            self._warn(f"eight bits' scales are those of {frames.source}: --calibrate DIR takes your camera's pictures")
        with self._stage("quantise"):
            done = quantise(onnx, self.options, frames, recipe.shape.inputs)
        self._note(
            f"{self.options.precision}: {done.products} of {done.of} products, "
            f"{done.conv_share:.1%} of the convolutions' arithmetic"
        )
        give_memory_back()
        return done

    def _check(self, prepared: _Prepared, onnx: Path) -> Parity:
        from .samples import samples
        from .verify import bundle_outputs, compare, refuse_departure

        recipe = prepared.recipe
        count = self.options.parity_frames or (_PARITY_FRAMES_FULL_SIZE if _is_full_size(onnx) else _PARITY_FRAMES)
        taken = samples(recipe.shape, recipe.input_prep, max(count, _GOLDEN_PAIRS))
        with self._stage("PyTorch reference"):
            reference = _reference_outputs(prepared, taken[:count])
        with self._stage("parity"):
            outputs = bundle_outputs(onnx, taken)
            parity = compare(outputs, reference)
            if warning := refuse_departure(parity, self.options.precision):
                self._warn(warning)
            _write_goldens(onnx.parent / GOLDENS, taken, list(outputs.images))
        return parity

    def _build(self, backend: str, bundle: Bundle) -> None:
        give_memory_back()
        targets = self.options.targets if backend == TENSORRT_RTX else None
        with self._stage("build plan"):
            add_plan(bundle, BuildOptions(backend, targets), self._hear)

    def _hear(self, event: Event) -> None:
        if event.kind == "warning":
            self.warnings.append(event.text)
        self.emit(event)

    def _manifest(
        self, prepared: _Prepared, islands: tuple[str, ...], parity: Parity, held: Outcome | None
    ) -> Manifest:
        recipe = prepared.recipe
        return Manifest(
            edgeturbo=__version__,
            model=recipe.model(prepared.checkpoint),
            frame_rules=recipe.frame_rules,
            inputs=recipe.shape.inputs,
            outputs=recipe.shape.outputs,
            frame_layout=recipe.shape.layout,
            provenance=_provenance(prepared),
            fp32_islands=islands + (held.islands if held else ()),
            parity=parity,
            range_ledger=held.ledger if held else None,
        )


def _is_full_size(onnx: Path) -> bool:
    return onnx.with_name(ONNX_DATA).stat().st_size > _FULL_SIZE_BYTES


def give_memory_back() -> None:
    """Return what was freed to the system: the builder's process, and the next stage, need it more than our heap."""
    gc.collect()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # glibc only; elsewhere the heap keeps it
    if trim is not None:
        trim(0)


def require_export_packages() -> None:
    """Raise MissingComponentError unless everything that an export imports is installed."""
    needed = ("torch", "diffusers", "transformers", "peft", "safetensors", "onnx", "onnxscript", "onnxruntime")
    missing = [name for name in needed if util.find_spec(name) is None]
    if missing:
        raise MissingComponentError(
            f"an export needs packages that are not installed: {', '.join(missing)}",
            hint='pip install "edgeturbo[export,cpu]"',
        )


def _reference_outputs(prepared: _Prepared, taken: tuple[Sample, ...]) -> ReferenceOutputs:
    from .reference import Reference
    from .verify import reference_outputs

    recipe = prepared.recipe
    return reference_outputs(
        lambda: Reference(prepared.base, prepared.checkpoint, recipe.direction, prepared.embedding, recipe.strength),
        taken, signed=recipe.signed_input, border=recipe.border,
    )  # fmt: skip


def _write_goldens(folder: Path, taken: tuple[Sample, ...], images: list[object]) -> None:
    from .goldens import write_goldens

    write_goldens(folder, taken[:_GOLDEN_PAIRS], images[:_GOLDEN_PAIRS], _GOLDENS_LIMIT)


def _provenance(prepared: _Prepared) -> Provenance:
    options = prepared.recipe.options
    return Provenance(
        checkpoint=options.ckpt.name,
        checkpoint_sha256=sha256_of(options.ckpt),
        base=options.base,
        base_revision=prepared.base.revision,
        command=options.command,
        tools={"edgeturbo": __version__, **{name: metadata.version(name) for name in _TOOLS if _is_installed(name)}},
        omissions=prepared.checkpoint.omissions,
    )


def _is_installed(distribution: str) -> bool:
    try:
        metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return False
    return True
