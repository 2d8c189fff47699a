"""The three separate networks: encoder and decoder against PyTorch, and the chain on engines made of numpy."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from edgeturbo.benchmarks.gpu_check.options import CheckOptions
from edgeturbo.benchmarks.gpu_check.pytorch_model import load_parts
from edgeturbo.benchmarks.three_engines import (
    DECODER,
    ENCODER,
    LATENT,
    PREDICTION,
    SKIPS,
    EngineChain,
    export_network,
    networks,
)
from edgeturbo.engines.base import Engine, TensorSpec
from edgeturbo.engines.onnxruntime import OnnxRuntimeEngine
from tiny import Tiny

torch.set_num_threads(1)

PIXELS = 64


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory):
    """The three networks of a tiny generator, and a folder with two of them: a UNet is exported likewise."""
    folder = tmp_path_factory.mktemp("three")
    tiny = Tiny(folder)
    tiny.base, tiny.cyclegan().rename(folder / "cyclegan.pkl")
    generator = load_parts(CheckOptions(folder, folder, model="tiny", device="cpu")).merged()
    made = networks(generator, PIXELS)
    for name in (ENCODER, DECODER):
        islands = export_network(made[name], folder / f"{name}.onnx")
        assert all(island.startswith(("frame_in/", "latent/", "x0/", "image_out/")) for island in islands)
    return folder, made


def arrays(names: tuple[str, ...], tensors) -> dict[str, np.ndarray]:
    return {name: np.ascontiguousarray(tensor.numpy()) for name, tensor in zip(names, tensors, strict=True)}


def test_each_network_computes_what_pytorch_does_and_skips_cross_in_fp16(exported):
    folder, made = exported
    random = np.random.default_rng(0)
    frame = random.integers(0, 256, (1, PIXELS, PIXELS, 3), dtype=np.uint8)
    prediction = random.normal(0, 0.2, (1, 4, 8, 8)).astype(np.float32)
    with torch.inference_mode():
        encoded = arrays((LATENT, *SKIPS), made[ENCODER].module(torch.tensor(frame)))
        expected = (
            made[DECODER]
            .module(**{name: torch.tensor(value) for name, value in {**encoded, PREDICTION: prediction}.items()})
            .numpy()
        )
    with OnnxRuntimeEngine(folder / "encoder.onnx") as engine:
        outputs = {spec.name: spec.dtype for spec in engine.outputs}
        assert outputs == {LATENT: "float32", **dict.fromkeys(SKIPS, "float16")}
        got = engine.run({"frame": frame})
    for name, value in encoded.items():
        np.testing.assert_allclose(got[name].astype(np.float32), value, atol=5e-3)
    with OnnxRuntimeEngine(folder / "decoder.onnx") as engine:
        halves = {name: value.astype(np.float16) for name, value in {**encoded, PREDICTION: prediction}.items()}
        image = engine.run({**halves, LATENT: encoded[LATENT]})["image"]
    # The decoder amplifies an error of the prediction 80 times: 14.6 in x0, 5.5 in the VAE's scale.
    assert np.mean(np.abs(image.astype(int) - expected.astype(int)) <= 2) > 0.99


class Adding(Engine):
    """Adds 1 to its one input for every output."""

    backend = "adding"

    def __init__(self, inputs: tuple[str, ...], outputs: tuple[str, ...]) -> None:
        super().__init__()
        self._names = inputs, outputs

    @property
    def inputs(self):
        return tuple(TensorSpec(name, "float32", (1,)) for name in self._names[0])

    @property
    def outputs(self):
        return tuple(TensorSpec(name, "float32", (1,)) for name in self._names[1])

    def _open(self) -> None: ...

    def _close(self) -> None: ...

    def _run(self, feeds, out):
        total = np.sum(list(feeds.values()), axis=0) + 1
        results = out or {spec.name: np.empty(1, np.float32) for spec in self.outputs}
        for result in results.values():
            result[...] = total
        return results


def chain() -> EngineChain:
    encoder, unet = Adding(("frame",), (LATENT, *SKIPS)), Adding((LATENT,), (PREDICTION,))
    return EngineChain(encoder, unet, Adding((LATENT, PREDICTION, *SKIPS), ("image",)))


def test_the_chain_hands_latent_prediction_and_skips_on():
    with chain() as engine:
        frame, image = np.float32([10]), np.zeros(1, np.float32)
        # The encoder makes five 11s, the UNet one 12, the decoder their sum and 1.
        assert engine.run({"frame": frame})["image"] == 5 * 11 + 12 + 1
        assert engine.run({"frame": frame}, {"image": image})["image"] is image
        assert image == 68


def test_the_chain_closes_what_it_opened():
    engine = chain()
    parts = engine._encoder, engine._unet, engine._decoder
    with engine:
        assert all(part._is_open for part in parts)
    assert not any(part._is_open for part in parts)


def test_a_chain_whose_last_engine_does_not_open_keeps_none_open(tmp_path: Path):
    engine = chain()
    engine._decoder = OnnxRuntimeEngine(tmp_path / "missing.onnx")
    with pytest.raises(Exception, match="cannot load"):
        engine.open()
    assert not engine._encoder._is_open
    assert not engine._unet._is_open
