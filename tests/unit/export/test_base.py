"""Base models: folders that lack or contradict something, and hub ids that cannot be had."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys

import pytest
import torch
from edgeturbo.engines.errors import BaseModelError
from edgeturbo.export.base import open_base
from edgeturbo.export.text import encode_prompt
from safetensors.torch import load_file, save_file

UNET = "unet/diffusion_pytorch_model.safetensors"


@pytest.fixture
def copied(tiny, tmp_path):
    return shutil.copytree(tiny.base, tmp_path / "base")


@pytest.mark.parametrize(
    "lost",
    ["scheduler/scheduler_config.json", "text_encoder/config.json", "unet/config.json", "vae/config.json"],
)
def test_a_folder_that_lacks_a_part_is_told_which(copied, lost):
    (copied / lost).unlink()
    with pytest.raises(BaseModelError, match="is not a complete base model") as caught:
        open_base(str(copied))
    assert caught.value.got == f"missing {lost}"
    assert "huggingface-cli download stabilityai/sd-turbo" in caught.value.hint


@pytest.mark.parametrize("name", ["sd-turbo", "./sd-turbo/base", "/nowhere/base", "a/b/c", "~/sd-turbo"])
def test_what_is_neither_a_folder_nor_a_hub_id_is_refused_without_asking_the_hub(name):
    with pytest.raises(BaseModelError, match="neither a folder nor a hub id") as caught:
        open_base(name)
    assert "stabilityai/sd-turbo" in caught.value.expected


def test_a_file_is_no_base_model(tiny):
    with pytest.raises(BaseModelError, match="neither a folder nor a hub id"):
        open_base(str(tiny.cyclegan()))


CHILD = """
from edgeturbo.engines.errors import MissingComponentError
from edgeturbo.export.base import open_base
try:
    open_base("stabilityai/sd-turbo")
except MissingComponentError as error:
    print(error)
    raise SystemExit(error.exit_code)
"""


def test_a_hub_id_without_network_or_cache_says_what_to_download_and_base(tmp_path):
    # The hub's client reads its settings when it is imported, hence the child.
    settings = {"HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path), "HF_HUB_CACHE": str(tmp_path / "hub")}
    done = subprocess.run(
        [sys.executable, "-c", CHILD], env={**os.environ, **settings}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 4, done.stderr
    assert "the base model stabilityai/sd-turbo is not on this machine" in done.stdout
    assert "huggingface-cli download stabilityai/sd-turbo --local-dir sd-turbo" in done.stdout
    assert "--base sd-turbo" in done.stdout


@pytest.mark.parametrize("kept", [0, 100, 20_000])
def test_truncated_weights_are_refused(copied, kept):
    path = copied / UNET
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(BaseModelError, match="cannot be loaded as SD-Turbo's unet"):
        open_base(str(copied)).unet()


def test_weights_that_do_not_fit_the_config_are_refused(copied):
    shutil.copy(copied / "vae/diffusion_pytorch_model.safetensors", copied / UNET)
    with pytest.raises(BaseModelError):
        open_base(str(copied)).unet()


def test_a_lost_weight_is_named(copied):
    weights = load_file(copied / UNET)
    del weights["conv_out.bias"]
    save_file(weights, copied / UNET, metadata={"format": "pt"})
    with pytest.raises(BaseModelError, match="the weights do not fit the config") as caught:
        open_base(str(copied)).unet()
    assert "conv_out.bias" in caught.value.got


def test_missing_weights_are_refused(copied):
    (copied / UNET).unlink()
    with pytest.raises(BaseModelError, match="cannot be loaded as SD-Turbo's unet"):
        open_base(str(copied)).unet()


@pytest.mark.parametrize("lost", ["text_encoder/model.safetensors", "tokenizer"])
def test_a_base_without_its_text_encoder_or_tokenizer_cannot_encode(copied, lost):
    shutil.rmtree(copied / lost) if (copied / lost).is_dir() else (copied / lost).unlink()
    with pytest.raises(BaseModelError, match="text encoder or tokenizer cannot be loaded"):
        encode_prompt(open_base(str(copied)), "a prompt")


def test_a_half_precision_base_is_widened(copied):
    halves = {name: tensor.half() for name, tensor in load_file(copied / UNET).items()}
    save_file(halves, copied / UNET, metadata={"format": "pt"})
    unet = open_base(str(copied)).unet()
    assert {parameter.dtype for parameter in unet.parameters()} == {torch.float32}
    assert torch.equal(unet.conv_out.weight, halves["conv_out.weight"].float())


def test_networks_come_without_gradients_in_evaluation_mode(tiny):
    base = open_base(str(tiny.base))
    for network in (base.unet(), base.vae()):
        assert not network.training
        assert not any(parameter.requires_grad for parameter in network.parameters())


def test_the_revision_tells_contents_apart_and_not_places(copied, tiny):
    revision = open_base(str(tiny.base)).revision
    assert revision.startswith("sha256:")
    assert open_base(str(copied)).revision == revision
    path = copied / UNET
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    assert open_base(str(copied)).revision != revision
