"""``turbo-inspect`` of a bundle's costs and of what is estimated from them, as a user types it."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from edgeturbo.engines.bundle import MANIFEST, entry_of
from edgeturbo.engines.costs import COSTS, SCHEMA, Costs, Growth, Work
from terminal import Turbo, terminal

CONV = Work(
    "unet", "conv", "float16", 3, "unet/Conv_0", Growth(0, 2 * 10**9), Growth(0, 10**6), Growth(0, 10**6), 10**6
)
ADD = Work("vae_decoder", "elementwise", "float16", 1, "vae_decoder/Add_0", Growth(), Growth(0, 6), Growth(0, 4), 0)


@pytest.fixture
def turbo(monkeypatch, capfd) -> Turbo:
    return terminal(monkeypatch, capfd)


@pytest.fixture
def priced(make_bundle):
    """A bundle with a cost table."""
    bundle = make_bundle()
    (bundle.root / COSTS).write_text(Costs(SCHEMA, 64, 48, 1, 10**6, (Growth(0, 100),), (CONV, ADD)).to_json())
    files = {**bundle.manifest.files, COSTS: entry_of(bundle.root / COSTS)}
    (bundle.root / MANIFEST).write_text(replace(bundle.manifest, files=files).to_json())
    return bundle


def test_a_bundles_costs_are_told_by_stage_by_kind_and_by_operator(turbo, priced):
    told = json.loads(turbo("turbo-inspect", priced.root, "--json").out)
    six = "6.0 GFLOP, 9.0 MB moved, 3.0 MB of weights"
    assert told["costs a run"][0] == f"unet: {six}"
    assert told["costs by kind"][0] == f"conv: {six}"
    assert told["most expensive operators"][0] == f"3 x unet/Conv_0: {six}"
    assert [line.partition(":")[0] for line in told["costs by kind"]] == ["conv", "elementwise", "total"]


def test_a_bundle_is_estimated_for_each_device_and_stage(turbo, priced):
    ended = turbo("turbo-inspect", priced.root, "--predict", "agx-orin,rtx-4090", "--json")
    estimates = json.loads(ended.out)["estimates"]
    assert [estimate["device"] for estimate in estimates.values()] == ["agx-orin", "rtx-4090"]
    orin, rtx = estimates.values()
    assert float(orin["ms"]) > float(rtx["ms"]) > 0
    assert "never measured" in orin["note"]
    assert [line.partition(":")[0] for line in orin["stages"]] == ["unet", "vae_decoder"]
    text = turbo("turbo-inspect", priced.root, "--predict", "agx-orin").out
    assert f"- {orin['stages'][0]}" in text
    assert "never measured" in text


@pytest.mark.parametrize(
    ("words", "message"),
    [(["--predict", "abacus"], "abacus"), (["--predict", "agx-orin", "--ranges"], "--ranges and --predict")],
)
def test_what_cannot_be_estimated_is_refused(turbo, priced, words, message):
    ended = turbo("turbo-inspect", priced.root, *words)
    assert ended.code == 2
    assert message in ended.err


def test_a_bundle_without_costs_is_refused_with_what_makes_them(turbo, make_bundle):
    ended = turbo("turbo-inspect", make_bundle().root, "--predict", "agx-orin")
    assert ended.code == 2
    assert f"has no {COSTS}" in ended.err
    assert "export the bundle again" in ended.err
