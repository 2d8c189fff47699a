"""The merged generator and the unmerged reference, both in PyTorch, against what the published code computed."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from edgeturbo.export.assemble import assemble
from edgeturbo.export.checkpoints import read_checkpoint
from edgeturbo.export.generator import FrameIn, ImageOut, VaeEncoder
from edgeturbo.export.recipe import ExportOptions, recipe_for
from edgeturbo.export.reference import Reference, ReferenceInputs
from edgeturbo.export.text import encode_prompt
from tiny import GOLDEN

TOLERANCE = 1e-4  # the goldens' README: a faithful exporter lands within it


@dataclass(frozen=True)
class Case:
    """One output in the goldens: of which checkpoint, in which file, under which name, and how it was made."""

    checkpoint: str
    file: str
    output: str = "y"
    posterior_noise: str | None = None
    strength: float | None = None


CASES = [
    Case("cyclegan", "cyclegan_a2b"),
    Case("cyclegan", "cyclegan_a2b", "y_eps", "eps"),
    Case("cyclegan", "cyclegan_b2a"),
    Case("cyclegan", "cyclegan_b2a", "y_eps", "eps"),
    Case("cyclegan", "cyclegan_a2b_192x128"),
    Case("cyclegan_old_names", "cyclegan_a2b"),
    Case("cyclegan_overflow", "cyclegan_overflow_a2b"),
    Case("pix2pix", "pix2pix"),
    Case("pix2pix_stochastic", "pix2pix_stochastic", "y_0.0", strength=0.0),
    Case("pix2pix_stochastic", "pix2pix_stochastic", "y_0.4", strength=0.4),
    Case("pix2pix_stochastic", "pix2pix_stochastic", "y_1.0", strength=1.0),
]


@pytest.fixture(params=CASES, ids=lambda case: f"{case.checkpoint}-{case.file}-{case.output}")
def case(request: pytest.FixtureRequest) -> Case:
    return request.param


def checkpoint_path(name: str, folder: Path) -> Path:
    if (GOLDEN / f"{name}.pkl").exists():
        return GOLDEN / f"{name}.pkl"
    content = torch.load(GOLDEN / "cyclegan.pkl", weights_only=True)
    if name == "cyclegan_overflow":
        for part, delta in torch.load(GOLDEN / "cyclegan_overflow_delta.pt", weights_only=True).items():
            content[part].update(delta)
    else:
        for part in ("sd_vae_enc", "sd_vae_dec"):
            content[part] = {key.replace(".base_layer.", "."): tensor for key, tensor in content[part].items()}
    torch.save(content, folder / f"{name}.pkl")
    return folder / f"{name}.pkl"


@dataclass(frozen=True)
class Opened:
    """All that the generator and the reference are made of, and what goes in and must come out."""

    base: Any
    checkpoint: Any
    direction: str | None
    embedding: torch.Tensor
    inputs: ReferenceInputs
    expected: torch.Tensor


@pytest.fixture
def opened(case: Case, golden_base, tmp_path: Path) -> Opened:
    with np.load(GOLDEN / f"{case.file}.npz") as arrays:
        stored = {name: arrays[name] for name in arrays}
    noise = torch.from_numpy(stored["noise"]) if "noise" in stored else None
    posterior = torch.from_numpy(stored[case.posterior_noise]) if case.posterior_noise else None
    return Opened(
        golden_base,
        read_checkpoint(checkpoint_path(case.checkpoint, tmp_path)),
        str(stored["direction"]) if "direction" in stored else None,
        encode_prompt(golden_base, str(stored["caption"])),
        ReferenceInputs(torch.from_numpy(stored["x"]), noise, posterior),
        torch.from_numpy(stored[case.output]),
    )


def test_the_reference_computes_what_the_published_code_does(case, opened):
    reference = Reference(opened.base, opened.checkpoint, opened.direction, opened.embedding, case.strength)
    assert (reference(opened.inputs) - opened.expected).abs().max().item() <= TOLERANCE


@torch.inference_mode()
def test_the_merged_generator_computes_what_the_published_code_does(case, opened):
    inputs = opened.inputs
    options = ExportOptions(
        opened.checkpoint.path, prompt="any", direction=opened.direction, strength=case.strength,
        posterior="mean" if inputs.posterior_noise is None else "sample",
    )  # fmt: skip
    generator = assemble(recipe_for(options, opened.checkpoint), opened.checkpoint, opened.base, opened.embedding)
    # The goldens hold the network's input, so the frame's own border is left out here and tested below.
    moments, skips = generator.vae_encoder(inputs.image)
    latent = generator.latent(moments, inputs.noise, inputs.posterior_noise)
    decoded = generator.vae_decoder(generator.x0(latent, generator.unet(latent)), skips)
    assert (generator.image_out(decoded)[1] - opened.expected).abs().max().item() <= TOLERANCE


def test_the_goldens_tell_their_variants_apart():
    """Otherwise a reader that mixed them up could pass."""
    a2b, b2a = (np.load(GOLDEN / f"cyclegan_{direction}.npz") for direction in ("a2b", "b2a"))
    stochastic = np.load(GOLDEN / "pix2pix_stochastic.npz")
    assert np.array_equal(a2b["x"], b2a["x"])
    for one, other in (
        (a2b["y"], b2a["y"]),
        (a2b["y"], a2b["y_eps"]),
        (stochastic["y_0.0"], stochastic["y_0.4"]),
        (stochastic["y_0.4"], stochastic["y_1.0"]),
    ):
        assert np.abs(one - other).max() > 100 * TOLERANCE


@pytest.mark.parametrize("posterior", ["mean", "sample"])
@torch.inference_mode()
def test_a_batch_is_its_frames_one_by_one(tiny, posterior):
    from edgeturbo.export.base import open_base

    base, checkpoint = open_base(str(tiny.base)), read_checkpoint(tiny.pix2pix(stochastic=True))
    options = ExportOptions(checkpoint.path, prompt="a fish", posterior=posterior)
    embedding = encode_prompt(base, "a fish")
    random = torch.Generator().manual_seed(0)
    frames = torch.randint(0, 256, (2, 64, 72, 3), generator=random, dtype=torch.uint8)
    names = ("noise",) if posterior == "mean" else ("noise", "posterior_noise")
    noises = {name: torch.randn(2, 4, 8, 9, generator=random) for name in names}

    def run(batch, first, last):
        recipe = recipe_for(ExportOptions(**{**vars(options), "batch": batch}), checkpoint)
        generator = assemble(recipe, checkpoint, base, embedding)
        return generator(frames[first:last], **{name: noise[first:last] for name, noise in noises.items()})

    image, unquantised = run(2, 0, 2)
    assert image.shape == (2, 64, 72, 3)
    assert image.dtype == torch.uint8
    for i in (0, 1):
        assert (run(1, i, i + 1)[1] - unquantised[i : i + 1]).abs().max().item() <= 1e-5


def test_a_frame_enters_as_to_tensor_and_normalize_make_it():
    frame = torch.tensor([0, 51, 255], dtype=torch.uint8).reshape(1, 1, 1, 3)
    assert FrameIn(signed=False)(frame).flatten().tolist() == pytest.approx([0.0, 0.2, 1.0])
    assert FrameIn(signed=True)(frame).flatten().tolist() == pytest.approx([-1.0, -0.6, 1.0])
    assert FrameIn(signed=True)(torch.zeros(2, 8, 16, 3, dtype=torch.uint8)).shape == (2, 3, 8, 16)


def test_an_image_leaves_clamped_and_truncated_never_rounded():
    # (2/3 * 0.5 + 0.5) * 255 = 212.5, and 254.99 / 255 is still 254.
    decoded = torch.tensor([-3.0, -1.0, 0.0, 2 / 3, 2 * 254.99 / 255 - 1, 1.0, 7.0]).reshape(1, 1, 1, 7)
    image, unquantised = ImageOut()(decoded)
    assert image.flatten().tolist() == [0, 0, 127, 212, 254, 255, 255]
    assert unquantised.min().item() == -1.0
    assert unquantised.max().item() == 1.0


def test_with_the_posteriors_mean_the_variance_half_is_not_computed(golden_base):
    vae = golden_base.vae()
    assert VaeEncoder(vae, "mean").quant_conv.out_channels == 4
    assert VaeEncoder(vae, "sample").quant_conv.out_channels == 8
    x = torch.rand(1, 8, 4, 4)
    assert torch.equal(VaeEncoder(vae, "mean").quant_conv(x), vae.quant_conv(x)[:, :4])


def test_the_prompt_is_padded_and_cut_to_77_tokens(golden_base):
    short, empty = encode_prompt(golden_base, "driving in the night"), encode_prompt(golden_base, "")
    long = encode_prompt(golden_base, "night " * 500)
    assert short.shape == empty.shape == long.shape == (1, 77, short.shape[-1])
    assert short.dtype == torch.float32
    assert not torch.equal(short, empty)
