"""The rows that run a checkpoint in PyTorch, and what a bundle was exported with, to do so again."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..engines.errors import MissingComponentError, UsageError
from ..engines.frame_layout import YUV_FORMATS
from ..engines.manifest import FRAME
from ..engines.pytorch import PyTorchEngine
from ..engines.select import choose
from .gpu_check.subject import RESIDENT_CLOCK, Subject
from .result import OWN
from .rows import RowPlan, engine_subject, is_on_gpu, refuse_unfit

if TYPE_CHECKING:
    from torch import Tensor, nn

    from ..engines.base import Tensors
    from ..engines.bundle import Bundle
    from ..engines.manifest import FrameLayout
    from ..export.recipe import ExportOptions
    from .gpu_check.pytorch_model import Parts
    from .rows import Setting

_DTYPES = {"fp16": "float16", "bf16": "bfloat16", "fp32": "float32"}


class Rival:
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
        from .gpu_check.pytorch_model import Parts

        return Parts.of(same_options(self._setting, self._bundle))

    def _dtype(self, precision: str) -> Any:
        import torch

        return getattr(torch, _DTYPES[precision])


def own_row(setting: Setting, bundle: Bundle) -> RowPlan:
    """PyTorch's own pictures in the precision that the bundle's graph computes in, FP16 beside one with eight bits, or
    BF16 beside an FP32 graph: what that precision costs this model. Raises MissingComponentError for a bundle that
    PyTorch's rows cannot take.
    """
    refuse_unfit(bundle, "PyTorch")
    rival = Rival(setting, bundle, "cuda" if is_on_gpu(choose(setting.bundle)) else "cpu")
    precision = "bf16" if bundle.manifest.model.precision == "fp32" else "fp16"
    return RowPlan(OWN, OWN, partial(rival.merged, precision), setting=setting, label=", for its pictures only")


def same_options(setting: Setting, bundle: Bundle) -> ExportOptions:
    """What exports ``bundle`` again from ``setting``'s checkpoint, as ONNX alone: its own direction, prompt, strength,
    size, precision, passes and border. Raises UsageError without a checkpoint, or for one that it was not made from.
    """
    from ..export.recipe import ExportOptions

    ckpt, manifest = setting.ckpt, bundle.manifest
    if ckpt is None:
        raise UsageError("this needs --ckpt")
    refuse_other_checkpoint(bundle, ckpt)
    model = manifest.model
    return ExportOptions(
        ckpt, base=setting.base, prompt=model.prompt, direction=model.direction, width=model.width,
        height=model.height, batch=model.batch, precision=model.precision,  # type: ignore[arg-type]
        strength=model.strength, posterior=model.posterior,  # type: ignore[arg-type]
        input_prep=manifest.frame_rules.input_prep,  # type: ignore[arg-type]
        opset=model.opset, engine="onnx", passes=model.passes, **_border_options(manifest.frame_layout),
    )  # fmt: skip


def _border_options(layout: FrameLayout | None) -> dict[str, Any]:
    """The options that make a graph take the camera's own frames as ``layout`` says; none without one."""
    if layout is None:
        return {}
    options = {
        "frame": (layout.width, layout.height), "frame_format": layout.format, "output_format": layout.output_format,
    }  # fmt: skip
    if {layout.format, layout.output_format} & {*YUV_FORMATS}:  # nothing else takes these
        options |= {"colour_matrix": layout.matrix, "colour_range": layout.range}
    return options


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
