"""Engines that compute the wrong thing, each measured by a whole run beside the bundle that is right."""

from __future__ import annotations

import dataclasses
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from edgeturbo.benchmarks.gpu_check.subject import Subject
from edgeturbo.benchmarks.result import PEER
from edgeturbo.benchmarks.rivals import same_options
from edgeturbo.benchmarks.rows import RowPlan, Setting, plan_rows
from edgeturbo.benchmarks.suite import BenchOptions, run_rows
from edgeturbo.engines.bundle import Bundle
from edgeturbo.engines.pytorch import PyTorchEngine
from edgeturbo.export.assemble import assemble
from edgeturbo.export.base import open_base
from edgeturbo.export.checkpoints import read_checkpoint
from edgeturbo.export.demo import demo_base, demo_checkpoint
from edgeturbo.export.recipe import ExportOptions, recipe_for
from edgeturbo.export.session import export_bundle
from edgeturbo.export.text import encode_prompt
from tiny import GOLDEN, GOLDEN_BASE
from torch import nn

PICTURES = BenchOptions(suites=("quality",))


class Levels(nn.Module):
    """A generator whose values become grey levels in another way than by truncation."""

    def __init__(self, generator: nn.Module, quantise) -> None:
        super().__init__()
        self.generator, self.quantise = generator, quantise

    def forward(self, frame: torch.Tensor) -> torch.Tensor:
        values = self.generator(frame)[1].permute(0, 2, 3, 1) * 0.5 + 0.5
        return self.quantise(values.clamp(0, 1)).to(torch.uint8).contiguous()


class Image(nn.Module):
    """The image alone of what a generator returns."""

    def __init__(self, generator: nn.Module) -> None:
        super().__init__()
        self.generator = generator

    def forward(self, *tensors: torch.Tensor, **named: torch.Tensor) -> torch.Tensor:
        return self.generator(*tensors, **named)[0]


def exported(out: Path, **options) -> Bundle:
    options = {"precision": "fp32", "engine": "onnx", "parity_frames": 1, **options}
    return export_bundle(ExportOptions(out=out, **options)).bundle


def generator_of(setting: Setting, bundle: Bundle, checkpoint=None, **changes):
    """What the bundle was exported from, but for ``checkpoint`` and ``changes`` of the options."""
    options = dataclasses.replace(same_options(setting, bundle), **changes)
    read, base = checkpoint or read_checkpoint(options.ckpt), open_base(options.base)
    return assemble(recipe_for(options, read), read, base, encode_prompt(base, options.prompt))


def plan(bundle: Bundle, name: str, module: nn.Module) -> RowPlan:
    @contextmanager
    def opened(feeds):
        engine = PyTorchEngine(module, bundle.manifest.inputs, bundle.manifest.outputs[0])
        with engine:
            yield Subject(name, "pytorch", "fp32", engine, lambda: engine.run(feeds))

    return RowPlan(name, PEER, opened)


def verdicts(bundle: Bundle, wrong: dict[str, nn.Module]) -> dict[str, tuple[str, ...]]:
    """What a whole run says of the bundle's own pictures and of each wrong engine's, by name."""
    (own,), _ = plan_rows(Setting(bundle.root / "generator.onnx"), ())
    plans = [own, *(plan(bundle, name, module) for name, module in wrong.items())]
    found = run_rows(Setting(bundle.root), PICTURES, plans, "turbo-bench x").result
    assert not [row.not_run["row"] for row in found.rows if "row" in row.not_run]
    said = {row.name: row.verdict for row in found.rows}
    assert said.pop(found.subject.name) == ()
    return said


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> tuple[Bundle, Setting]:
    out = tmp_path_factory.mktemp("wrong") / "demo"
    setting = Setting(out, demo_checkpoint(), str(demo_base()))
    options = {"prompt": "driving in the night", "direction": "a2b", "width": 128, "height": 128}
    return exported(out, ckpt=setting.ckpt, base=setting.base, **options), setting


def test_weights_left_out_rounding_and_a_wrong_gamma_are_each_named(demo):
    bundle, setting = demo
    checkpoint = read_checkpoint(setting.ckpt)
    pair = checkpoint.unet.lora["conv_out"]
    lora = {**checkpoint.unet.lora, "conv_out": dataclasses.replace(pair, up=torch.zeros_like(pair.up))}
    without = dataclasses.replace(checkpoint, unet=dataclasses.replace(checkpoint.unet, lora=lora))
    right = generator_of(setting, bundle)
    said = verdicts(
        bundle,
        {
            "right": Levels(right, lambda values: (values * 255).floor()),
            "without one LoRA": Image(generator_of(setting, bundle, without)),
            "rounding": Levels(right, lambda values: (values * 255).round()),
            "gamma": Levels(right, lambda values: (values**1.03 * 255).floor()),
        },
    )
    assert said["right"] == ()
    assert said["without one LoRA"] != ()
    assert any("rounding" in sentence for sentence in said["rounding"])
    assert any(sentence.startswith("tone") for sentence in said["gamma"])


def test_another_strength_is_named(tmp_path: Path):
    """The paper's gamma: how much of the noise map and of the LoRA counts."""
    setting = Setting(tmp_path / "bundle", GOLDEN / "pix2pix_stochastic.pkl", str(GOLDEN_BASE))
    bundle = exported(
        setting.bundle, ckpt=setting.ckpt, base=setting.base, prompt="a cat", width=64, height=64, strength=0.4
    )
    said = verdicts(
        bundle,
        {
            "right": Image(generator_of(setting, bundle)),
            "gamma off": Image(generator_of(setting, bundle, strength=1.0)),
        },
    )
    assert said["right"] == ()
    assert said["gamma off"] != ()
