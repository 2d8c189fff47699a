"""Readers: told apart by keys, both peft spellings, the scale that no file stores, and what refusals name."""

from __future__ import annotations

import shutil

import pytest
import torch
from edgeturbo.engines.errors import CheckpointError, KeyMismatchError, UsageError
from edgeturbo.export.checkpoints import read_checkpoint
from tiny import GOLDEN

VAE_LORA = "vae.encoder.conv_in.lora_A.vae_skip.weight"


def in_both_vae_parts(change):
    """Both keys hold one dictionary in a written file, as they do in a published one."""
    return lambda content: change(content["sd_vae_dec"])


def without(part, key):
    return lambda content: content[part].pop(key)


@pytest.mark.parametrize(
    ("name", "family", "stochastic", "directions"),
    [
        ("cyclegan", "cyclegan-turbo", False, ("a2b", "b2a")),
        ("pix2pix", "pix2pix-turbo", False, ()),
        ("pix2pix_stochastic", "pix2pix-turbo", True, ()),
    ],
)
def test_goldens_are_told_apart_by_their_keys_though_the_names_lie(name, family, stochastic, directions, tmp_path):
    lie = tmp_path / ("pix2pix.pkl" if name == "cyclegan" else "day2night.bin")
    shutil.copy(GOLDEN / f"{name}.pkl", lie)
    checkpoint = read_checkpoint(lie)
    assert (checkpoint.family, checkpoint.stochastic, checkpoint.directions) == (family, stochastic, directions)
    assert checkpoint.path == lie


def test_tiny_checkpoints_are_read(tiny):
    assert read_checkpoint(tiny.cyclegan()).family == "cyclegan-turbo"
    assert read_checkpoint(tiny.pix2pix()).twin_conv is None
    assert read_checkpoint(tiny.pix2pix(stochastic=True)).twin_conv is not None


def test_old_and_current_peft_names_are_one(tiny):
    old, new = read_checkpoint(tiny.cyclegan(old_names=True)), read_checkpoint(tiny.cyclegan())
    assert any(".base_layer." in name for name in torch.load(tiny.cyclegan())["sd_vae_dec"])
    assert not any(".base_layer." in name for name in torch.load(tiny.cyclegan(old_names=True))["sd_vae_dec"])
    for direction in ("a2b", "b2a"):
        ours, theirs = old.vae(direction), new.vae(direction)
        assert ours.weights.keys() == theirs.weights.keys()
        assert all(torch.equal(ours.weights[name], theirs.weights[name]) for name in ours.weights)
        assert ours.lora.keys() == theirs.lora.keys()


def test_each_direction_has_its_own_vae():
    checkpoint = read_checkpoint(GOLDEN / "cyclegan.pkl")
    raw = torch.load(GOLDEN / "cyclegan.pkl", weights_only=True)["sd_vae_dec"]
    for direction, prefix in (("a2b", "vae."), ("b2a", "vae_b2a.")):
        stored = raw[f"{prefix}encoder.conv_in.lora_A.vae_skip.weight"]
        assert torch.equal(checkpoint.vae(direction).lora["encoder.conv_in"].down, stored)


def test_the_decoder_sides_dictionary_has_the_last_word_as_in_the_published_loader(tiny, edited):
    path = edited(tiny.cyclegan(), lambda c: c.update(sd_vae_enc={k: v + 1 for k, v in c["sd_vae_enc"].items()}))
    expected = torch.load(path)["sd_vae_dec"][VAE_LORA]
    assert torch.equal(read_checkpoint(path).vae("a2b").lora["encoder.conv_in"].down, expected)


def test_directions_that_a_family_does_not_have_are_refused(tiny):
    with pytest.raises(UsageError, match="no direction 'x'") as caught:
        read_checkpoint(tiny.cyclegan()).vae("x")
    assert caught.value.hint == "--direction a2b"
    with pytest.raises(UsageError, match="pix2pix-turbo has no direction 'a2b'") as caught:
        read_checkpoint(tiny.pix2pix()).vae("a2b")
    assert caught.value.hint == "leave --direction out"


def test_what_cyclegan_does_not_store_is_named():
    (omission,) = read_checkpoint(GOLDEN / "cyclegan.pkl").omissions
    assert "unet.conv_in" in omission
    assert read_checkpoint(GOLDEN / "pix2pix.pkl").omissions == ()


def test_lora_scales(tiny):
    cyclegan = read_checkpoint(tiny.cyclegan(rank_unet=16))
    assert (cyclegan.unet.lora_scale, cyclegan.unet.rank) == (1.0, 16)
    assert {delta.lora_scale for delta in cyclegan.vaes.values()} == {2.0}
    assert read_checkpoint(tiny.pix2pix()).unet.lora_scale == 1.0
    assert read_checkpoint(tiny.pix2pix()).vae(None).lora_scale == 2.0
    assert read_checkpoint(tiny.pix2pix(rank_unet=128)).unet.lora_scale == 0.0625


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (without("sd_encoder", "conv_in.lora_A.weight"), ["without their partner", "conv_in", "sd_encoder"]),
        (lambda c: c["sd_other"].update({"conv_out.weight": torch.zeros(1)}), ["whole weights", "conv_out.weight"]),
        (lambda c: c["l_modules_others"].append("nobody"), ["l_modules_others", "missing 1: nobody"]),
        (lambda c: c["l_modules_others"].remove("conv_out"), ["sd_other", "unexpected 1: conv_out"]),
        (in_both_vae_parts(lambda state: state.update(stray=torch.zeros(1))), ["more than vae.*", "stray"]),
        (lambda c: c.update(sd_vae_enc={}), ["sd_vae_enc and sd_vae_dec hold different keys", "unexpected"]),
        (in_both_vae_parts(lambda state: state.pop(VAE_LORA)), ["without their partner", "encoder.conv_in"]),
    ],
)
def test_a_cyclegan_whose_keys_do_not_add_up_is_refused(tiny, edited, change, named):
    with pytest.raises(KeyMismatchError) as caught:
        read_checkpoint(edited(tiny.cyclegan(), change))
    assert all(text in str(caught.value) for text in named), str(caught.value)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (without("state_dict_unet", "conv_in.bias"), "missing 1: conv_in.bias"),
        (lambda c: c["state_dict_unet"].update({"conv_out.weight": torch.zeros(1)}), "unexpected 1: conv_out.weight"),
        (without("state_dict_vae", "decoder.skip_conv_2.base_layer.weight"), "missing 1: decoder.skip_conv_2.weight"),
        (without("state_dict_vae", "encoder.conv_in.lora_B.vae_skip.weight"), "missing 1: encoder.conv_in"),
        (without("state_dict_unet", "conv_out.lora_A.default.weight"), "unexpected 1: conv_out"),
    ],
)
def test_a_pix2pix_whose_keys_do_not_add_up_is_refused(tiny, edited, change, named):
    with pytest.raises(KeyMismatchError, match=named):
        read_checkpoint(edited(tiny.pix2pix(), change))


def test_a_twin_conv_lacking_one_of_its_four_tensors_is_refused(tiny, edited):
    path = edited(tiny.pix2pix(stochastic=True), without("state_dict_unet", "conv_in.conv_in_curr.bias"))
    with pytest.raises(KeyMismatchError, match=r"missing 1: conv_in\.conv_in_curr\.bias"):
        read_checkpoint(path)


def test_of_many_problems_the_first_ten_and_the_count_are_named(tiny, edited):
    factors = sorted(name for name in torch.load(tiny.pix2pix())["state_dict_unet"] if ".lora_B." in name)[:25]
    path = edited(tiny.pix2pix(), lambda c: [c["state_dict_unet"].pop(name) for name in factors])
    with pytest.raises(KeyMismatchError) as caught:
        read_checkpoint(path)
    modules = [name.partition(".lora_B")[0] for name in factors]
    assert "missing 25: " in caught.value.got
    assert caught.value.got.endswith("and 15 more")
    assert all(module in caught.value.got for module in modules[:10])
    assert modules[10] not in caught.value.got.split(", ")


@pytest.mark.parametrize("rank", [0, -4, "8", 8.0, True, None])
def test_a_rank_that_is_no_positive_integer_is_refused(tiny, edited, rank):
    with pytest.raises(CheckpointError, match="'rank_vae' is not a LoRA rank") as caught:
        read_checkpoint(edited(tiny.cyclegan(), lambda c: c.update(rank_vae=rank)))
    assert caught.value.got == repr(rank)


@pytest.mark.parametrize("targets", ["to_q", [1, 2], {"to_q": 1}, None])
def test_targets_that_are_no_names_are_refused(tiny, edited, targets):
    with pytest.raises(CheckpointError, match="'vae_lora_target_modules' is not a list of module names"):
        read_checkpoint(edited(tiny.pix2pix(), lambda c: c.update(vae_lora_target_modules=targets)))


@pytest.mark.parametrize("state", [None, [torch.zeros(1)], {"conv_in.weight": 1.0}])
def test_states_that_hold_no_tensors_are_refused(tiny, edited, state):
    with pytest.raises(CheckpointError, match="'state_dict_unet' is not a dictionary of tensors"):
        read_checkpoint(edited(tiny.pix2pix(), lambda c: c.update(state_dict_unet=state)))


def test_an_unknown_family_is_told_the_closest_one_and_what_it_lacks(tiny, edited):
    path = edited(tiny.pix2pix(), lambda c: [c.pop("rank_vae"), c.update(extra=1)])
    with pytest.raises(CheckpointError, match="not a checkpoint of a known family") as caught:
        read_checkpoint(path)
    assert "closest is pix2pix-turbo" in caught.value.expected
    assert "missing rank_vae" in caught.value.got
    path = edited(tiny.cyclegan(), lambda c: [c.pop("sd_vae_dec"), c.pop("sd_other")])
    with pytest.raises(CheckpointError, match="known family") as caught:
        read_checkpoint(path)
    assert "closest is cyclegan-turbo" in caught.value.expected
    assert "missing sd_other, sd_vae_dec" in caught.value.got
