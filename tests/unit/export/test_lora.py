"""The merge, by hand-computed numbers, against live peft adapters, and against checkpoints of another base model."""

from __future__ import annotations

import itertools

import pytest
import torch
from edgeturbo.engines.errors import KeyMismatchError
from edgeturbo.engines.files import sha256_of
from edgeturbo.export.base import open_base
from edgeturbo.export.checkpoints import read_checkpoint
from edgeturbo.export.checkpoints.checkpoint import SKIP_CONVS, LoraPair, NetworkDelta, TwinConv
from edgeturbo.export.lora import add_skip_convs, blended, delta_of, merge_unet, merge_vae
from edgeturbo.export.reference import Reference
from tiny import GOLDEN

TOLERANCE = 1e-5
CASES = [("cyclegan", {}, "b2a", None)] + [
    ("pix2pix", {"stochastic": True}, None, strength) for strength in (0.0, 0.4, 1.0)
]


def merged(base, checkpoint, direction, strength):
    unet, vae = base.unet(), base.vae()
    add_skip_convs(vae)
    merge_unet(unet, checkpoint, 1.0 if strength is None else strength)
    merge_vae(vae, checkpoint.vae(direction), "the VAE", 1.0 if strength is None else strength)
    return unet, vae


def snapshot(network):
    return {name: parameter.detach().clone() for name, parameter in network.named_parameters()}


def unchanged(network, before):
    after = dict(network.named_parameters())
    return after.keys() == before.keys() and all(torch.equal(after[name], before[name]) for name in before)


def test_a_linear_layers_delta_by_hand():
    pair = LoraPair(down=torch.tensor([[1.0, 2.0, 3.0]]), up=torch.tensor([[10.0], [20.0]]))
    assert delta_of(pair).tolist() == [[10.0, 20.0, 30.0], [20.0, 40.0, 60.0]]


def test_a_convolutions_delta_by_hand():
    down = torch.arange(1.0, 10.0).reshape(1, 1, 3, 3)
    delta = delta_of(LoraPair(down, up=torch.tensor([2.0, -1.0]).reshape(2, 1, 1, 1)))
    assert delta.shape == (2, 1, 3, 3)
    assert delta[0, 0].tolist() == [[2.0, 4.0, 6.0], [8.0, 10.0, 12.0], [14.0, 16.0, 18.0]]
    assert torch.equal(delta[1], -down[0])


def test_two_ranks_add_up_by_hand():
    pair = LoraPair(down=torch.tensor([[1.0, 0.0], [0.0, 1.0]]), up=torch.tensor([[1.0, 2.0], [3.0, 4.0]]))
    assert delta_of(pair).tolist() == [[1.0, 2.0], [3.0, 4.0]]


def test_a_half_precision_checkpoint_is_merged_in_float32():
    pair = LoraPair(down=torch.tensor([[1000.0]]).half(), up=torch.tensor([[1000.0]]).half())
    assert delta_of(pair).item() == 1_000_000.0  # beyond float16


def test_a_twin_conv_is_blended_by_hand():
    one, nine = torch.full((1, 1, 3, 3), 1.0), torch.full((1, 1, 3, 3), 9.0)
    conv = blended(TwinConv(one, torch.tensor([10.0]), nine, torch.tensor([20.0])), 0.25)
    assert conv["conv_in.weight"].flatten().tolist() == [3.0] * 9  # 0.75 * 1 + 0.25 * 9
    assert conv["conv_in.bias"].tolist() == [12.5]


class TwoLayers(torch.nn.Module):
    """As much of a VAE as ``merge_vae`` touches: one convolution, and four 1x1 skip convolutions."""

    def __init__(self):
        super().__init__()
        self.encoder = torch.nn.Module()
        self.encoder.conv1 = torch.nn.Conv2d(1, 1, 1)
        self.decoder = torch.nn.Module()
        for name in SKIP_CONVS:
            self.decoder.add_module(name.removeprefix("decoder."), torch.nn.Conv2d(1, 1, 1, bias=False))
        self.requires_grad_(requires_grad=False)
        self.encoder.conv1.weight.fill_(5.0)


@pytest.mark.parametrize(("strength", "plain", "skip"), [(0.0, 5.0, 0.0), (0.5, 8.0, 3.0), (1.0, 11.0, 9.0)])
def test_strength_is_linear_in_a_weight_and_quadratic_in_a_skip(strength, plain, skip):
    modules = ("encoder.conv1", *SKIP_CONVS)
    unit = LoraPair(down=torch.full((1, 1, 1, 1), 1.0), up=torch.full((1, 1, 1, 1), 3.0))
    weights = {f"{name}.weight": torch.full((1, 1, 1, 1), 3.0) for name in SKIP_CONVS}
    vae = TwoLayers()
    merge_vae(vae, NetworkDelta(weights, dict.fromkeys(modules, unit), modules, lora_scale=2.0, rank=1), "x", strength)
    # 5 + r * 2 * 3, and for a skip r * (3 + r * 2 * 3).
    assert vae.encoder.conv1.weight.item() == plain
    assert [vae.get_submodule(name).weight.item() for name in SKIP_CONVS] == [skip] * 4


@pytest.mark.parametrize(("family", "options", "direction", "strength"), CASES)
def test_every_merged_layer_computes_what_its_live_adapter_does(tiny, family, options, direction, strength):
    base, checkpoint = open_base(str(tiny.base)), read_checkpoint(getattr(tiny, family)(**options))
    unet, vae = merged(base, checkpoint, direction, strength)
    live = Reference(base, checkpoint, direction, torch.zeros(1, 77, 16), strength)
    random = torch.Generator().manual_seed(3)
    kinds = set()
    for ours, theirs, delta in (
        (unet, live.unet, checkpoint.unet),
        (vae, live.vae, checkpoint.vae(direction)),
    ):
        for name in delta.lora:
            layer, adapted = ours.get_submodule(name), theirs.get_submodule(name)
            convolution = isinstance(layer, torch.nn.Conv2d)
            shape = (1, layer.in_channels, 5, 5) if convolution else (2, layer.in_features)
            x = torch.randn(shape, generator=random)
            # The published decoder scales what enters a skip convolution; the merge has that in its weight.
            scaled = x * strength if strength is not None and name in SKIP_CONVS else x
            with torch.no_grad():
                difference = (layer(x) - adapted(scaled)).abs().max().item()
            assert difference <= TOLERANCE, name
            kinds.add((type(layer).__name__, layer.kernel_size if convolution else None))
    assert kinds == {("Linear", None), ("Conv2d", (1, 1)), ("Conv2d", (3, 3))}


@pytest.mark.parametrize("strength", [0.0, 0.4, 1.0])
def test_the_blended_conv_in_computes_what_the_twin_conv_does(tiny, strength):
    base, checkpoint = open_base(str(tiny.base)), read_checkpoint(tiny.pix2pix(stochastic=True))
    unet, _ = merged(base, checkpoint, None, strength)
    live = Reference(base, checkpoint, None, torch.zeros(1, 77, 16), strength)
    x = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(3))
    assert (unet.conv_in(x) - live.unet.conv_in(x)).abs().max().item() <= TOLERANCE


def test_a_merge_at_full_strength_is_the_deterministic_one(tiny):
    base, checkpoint = open_base(str(tiny.base)), read_checkpoint(tiny.pix2pix())
    (unet, vae), (unet_r, vae_r) = merged(base, checkpoint, None, None), merged(base, checkpoint, None, 1.0)
    assert unchanged(unet, snapshot(unet_r))
    assert unchanged(vae, snapshot(vae_r))
    pristine = base.unet()
    assert not torch.equal(unet.mid_block.resnets[0].conv1.weight, pristine.mid_block.resnets[0].conv1.weight)


def test_a_merge_leaves_the_files_it_maps_as_they_were(tiny):
    checkpoint_path = tiny.cyclegan()
    files = [checkpoint_path, *(path for path in tiny.base.rglob("*") if path.is_file())]
    before = {path: sha256_of(path) for path in files}
    checkpoint = read_checkpoint(checkpoint_path)
    for direction in ("a2b", "b2a"):
        merged(open_base(str(tiny.base)), checkpoint, direction, None)
    assert {path: sha256_of(path) for path in files} == before


def test_two_directions_of_one_opened_checkpoint_do_not_touch_each_other(tiny):
    base, checkpoint = open_base(str(tiny.base)), read_checkpoint(tiny.cyclegan())
    _, first = merged(base, checkpoint, "a2b", None)
    _, again = merged(base, checkpoint, "a2b", None)
    assert unchanged(again, snapshot(first))


def test_skip_convolutions_take_their_widths_from_the_vae(golden_base):
    vae = golden_base.vae()
    add_skip_convs(vae)
    widths = [(conv.in_channels, conv.out_channels) for conv in (vae.get_submodule(name) for name in SKIP_CONVS)]
    assert widths == [(32, 32), (16, 32), (8, 32), (8, 16)]  # SD-Turbo's 512-512, 256-512, 128-512, 128-256, shrunk


def misfits():
    up, down = "conv_out.lora_B.default.weight", "conv_out.lora_A.default.weight"
    zeros = torch.zeros
    yield "wide factor", "pix2pix", lambda c: c["state_dict_unet"].update({down: zeros(8, 9, 3, 3)}), "conv_out LoRA"
    yield "other rank", "pix2pix", lambda c: c.update(rank_unet=4), "to_q LoRA [8, 8] x [8, 8] for [8, 8]"
    yield "scalar factor", "pix2pix", lambda c: c["state_dict_unet"].update({up: zeros(())}), "conv_out LoRA [] x"
    yield "flat factor", "pix2pix", lambda c: c["state_dict_unet"].update({up: zeros(4)}), "conv_out LoRA [4] x"
    yield "conv_in", "pix2pix", lambda c: c["state_dict_unet"].update({"conv_in.bias": zeros(9)}), "conv_in.bias [9]"
    yield "target", "pix2pix", lambda c: c["unet_lora_target_modules"].append("linear_1"), "linear_1"
    yield "no target", "pix2pix", lambda c: c["unet_lora_target_modules"].remove("conv_out"), "unexpected 1: conv_out"
    twin = "conv_in.conv_in_curr.weight"
    yield "twin", "stochastic", lambda c: c["state_dict_unet"].update({twin: zeros(8, 4, 1, 1)}), "conv_in_curr.weight"
    skip = "decoder.skip_conv_1.base_layer.weight"
    yield "skip", "pix2pix", lambda c: c["state_dict_vae"].update({skip: zeros(1)}), "decoder.skip_conv_1.weight [1]"
    norm = "vae.encoder.conv_norm_out.weight"
    yield "norm", "cyclegan", lambda c: c["sd_vae_dec"].update({norm: zeros(3)}), "encoder.conv_norm_out.weight [3]"
    yield "lacking", "cyclegan", lambda c: c["sd_vae_dec"].pop(norm), "missing 1: encoder.conv_norm_out.weight"
    stray = "vae.encoder.stray.weight"
    yield "stray", "cyclegan", lambda c: c["sd_vae_dec"].update({stray: zeros(3)}), "unexpected 1: encoder.stray.weight"


@pytest.mark.parametrize(("family", "change", "named"), [pytest.param(*rest, id=name) for name, *rest in misfits()])
def test_a_checkpoint_that_does_not_fit_is_refused_and_changes_nothing(tiny, edited, family, change, named):
    source = {"cyclegan": tiny.cyclegan, "pix2pix": tiny.pix2pix, "stochastic": lambda: tiny.pix2pix(stochastic=True)}
    checkpoint = read_checkpoint(edited(source[family](), change))
    base = open_base(str(tiny.base))
    unet, vae = base.unet(), base.vae()
    add_skip_convs(vae)
    before = snapshot(unet), snapshot(vae)
    delta = checkpoint.vae("a2b" if family == "cyclegan" else None)
    unet_fits = family == "cyclegan" or named.startswith("decoder.")
    with pytest.raises(KeyMismatchError) as caught:
        merge_vae(vae, delta, f"{checkpoint.path}: the VAE's part") if unet_fits else merge_unet(unet, checkpoint)
    assert named in str(caught.value)
    assert str(checkpoint.path) in caught.value.what
    assert "--base" in caught.value.hint
    assert unchanged(unet, before[0])
    assert unchanged(vae, before[1])


def test_a_vae_with_half_of_its_weights_is_not_completed_from_the_base(tiny, edited):
    def halve(content):
        state = content["sd_vae_dec"]
        whole = [name for name in state if name.startswith("vae.") and ".lora_" not in name]
        for name in itertools.islice(whole, 0, None, 2):
            del state[name]

    checkpoint, base = read_checkpoint(edited(tiny.cyclegan(), halve)), open_base(str(tiny.base))
    vae = base.vae()
    add_skip_convs(vae)
    before = snapshot(vae)
    with pytest.raises(KeyMismatchError, match="weights do not match the base model's") as caught:
        merge_vae(vae, checkpoint.vae("a2b"), "the VAE")
    assert f"missing {-(-len(before) // 2)}: " in caught.value.got
    assert unchanged(vae, before)


@pytest.mark.parametrize("name", ["cyclegan", "pix2pix", "pix2pix_stochastic"])
def test_a_checkpoint_of_another_base_model_is_told_the_shapes_and_base(tiny, name):
    base, checkpoint = open_base(str(tiny.base)), read_checkpoint(GOLDEN / f"{name}.pkl")
    unet, vae = base.unet(), base.vae()
    add_skip_convs(vae)
    before = snapshot(unet), snapshot(vae)
    with pytest.raises(KeyMismatchError, match="shapes differ from the base model's") as caught:
        merge_unet(unet, checkpoint)
    assert "LoRA [" in caught.value.got or "conv_in.weight [16, 4, 3, 3] for [8, 4, 3, 3]" in caught.value.got
    assert caught.value.hint.endswith("pass that one with --base")
    # Other widths also ask for shortcuts in other places, and a VAE has few enough layers for that to be seen first.
    with pytest.raises(KeyMismatchError, match="does not cover the layers it targets") as caught:
        merge_vae(vae, checkpoint.vae("a2b" if name == "cyclegan" else None), "the VAE")
    assert unchanged(unet, before[0])
    assert unchanged(vae, before[1])
    with pytest.raises(KeyMismatchError, match="shapes differ from the base model's"):
        Reference(base, checkpoint, "a2b" if name == "cyclegan" else None, torch.zeros(1, 77, 16), None)
