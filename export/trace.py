"""Tracing the generator to ONNX, in FP32, on the CPU."""

from __future__ import annotations

import logging
import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..engines.base import TensorSpec
from ..engines.errors import UsageError
from ..engines.frame_layout import tensor_shape
from ..engines.manifest import FRAME, IMAGE, LATENT_CHANNELS, NOISE, POSTERIOR_NOISE, FrameLayout

if TYPE_CHECKING:
    import onnx_ir as ir

    from .generator import Generator

DEFAULT_OPSET = 20  # parses from TensorRT 10.3 on; 23 brings fused Attention and GroupNormalization
OPSETS = range(18, 24)  # what torch's exporter writes and the precision pass knows

# The float tensor in [-1, 1], [B, 3, H, W], before quantisation to uint8. No output: the parity gate adds it as one.
UNQUANTISED = "image_unquantised"

_VAE_STRIDE = 8


@dataclass(frozen=True)
class GraphShape:
    """The static shape of a generator's graph, in pixels and frames. ``width`` and ``height`` are multiples of 8.

    They are the model's; with a ``layout`` the frame and the image have its size and formats instead.
    """

    width: int
    height: int
    batch: int
    noise: bool
    posterior_noise: bool
    layout: FrameLayout | None = None

    def __post_init__(self) -> None:
        if any(size < _VAE_STRIDE or size % _VAE_STRIDE for size in (self.width, self.height)):
            near = "x".join(str(max(size // _VAE_STRIDE, 1) * _VAE_STRIDE) for size in (self.width, self.height))
            raise UsageError(
                f"--size {self.width}x{self.height} does not work",
                expected="width and height that are multiples of 8 (the VAE's stride)",
                got=f"{self.width}x{self.height}",
                hint=f"--size {near}",
            )
        if self.batch < 1:
            raise UsageError(f"--batch {self.batch} does not work", expected="1 or more", hint="--batch 1")

    @property
    def inputs(self) -> tuple[TensorSpec, ...]:
        latent = (self.batch, LATENT_CHANNELS, self.height // _VAE_STRIDE, self.width // _VAE_STRIDE)
        optional = ((NOISE, self.noise), (POSTERIOR_NOISE, self.posterior_noise))
        return (
            self._picture(FRAME, None if self.layout is None else self.layout.format),
            *(TensorSpec(name, "float32", latent) for name, wanted in optional if wanted),
        )

    @property
    def outputs(self) -> tuple[TensorSpec, ...]:
        return (self._picture(IMAGE, None if self.layout is None else self.layout.output_format),)

    def _picture(self, name: str, kind: str | None) -> TensorSpec:
        if self.layout is None or kind is None:
            return TensorSpec(name, "uint8", (self.batch, self.height, self.width, 3))
        return TensorSpec(name, "uint8", (self.batch, *tensor_shape(kind, self.layout.width, self.layout.height)))


def onnx_from_generator(generator: Generator, shape: GraphShape, opset: int = DEFAULT_OPSET) -> ir.Model:
    """The generator's graph as traced: FP32, nothing folded, outputs ``image`` and ``image_unquantised``.

    The weights are shared with the generator's, not copied. ``opset`` is one of ``OPSETS``.
    """
    import torch

    example: dict[str, Any] = {
        spec.name: torch.zeros(spec.shape, dtype=getattr(torch, spec.dtype)) for spec in shape.inputs
    }
    with warnings.catch_warnings(), _quiet_exporter(), torch.inference_mode():
        # Torch warns of its own deprecations while it traces; what the graph computes is checked by the parity gate.
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            generator.eval(), kwargs=example, input_names=list(example), output_names=[IMAGE, UNQUANTISED],
            opset_version=opset, dynamo=True, optimize=False, verbose=False,
        )  # fmt: skip
    if program is None:
        raise RuntimeError("torch.onnx.export returned nothing")
    return program.model


class _quiet_exporter:  # noqa: N801 -- a context manager reads as a verb
    """The exporter's notices about torchvision's absence are for its developers."""

    def __enter__(self) -> None:
        self._logger = logging.getLogger("torch.onnx")
        self._level = self._logger.level
        self._logger.setLevel(logging.ERROR)

    def __exit__(self, *_: object) -> None:
        self._logger.setLevel(self._level)
