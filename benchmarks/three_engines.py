"""Three separate networks instead of one graph, as peers deploy this family: for comparison only.

The encoder gives the latent and the four skip activations, the UNet the noise prediction, the decoder the image; what
passes between them crosses an engine's border (96.5 MB of skips at 512x512 in FP16). The networks come from the same
modules, go through the same passes and keep the same FP32 islands as the single graph, and take and give uint8 as it
does, which favours them: peers hand over float images.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..engines._device_tensor import DeviceTensor
from ..engines.base import Engine, TensorSpec
from ..engines.cuda import DeviceBuffer, PinnedArray, Resources, Stream, current_device
from ..engines.manifest import FRAME, IMAGE, LATENT_CHANNELS
from ..export.trace import DEFAULT_OPSET

if TYPE_CHECKING:
    import onnx_ir as ir
    from torch import nn

    from ..engines.base import Tensors
    from ..export.generator import Generator

ENCODER, UNET, DECODER = "encoder", "unet", "decoder"
NAMES = (ENCODER, UNET, DECODER)

LATENT, PREDICTION = "latent", "prediction"
ISLANDS = "islands.json"
SKIPS = ("skip_0", "skip_1", "skip_2", "skip_3")

_VAE_STRIDE = 8


def export_three(generator: Generator, pixels: int, folder: Path) -> None:
    """Write ``encoder.onnx``, ``unet.onnx`` and ``decoder.onnx`` with external data: FP16, opset 20, static, batch 1.

    ``generator`` is FP32, on the CPU, deterministic; the size is ``pixels`` x ``pixels``. ``islands.json`` names the
    nodes of each that compute in FP32: TensorRT before 10 has to be told.
    """
    islands = {
        name: export_network(network, folder / f"{name}.onnx") for name, network in networks(generator, pixels).items()
    }
    (folder / ISLANDS).write_text(json.dumps(islands), encoding="utf-8")


@dataclass(frozen=True)
class Network:
    """A module in evaluation mode, example inputs by their names in its ``forward``, and its outputs' names."""

    module: nn.Module
    inputs: dict[str, Any]
    outputs: tuple[str, ...]


def networks(generator: Generator, pixels: int) -> dict[str, Network]:
    """The three, by name, sharing the generator's weights."""
    import torch

    side = pixels // _VAE_STRIDE
    frame = torch.zeros(1, pixels, pixels, 3, dtype=torch.uint8)
    latent = torch.zeros(1, LATENT_CHANNELS, side, side)
    encoder = _encoder(generator)
    with torch.inference_mode():
        _, *skips = encoder(frame)
    # The prediction's is a tensor of its own: the tracer takes one tensor under two names for one input.
    decoded = {LATENT: latent, PREDICTION: torch.zeros_like(latent), **dict(zip(SKIPS, skips, strict=True))}
    return {
        ENCODER: Network(encoder, {FRAME: frame}, (LATENT, *SKIPS)),
        UNET: Network(_unet(generator), {LATENT: latent}, (PREDICTION,)),
        DECODER: Network(_decoder(generator), decoded, (IMAGE,)),
    }


class EngineChain(Engine):
    """The three engines as one, handing tensors on in host memory: for CPUs. Owns the three while it is open."""

    backend = "three-engines"

    def __init__(self, encoder: Engine, unet: Engine, decoder: Engine) -> None:
        super().__init__()
        self._encoder, self._unet, self._decoder = encoder, unet, decoder
        self._opened = ExitStack()

    @property
    def inputs(self) -> tuple[TensorSpec, ...]:
        return self._encoder.inputs

    @property
    def outputs(self) -> tuple[TensorSpec, ...]:
        return self._decoder.outputs

    def _open(self) -> None:
        with ExitStack() as opening:
            for engine in (self._encoder, self._unet, self._decoder):
                opening.enter_context(engine)
            self._opened = opening.pop_all()

    def _close(self) -> None:
        self._opened.close()

    def _run(self, feeds: Tensors, out: Tensors | None) -> Tensors:
        encoded = self._encoder.run(feeds)
        predicted = self._unet.run({LATENT: encoded[LATENT]})
        return self._decoder.run({**encoded, **predicted}, out)


class DeviceChain(EngineChain):
    """The three engines as one, handing tensors on in the GPU's memory; only the frame and the image cross.

    Every engine copies what it is fed into buffers of its own, on the device: 97 MB for the decoder at 512x512, which
    takes 0.1 to 0.3 ms that peers who share buffers do not spend. Was not run on a GPU where it was written.
    """

    def __init__(self, encoder: Engine, unet: Engine, decoder: Engine) -> None:
        super().__init__(encoder, unet, decoder)
        self._resources = Resources()

    def _open(self) -> None:
        super()._open()
        try:
            (frame,), (image,) = self.inputs, self.outputs
            self._stream = self._resources.add(Stream())
            self._source, self._frame, self._frame_tensor = self._buffers(frame)
            self._target, self._image, self._image_tensor = self._buffers(image)
        except BaseException:
            self._close()
            raise

    def _buffers(self, spec: TensorSpec) -> tuple[PinnedArray, DeviceBuffer, DeviceTensor]:
        host = self._resources.add(PinnedArray(spec.shape, spec.dtype))
        buffer = self._resources.add(DeviceBuffer(host.array.nbytes, f"the border's {spec.name}"))
        return host, buffer, DeviceTensor(spec, buffer.address, current_device())

    def _close(self) -> None:
        self._resources.free()
        super()._close()

    def compute(self) -> None:
        """Run the three on the frame that was uploaded last; returns when the image is complete, on the device."""
        encoded = self._encoder.run_device({FRAME: self._frame_tensor})
        predicted = self._unet.run_device({LATENT: encoded[LATENT]})
        self._decoder.run_device({**encoded, **predicted}, {IMAGE: self._image_tensor})

    def _run(self, feeds: Tensors, out: Tensors | None) -> Tensors:
        np.copyto(self._source.array, feeds[FRAME])
        self._stream.upload(self._source, self._frame)
        self._stream.synchronize()
        self.compute()
        self._stream.download(self._image, self._target)
        self._stream.synchronize()
        if out is None:
            return {IMAGE: self._target.array.copy()}
        np.copyto(out[IMAGE], self._target.array)
        return out


def _encoder(generator: Generator) -> nn.Module:
    from torch import Tensor, nn

    class Encoder(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.frame_in, self.vae_encoder, self.latent = generator.frame_in, generator.vae_encoder, generator.latent

        def forward(self, frame: Tensor) -> tuple[Tensor, ...]:
            moments, skips = self.vae_encoder(self.frame_in(frame))
            return self.latent(moments, None, None), *skips

    return Encoder().eval()


def _unet(generator: Generator) -> nn.Module:
    from torch import Tensor, nn

    class Unet(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.unet = generator.unet

        def forward(self, latent: Tensor) -> Tensor:
            prediction: Tensor = self.unet(latent)
            return prediction

    return Unet().eval()


def _decoder(generator: Generator) -> nn.Module:
    from torch import Tensor, nn

    class Decoder(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.x0, self.vae_decoder, self.image_out = generator.x0, generator.vae_decoder, generator.image_out

        def forward(
            self, latent: Tensor, prediction: Tensor, skip_0: Tensor, skip_1: Tensor, skip_2: Tensor, skip_3: Tensor
        ) -> Tensor:
            decoded = self.vae_decoder(self.x0(latent, prediction), (skip_0, skip_1, skip_2, skip_3))
            image: Tensor = self.image_out(decoded)[0]
            return image

    return Decoder().eval()


def export_network(network: Network, path: Path) -> list[str]:
    """Write ``network`` to ``path`` in FP16, its weights beside it; return the nodes that compute in FP32."""
    import onnx_ir as ir
    import torch

    from ..export.passes.half import Half
    from ..export.passes.specialise import Specialise, release
    from ..export.passes.stage_names import StageNames
    from ..export.precision import is_island

    with warnings.catch_warnings(), torch.inference_mode():
        # Torch warns of its own deprecations while it traces; what the graphs compute is compared with the reference.
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            network.module, kwargs=network.inputs, input_names=list(network.inputs),
            output_names=list(network.outputs),
            opset_version=DEFAULT_OPSET, dynamo=True, optimize=False, verbose=False,
        )  # fmt: skip
    if program is None:
        raise RuntimeError("torch.onnx.export returned nothing")
    model = program.model
    Specialise()(model)
    StageNames()(model)
    half = Half(is_island)
    with _half_borders(model):
        half(model)
    ir.save(model, path, external_data=f"{path.name}.data")
    release(model)
    return half.islands


@contextmanager
def _half_borders(model: ir.Model) -> Iterator[None]:
    """Skips and prediction cross in FP16; the latent stays FP32 as in the single graph, and pixels are bytes."""
    import onnx_ir as ir

    wide = {value.name: value for value in (*model.graph.inputs, *model.graph.outputs)}
    for name in (*SKIPS, PREDICTION):
        if name in wide and wide[name] in model.graph.inputs:
            wide[name].dtype = ir.DataType.FLOAT16
    # The pass leaves a graph's outputs as they are; while it runs these are none.
    outputs = list(model.graph.outputs)
    model.graph.outputs.clear()
    yield
    model.graph.outputs.extend(outputs)
