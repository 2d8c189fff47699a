"""What a bundle can be measured against here, each opened in one way: an engine, and a call that runs it alone."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..engines.bundle import Bundle
from ..engines.errors import EdgeTurboError, MissingComponentError, UsageError
from ..engines.manifest import FRAME
from ..engines.pytorch import PyTorchEngine
from ..engines.select import GPU_PLANS, ONNXRUNTIME_CUDA, choose, open_engine
from .gpu_check.subject import HOST_CLOCK, RESIDENT_CLOCK, Subject
from .result import FAIR, PEER, PUBLISHED, SUBJECT

if TYPE_CHECKING:
    from torch import Tensor, nn

    from ..engines.base import Engine, Tensors
    from ..engines.select import Choice
    from .gpu_check.pytorch_model import Parts

AGAINST = ("pytorch", "pytorch-compile", "onnxruntime", "openvino", "tensorrt", "three-engines")
_NEED_CHECKPOINT = ("pytorch", "pytorch-compile", "three-engines")
_DTYPES = {"fp16": "float16", "bf16": "bfloat16", "fp32": "float32"}


@dataclass(frozen=True)
class Setting:
    """``bundle``: a bundle's folder, or a plan or ONNX file in it. ``ckpt`` and ``base`` are what it was made from."""

    bundle: Path
    ckpt: Path | None = None
    base: str = "stabilityai/sd-turbo"


@dataclass(frozen=True)
class RowPlan:
    """A row not yet opened. ``key`` names it on a command line; ``open(feeds)`` loads it, and closes it at the end.

    ``choice`` is what opens further engines of the same kind; None for rows that run a checkpoint.
    """

    key: str
    role: str
    open: Callable[[Tensors], AbstractContextManager[Subject]]
    choice: Choice | None = None


def plan_rows(setting: Setting, against: tuple[str, ...]) -> tuple[list[RowPlan], dict[str, str]]:
    """The bundle's own row, then one or more for each name of ``against``; and the names that cannot run, with why.

    Raises UsageError for an unknown name and for rows that need the checkpoint where none was given.
    """
    _refuse_unknown(setting, against)
    bundle = Bundle.open(setting.bundle)
    choice = choose(setting.bundle)
    rows = [RowPlan("bundle", SUBJECT, partial(_bundle_row, choice), choice)]
    not_run: dict[str, str] = {}
    for name in against:
        try:
            rows += _rows_of(name, setting, bundle, choice)
        except EdgeTurboError as error:
            not_run[name] = error.what
    return rows, not_run


def plan_row(setting: Setting, key: str) -> RowPlan:
    """The row that ``plan_rows`` calls ``key``: for a child process. Raises UsageError when there is none."""
    rows, not_run = plan_rows(setting, () if key == "bundle" else (key.partition("/")[0],))
    for row in rows:
        if row.key == key:
            return row
    raise UsageError(f"no row {key} here", got="; ".join(not_run.values()) or None)


def _refuse_unknown(setting: Setting, against: tuple[str, ...]) -> None:
    unknown = [name for name in against if name not in AGAINST]
    if unknown:
        raise UsageError("--against names what is not known", expected=", ".join(AGAINST), got=", ".join(unknown))
    needing = [name for name in against if name in _NEED_CHECKPOINT]
    if needing and setting.ckpt is None:
        raise UsageError(
            f"{', '.join(needing)}: a bundle holds no checkpoint, and these rows run the checkpoint itself",
            expected="--ckpt and --base, from which the bundle was made",
            hint=f"turbo-bench {setting.bundle} --against {','.join(against)} --ckpt day2night.pkl "
            f"--base {setting.base}",
        )


def _rows_of(name: str, setting: Setting, bundle: Bundle, choice: Choice) -> list[RowPlan]:
    if name in _NEED_CHECKPOINT:
        return _checkpoint_rows(name, setting, bundle, choice)
    wanted = ONNXRUNTIME_CUDA if name == "onnxruntime" and _is_on_gpu(choice) else name
    peer = choose(bundle.root, wanted)
    if (peer.backend, peer.plan) == (choice.backend, choice.plan):
        raise UsageError(f"{name} is what runs the bundle itself: it is the first row")
    return [RowPlan(name, PEER, partial(_engine_row, peer, peer.reason.partition(":")[0]), peer)]


def _is_on_gpu(choice: Choice) -> bool:
    return choice.backend in (*GPU_PLANS, ONNXRUNTIME_CUDA)


def _bundle_row(choice: Choice, feeds: Tensors) -> AbstractContextManager[Subject]:
    return _engine_row(choice, f"edgeturbo, {choice.reason.partition(':')[0]}", feeds)


@contextmanager
def _engine_row(choice: Choice, name: str, feeds: Tensors) -> Iterator[Subject]:
    precision = choice.precision or choice.bundle.manifest.model.precision
    with open_engine(choice) as engine:
        yield engine_subject(name, precision, engine, feeds)


def engine_subject(name: str, precision: str, engine: Engine, feeds: Tensors) -> Subject:
    """An open engine with the call that runs it alone: a plan on tensors that lie on the GPU, others on the host's."""
    if engine.backend in GPU_PLANS:
        engine.run(feeds)  # leaves them in the plan's own buffers
        resident = engine.device_inputs  # type: ignore[attr-defined]
        facts = {key: str(value) for key, value in vars(engine.facts).items() if value is not None}  # type: ignore[attr-defined]
        return Subject(
            name, engine.backend, precision, engine, lambda: engine.run_device(resident), RESIDENT_CLOCK, facts
        )
    out = {spec.name: np.empty(spec.shape, spec.dtype) for spec in engine.outputs}
    return Subject(name, engine.backend, precision, engine, lambda: engine.run(feeds, out), HOST_CLOCK)


def _checkpoint_rows(name: str, setting: Setting, bundle: Bundle, choice: Choice) -> list[RowPlan]:
    _refuse_unfit(bundle, name)
    rival = _Rival(setting, bundle, "cuda" if _is_on_gpu(choice) else "cpu")
    if name == "three-engines":
        return [RowPlan(name, PEER, rival.three_engines)]
    if name == "pytorch-compile":
        return [RowPlan(name, PEER, rival.compiled)]
    return [
        RowPlan("pytorch/published", PUBLISHED, rival.live),
        RowPlan("pytorch/fair", FAIR, partial(rival.merged, rival.precision)),
        RowPlan("pytorch/bf16", PEER, partial(rival.merged, "bf16")),
    ]


def _refuse_unfit(bundle: Bundle, name: str) -> None:
    manifest = bundle.manifest
    if len(manifest.inputs) > 1 or manifest.frame_layout is not None:
        raise MissingComponentError(
            f"{name} takes one RGB frame at the model's size and nothing else; this bundle takes noise or a camera's "
            "own frames"
        )
    if name == "three-engines" and (manifest.model.batch != 1 or manifest.model.width != manifest.model.height):
        raise MissingComponentError(f"{name} is exported for one square frame; this bundle is not")


class _Rival:
    """Opens the rows that run the checkpoint, each from weights read anew: nothing stays in memory between them."""

    def __init__(self, setting: Setting, bundle: Bundle, device: str) -> None:
        if device == "cuda":
            from .gpu_check.pytorch_stages import torch_on

            torch_on(device)
        self._setting, self._bundle, self._device = setting, bundle, device
        # The published script offers FP16 on a GPU; a CPU has no fast FP16.
        self.precision = "fp16" if device == "cuda" else "fp32"

    @contextmanager
    def live(self, feeds: Tensors) -> Iterator[Subject]:
        """As the published script runs: live adapters, text encoder for every frame, eager."""
        from .gpu_check.pytorch_model import PromptEncoder, live_module

        parts, dtype = self._parts(), self._dtype(self.precision)
        encoder = PromptEncoder(parts.base, self._device, dtype, parts.recipe.prompt)
        module = live_module(parts.live(), self._device, dtype, encoder)
        name = f"PyTorch eager {self.precision} as published, live adapters, text encoder every frame"
        with self._subject(name, self.precision, lambda frame: module(frame=frame), feeds) as subject:
            yield subject

    @contextmanager
    def merged(self, precision: str, feeds: Tensors) -> Iterator[Subject]:
        from .gpu_check.pytorch_model import merged_module

        module = merged_module(self._parts().merged(), self._device, self._dtype(precision))
        name = f"PyTorch eager {precision}, merged, prompt kept"
        with self._subject(name, precision, lambda frame: module(frame=frame), feeds) as subject:
            yield subject

    @contextmanager
    def compiled(self, feeds: Tensors) -> Iterator[Subject]:
        """The specialised generator, channels-last; ``reduce-overhead`` uses CUDA graphs on a GPU."""
        import torch

        from .gpu_check.pytorch_model import merged_module

        module = merged_module(self._parts().merged(), self._device, self._dtype(self.precision), channels_last=True)
        compiled: Any = torch.compile(module, mode="reduce-overhead")

        def step(frame: Tensor) -> Tensor:
            # Each run may reuse the last one's output memory: CUDA graphs write to fixed addresses.
            torch.compiler.cudagraph_mark_step_begin()  # type: ignore[no-untyped-call]
            image: Tensor = compiled(frame=frame)
            return image

        try:
            name = f"torch.compile {self.precision}, merged, channels-last, reduce-overhead"
            with self._subject(name, self.precision, step, feeds) as subject:
                yield subject
        finally:
            torch._dynamo.reset()

    @contextmanager
    def three_engines(self, feeds: Tensors) -> Iterator[Subject]:
        """Encoder, UNet and decoder as peers deploy this family: on ONNX Runtime, on the CPU."""
        from ..engines.onnxruntime import OnnxRuntimeEngine
        from .three_engines import NAMES, EngineChain, export_three

        if self._device == "cuda":
            raise MissingComponentError(
                "three-engines on a GPU is measured by `make gpu-check`, which builds its plans"
            )
        with tempfile.TemporaryDirectory() as folder:
            export_three(self._parts().merged(), self._bundle.manifest.model.width, Path(folder))
            encoder, unet, decoder = (OnnxRuntimeEngine(Path(folder) / f"{name}.onnx") for name in NAMES)
            with EngineChain(encoder, unet, decoder) as chain:
                yield engine_subject("three separate engines, ONNX Runtime CPU, fp16 graphs", "fp16", chain, feeds)

    @contextmanager
    def _subject(self, name: str, precision: str, call: Callable[[Any], Any], feeds: Tensors) -> Iterator[Subject]:
        import torch

        from .gpu_check.ceiling import waiter

        manifest, wait = self._bundle.manifest, waiter(self._device)
        with PyTorchEngine(_uploading(call, self._device), manifest.inputs, manifest.outputs[0]) as engine:
            with torch.inference_mode():  # as the engine makes its own: else a compiler would see two kinds of tensor
                uploaded = torch.tensor(feeds[FRAME], device=self._device)

            def once() -> None:
                with torch.inference_mode():
                    call(uploaded)
                wait()

            yield Subject(name, "pytorch", precision, engine, once, RESIDENT_CLOCK)

    def _parts(self) -> Parts:
        """Of the bundle's own direction, prompt, strength and size. Raises UsageError for another checkpoint."""
        from ..export.base import open_base
        from ..export.checkpoints import read_checkpoint
        from ..export.recipe import ExportOptions, recipe_for
        from ..export.text import encode_prompt
        from .gpu_check.pytorch_model import Parts

        ckpt, model = self._setting.ckpt, self._bundle.manifest.model
        if ckpt is None:
            raise UsageError("this row needs --ckpt")
        refuse_other_checkpoint(self._bundle, ckpt)
        checkpoint, base = read_checkpoint(ckpt), open_base(self._setting.base)
        wanted = ExportOptions(
            ckpt, base=self._setting.base, prompt=model.prompt, direction=model.direction, width=model.width,
            height=model.height, batch=model.batch, strength=model.strength, posterior=model.posterior,  # type: ignore[arg-type]
            input_prep=self._bundle.manifest.frame_rules.input_prep,  # type: ignore[arg-type]
        )  # fmt: skip
        return Parts(recipe_for(wanted, checkpoint), checkpoint, base, encode_prompt(base, model.prompt))

    def _dtype(self, precision: str) -> Any:
        import torch

        return getattr(torch, _DTYPES[precision])


def refuse_other_checkpoint(bundle: Bundle, ckpt: Path) -> None:
    """Raise UsageError unless ``ckpt`` is the file that the bundle was made from."""
    from ..engines.files import sha256_of

    made_from, digest = bundle.manifest.provenance, sha256_of(ckpt)
    if digest != made_from.checkpoint_sha256:
        raise UsageError(
            f"{ckpt} is not the checkpoint that this bundle was made from",
            expected=f"{made_from.checkpoint}, sha256 {made_from.checkpoint_sha256}", got=f"sha256 {digest}",
        )  # fmt: skip


def _uploading(call: Callable[[Any], Any], device: str) -> nn.Module:
    """``call`` behind an upload: what is compiled sees tensors on the device only."""
    from torch import nn

    class Uploading(nn.Module):
        def forward(self, frame: Tensor) -> Tensor:
            image: Tensor = call(frame.to(device))
            return image

    return Uploading()
