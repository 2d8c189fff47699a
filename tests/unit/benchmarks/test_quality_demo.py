"""Deliberately wrong engines made of the bundled demo model: weights left out, wrong quantisation."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from edgeturbo.benchmarks.quality import Quality, compare
from edgeturbo.benchmarks.quality_verdict import OWN_MARGIN_DB, lost_db, mean_bias, verdict
from edgeturbo.export.assemble import assemble
from edgeturbo.export.base import open_base
from edgeturbo.export.checkpoints import read_checkpoint
from edgeturbo.export.checkpoints.checkpoint import Checkpoint, NetworkDelta
from edgeturbo.export.demo import demo_base, demo_checkpoint, demo_frames
from edgeturbo.export.recipe import ExportOptions, recipe_for
from edgeturbo.export.text import encode_prompt
from edgeturbo.runtime.image import load_frame, prepare

PROMPT, SIDE = "driving in the night", 192


@dataclass(frozen=True)
class Demo:
    checkpoint: Checkpoint
    frame: np.ndarray
    image: np.ndarray
    unquantised: np.ndarray


def run(checkpoint: Checkpoint, frame: np.ndarray, half: bool = False) -> tuple[np.ndarray, np.ndarray]:
    base = open_base(str(demo_base()))
    options = ExportOptions(checkpoint.path, prompt=PROMPT, direction="a2b", width=SIDE, height=SIDE)
    generator = assemble(recipe_for(options, checkpoint), checkpoint, base, encode_prompt(base, PROMPT))
    with torch.inference_mode(), torch.autocast("cpu", torch.float16, enabled=half):
        image, unquantised = generator(torch.from_numpy(frame)[None])
    return image[0].numpy(), unquantised[0].permute(1, 2, 0).float().numpy()


@pytest.fixture(scope="module")
def demo() -> Demo:
    torch.set_num_threads(1)
    checkpoint = read_checkpoint(demo_checkpoint())
    frame = prepare(load_frame(demo_frames()[0]), SIDE, SIDE, "raw")
    return Demo(checkpoint, frame, *run(checkpoint, frame))


@pytest.fixture(scope="module")
def own(demo: Demo) -> Quality:
    """PyTorch's own FP16."""
    return compare([(demo.image, run(demo.checkpoint, demo.frame, half=True)[0])])


def without(delta: NetworkDelta, part: str) -> NetworkDelta:
    """``delta`` with the factors of every module whose name begins so set to nothing."""
    kept = {
        name: dataclasses.replace(pair, up=torch.zeros_like(pair.up)) if name.startswith(part) else pair
        for name, pair in delta.lora.items()
    }
    assert any(name.startswith(part) for name in delta.lora)
    return dataclasses.replace(delta, lora=kept)


def test_pytorchs_own_fp16_passes(own):
    assert own.worst["psnr_db"].value > 50
    assert verdict(own, "fp16", own) == []


@pytest.mark.parametrize("part", ["decoder.skip_conv_4", "encoder.conv_in"])
def test_one_lora_of_the_vae_left_out_is_told_without_pytorchs_line(demo, part):
    vae = without(demo.checkpoint.vae("a2b"), part)
    broken = dataclasses.replace(demo.checkpoint, vaes={**demo.checkpoint.vaes, "a2b": vae})
    quality = compare([(demo.image, run(broken, demo.frame)[0])])
    assert any(sentence.startswith("tone") for sentence in verdict(quality, "fp16"))


def test_one_lora_of_the_unet_left_out_is_told_by_pytorchs_line(demo, own):
    """Its 50 dB are well within what FP16 may cost some model, but not this one."""
    broken = dataclasses.replace(demo.checkpoint, unet=without(demo.checkpoint.unet, "conv_out"))
    quality = compare([(demo.image, run(broken, demo.frame)[0])])
    assert quality.worst["psnr_db"].value > 40
    assert lost_db(quality, own) > OWN_MARGIN_DB
    assert any("PyTorch's own" in sentence for sentence in verdict(quality, "fp16", own))
    assert verdict(quality, "fp32") != []


def test_rounding_what_the_model_really_makes_is_told(demo):
    levels = (demo.unquantised * 0.5 + 0.5) * 255
    assert np.array_equal(np.floor(levels).astype(np.uint8), demo.image)
    quality = compare([(demo.image, np.rint(levels).astype(np.uint8))])
    assert mean_bias(quality) == pytest.approx((0.5, 0.5, 0.5), abs=0.1)
    assert any("rounding" in sentence for sentence in verdict(quality, "fp16"))


def test_a_gamma_on_what_the_model_really_makes_is_told(demo):
    off = 255 * np.clip(demo.unquantised * 0.5 + 0.5, 0, 1) ** 1.03
    quality = compare([(demo.image, off.astype(np.uint8))])
    assert any(sentence.startswith("tone") for sentence in verdict(quality, "fp16"))
