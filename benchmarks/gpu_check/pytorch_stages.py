"""PyTorch's rows: eager, as the published script runs it, and compiled, which is the best that PyTorch offers."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

from ...engines.bundle import Bundle
from ...engines.errors import MissingComponentError
from ...engines.pytorch import PyTorchEngine
from .bench import Bench
from .ceiling import waiter
from .common import common_row
from .pytorch_model import Parts, PromptEncoder, live_module, load_parts, merged_module
from .subject import RESIDENT_CLOCK, Subject

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import nn

    from .bench import Opener
    from .context import Context

# The published script offers FP16 on a GPU; a CPU has no fast FP16.
_PRECISIONS = {"cuda": ("fp16", "bf16"), "cpu": ("fp32", "bf16")}
_DTYPES = {"fp16": "float16", "bf16": "bfloat16", "fp32": "float32"}


def eager(context: Context) -> None:
    """Merged and live adapters, each precision, with the prompt's embedding kept and with the text encoder run."""
    bench = Bench.of(context)
    rival = Rival.of(context, bench)
    others: list[Opener] = []
    for precision in _PRECISIONS[context.options.device]:
        others += [partial(rival.merged, precision, text=text) for text in (False, True)]
        others += [partial(rival.live, precision, text=text) for text in (False, True)]
    if context.options.device == "cuda":
        # The first of them is the common row itself.
        bench.rows(others[0], tuple(others[1:]))
    else:
        bench.rows(common_row(context, bench, rival), tuple(others))


def compiled(context: Context) -> None:
    """The specialised generator, channels-last, ``reduce-overhead``: CUDA graphs on a GPU; as is, then frozen.

    Frozen, Inductor folds what follows from weights alone, as our export does.
    """
    _compiled_rows(context, (("reduce-overhead", False), ("reduce-overhead", True)))


def compiled_max_autotune(context: Context) -> None:
    """``max-autotune``: every kernel tried. It took 511 s elsewhere, so it comes last, and a next try goes on."""
    _compiled_rows(context, (("max-autotune", False),))


def _compiled_rows(context: Context, ways: tuple[tuple[str, bool], ...]) -> None:
    bench = Bench.of(context)
    rival = Rival.of(context, bench)
    precision = _PRECISIONS[context.options.device][0]
    rows = tuple(partial(rival.compiled, precision, mode, frozen=frozen) for mode, frozen in ways)
    bench.rows(common_row(context, bench, rival), rows)


def torch_on(device: str) -> Any:
    """torch, able to use ``device``. Raises MissingComponentError."""
    import torch

    if device == "cuda" and not torch.cuda.is_available():
        raise MissingComponentError(
            "this PyTorch cannot use the GPU", got=f"torch {torch.__version__}",
            hint="https://pytorch.org/get-started/locally",
        )  # fmt: skip
    return torch


class Rival:
    """Opens PyTorch's subjects, one at a time, from weights that are read once."""

    def __init__(self, context: Context, bench: Bench, parts: Parts) -> None:
        self.bench = bench
        self._device = context.options.device
        self._bundle = context.options.bundle
        self._parts = parts

    @classmethod
    def of(cls, context: Context, bench: Bench) -> Rival:
        """Raises MissingComponentError when PyTorch cannot use the device that was asked for."""
        torch_on(context.options.device)
        return cls(context, bench, load_parts(context.options))

    @contextmanager
    def merged(self, precision: str, *, text: bool = False) -> Iterator[Subject]:
        encoder = self._encoder(precision) if text else None
        module = merged_module(self._parts.merged(), self._device, self._dtype(precision), encoder=encoder)
        with self._subject(f"PyTorch eager {precision}, merged, {_prompt(text)}", precision, module) as subject:
            yield subject

    @contextmanager
    def live(self, precision: str, *, text: bool) -> Iterator[Subject]:
        encoder = self._encoder(precision) if text else None
        module = live_module(self._parts.live(), self._device, self._dtype(precision), encoder)
        with self._subject(f"PyTorch eager {precision}, live adapters, {_prompt(text)}", precision, module) as subject:
            yield subject

    @contextmanager
    def compiled(self, precision: str, mode: str, *, frozen: bool) -> Iterator[Subject]:
        import torch
        from torch._inductor import config as inductor

        module = merged_module(self._parts.merged(), self._device, self._dtype(precision), channels_last=True)
        name = f"torch.compile {precision}, channels-last, {mode}{', frozen' if frozen else ''}"
        compiled: Any = torch.compile(module, mode=mode)
        with inductor.patch(freezing=frozen), _forgetting():

            def step(frame: Any) -> Any:
                # Each run may reuse the last one's output memory: CUDA graphs write to fixed addresses.
                torch.compiler.cudagraph_mark_step_begin()  # type: ignore[no-untyped-call]
                return compiled(frame=frame)

            with self._subject(name, precision, module, step) as subject:
                yield subject

    def _dtype(self, precision: str) -> Any:
        import torch

        return getattr(torch, _DTYPES[precision])

    def _encoder(self, precision: str) -> PromptEncoder:
        return PromptEncoder(self._parts.base, self._device, self._dtype(precision))

    @contextmanager
    def _subject(
        self, name: str, precision: str, module: nn.Module, step: Callable[[Any], Any] | None = None
    ) -> Iterator[Subject]:
        manifest = Bundle.open(self._bundle).manifest
        call = step or (lambda frame: module(frame=frame))
        with PyTorchEngine(_callable_module(call, self._device), manifest.inputs, manifest.outputs[0]) as engine:
            once = resident(call, self.bench.frame, self._device)
            yield Subject(name, "pytorch", precision, engine, once, RESIDENT_CLOCK)


def resident(call: Callable[[Any], Any], frame: NDArray[np.uint8], device: str) -> Callable[[], None]:
    """A function that runs ``call`` on a frame that is on the device already, and waits for it."""
    import torch

    synchronise = waiter(device)
    with torch.inference_mode():  # as the engine makes its own: else a compiler would see two kinds of tensor
        uploaded = torch.tensor(frame[None], device=device)

    def once() -> None:
        with torch.inference_mode():
            call(uploaded)
        synchronise()

    return once


def _callable_module(call: Callable[[Any], Any], device: str) -> nn.Module:
    """``call`` behind an upload: what is compiled sees tensors on the device only, else it would do without graphs."""
    from torch import Tensor, nn

    class Calling(nn.Module):
        def forward(self, frame: Tensor) -> Tensor:
            image: Tensor = call(frame.to(device))
            return image

    return Calling()


@contextmanager
def _forgetting() -> Iterator[None]:
    """The compiler keeps what it compiled, weights and all, as long as the process lives: not longer than this."""
    import torch

    try:
        yield
    finally:
        torch._dynamo.reset()


def _prompt(text: bool) -> str:
    return "text encoder every frame" if text else "prompt kept"
