"""Every golden of the published implementation, through ``turbo-export`` and ``turbo-run``, in FP32 and FP16."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest
import torch
from edgeturbo.engines.bundle import Bundle
from edgeturbo.engines.parity import psnr
from edgeturbo.export.samples import Sample
from edgeturbo.export.verify import bundle_outputs
from PIL import Image
from shared import once
from terminal import Turbo
from tiny import GOLDEN

NIGHT, DAY = "driving in the night", "driving in the day"


@dataclass(frozen=True)
class Golden:
    """One golden: the checkpoint, what to export it with, arrays (and which of their outputs), and the picture."""

    ckpt: str
    options: tuple[str, ...]
    arrays: str
    output: str = "y"
    frame: str | None = None
    image: str | None = None

    @property
    def name(self) -> str:
        return f"{self.arrays}-{self.output}"


def cyclegan(direction: str, prompt: str, size: str, arrays: str, image: str | None) -> Golden:
    options = ("--direction", direction, "--prompt", prompt, "--size", size)
    return Golden("cyclegan.pkl", options, arrays, frame="frame.png" if image else None, image=image)


def stochastic(strength: str) -> Golden:
    options = ("--prompt", "a sketch of a fish", "--size", "128x128", "--strength", strength, "--input-prep", "sketch")
    name = "pix2pix_stochastic"
    return Golden(f"{name}.pkl", options, name, f"y_{strength}", "sketch_frame.png", f"{name}_{strength}.png")


GOLDENS = [
    cyclegan("a2b", NIGHT, "128x128", "cyclegan_a2b", "cyclegan_a2b.png"),
    cyclegan("b2a", DAY, "128x128", "cyclegan_b2a", "cyclegan_b2a.png"),
    cyclegan("a2b", NIGHT, "192x128", "cyclegan_a2b_192x128", None),
    Golden(
        "pix2pix.pkl", ("--prompt", "a photo of a cat", "--size", "128x136"), "pix2pix",
        frame="pix_frame.png", image="pix2pix.png",
    ),
    stochastic("0.0"), stochastic("0.4"), stochastic("1.0"),
]  # fmt: skip


def export(turbo: Turbo, golden: Golden, out: Path, *more: str) -> Bundle:
    ended = turbo(
        "turbo-export", "--ckpt", GOLDEN / golden.ckpt, "--base", GOLDEN / "base", "--out", out,
        "--engine", "onnx", "--parity-frames", "1", *golden.options, *more,
    )  # fmt: skip
    assert ended.code == 0, ended.err
    return Bundle.open(out)


def unquantised(bundle: Bundle, golden: Golden) -> np.ndarray:
    """The network's output for the golden's network input, which is a uint8 frame's in every golden."""
    arrays = np.load(GOLDEN / f"{golden.arrays}.npz")
    levels = arrays["x"] * 255 if "pix2pix" in golden.arrays else (arrays["x"] * 0.5 + 0.5) * 255
    frame = np.ascontiguousarray(np.rint(levels[0]).astype(np.uint8).transpose(1, 2, 0))
    noises = {"noise": arrays["noise"]} if "noise" in arrays else {}
    return bundle_outputs(bundle.onnx(), (Sample(frame, noises),)).unquantised[0]


def golden_output(golden: Golden) -> np.ndarray:
    return np.load(GOLDEN / f"{golden.arrays}.npz")[golden.output][0]


@pytest.mark.parametrize("golden", GOLDENS, ids=lambda golden: golden.name)
def test_fp32_is_the_published_implementation(turbo: Turbo, tmp_path: Path, golden: Golden) -> None:
    bundle = export(turbo, golden, tmp_path / "bundle", "--precision", "fp32")
    assert np.abs(unquantised(bundle, golden) - golden_output(golden)).max() <= 1e-4
    # At r = 0 and 1 one of the two inputs counts for nothing, and must be there all the same.
    assert all(value.uses() for value in ir.load(bundle.onnx()).graph.inputs)
    if golden.frame is None:
        return
    noise = np.load(GOLDEN / f"{golden.arrays}.npz").get("noise", np.empty(0))
    np.save(tmp_path / "noise.npy", noise)
    more = ("--noise", tmp_path / "noise.npy") if noise.size else ()
    ended = turbo("turbo-run", tmp_path / "bundle", GOLDEN / golden.frame, tmp_path / "image.png", *more)
    assert ended.code == 0, ended.err
    image, expected = (
        np.asarray(Image.open(path), dtype=int) for path in (tmp_path / "image.png", GOLDEN / golden.image)
    )
    assert image.shape == expected.shape
    assert np.mean(np.abs(image - expected) <= 1) >= 0.999


@pytest.fixture
def in_fp16(turbo: Turbo, tmp_path_factory: pytest.TempPathFactory) -> Callable[[Golden], Bundle]:
    """What ``turbo-export`` makes of a golden's checkpoint by default, made once."""

    def make(golden: Golden) -> Bundle:
        made = once(tmp_path_factory, golden.name, lambda folder: export(turbo, golden, folder / "bundle"))
        return Bundle.open(made / "bundle")

    return make


@pytest.mark.parametrize("golden", [GOLDENS[0], GOLDENS[3], GOLDENS[5]], ids=lambda golden: golden.name)
def test_fp16_reaches_40_db_with_a_clean_ledger(in_fp16: Callable[[Golden], Bundle], golden: Golden) -> None:
    bundle = in_fp16(golden)
    ledger, parity = bundle.manifest.range_ledger, bundle.manifest.parity
    assert ledger.tensors > 1000
    assert ledger.weights > 500
    assert ledger.warnings == ()
    assert parity.psnr_db >= 40
    assert psnr(unquantised(bundle, golden), golden_output(golden), peak=2.0) >= 40


def test_the_oldest_key_names_give_the_same_bundle(
    turbo: Turbo, in_fp16: Callable[[Golden], Bundle], tmp_path: Path
) -> None:
    content = torch.load(GOLDEN / "cyclegan.pkl", weights_only=True)
    for key in ("sd_vae_enc", "sd_vae_dec"):
        content[key] = {name.replace(".base_layer.", "."): tensor for name, tensor in content[key].items()}
    torch.save(content, tmp_path / "old.pkl")
    old = Golden(str(tmp_path / "old.pkl"), GOLDENS[0].options, GOLDENS[0].arrays)
    first, second = in_fp16(GOLDENS[0]).manifest.files, export(turbo, old, tmp_path / "old").manifest.files
    for name in ("generator.onnx", "generator.onnx.data"):
        assert first[name].sha256 == second[name].sha256


def test_a_sampled_posterior_takes_its_noise_as_an_input(turbo: Turbo, tmp_path: Path) -> None:
    bundle = export(turbo, GOLDENS[0], tmp_path / "bundle", "--precision", "fp32", "--posterior", "sample")
    assert [spec.name for spec in bundle.manifest.inputs] == ["frame", "posterior_noise"]
    arrays = np.load(GOLDEN / "cyclegan_a2b.npz")
    frame = np.ascontiguousarray(np.rint((arrays["x"][0] * 0.5 + 0.5) * 255).astype(np.uint8).transpose(1, 2, 0))
    outputs = bundle_outputs(bundle.onnx(), (Sample(frame, {"posterior_noise": arrays["eps"]}),))
    assert np.abs(outputs.unquantised[0] - arrays["y_eps"][0]).max() <= 1e-4
