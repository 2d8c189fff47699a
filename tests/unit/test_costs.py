"""The cost table as a file and as sums: what a bundle's ``costs.json`` may hold, and what is made of it."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from edgeturbo.engines.costs import (
    SCHEMA,
    Costs,
    Growth,
    Work,
    by_kind,
    by_stage,
    most_expensive,
    moved,
    read_costs,
)
from edgeturbo.engines.errors import BundleError

CONV = Work("vae_encoder", "conv", "float16", 3, "vae_encoder/Conv_0", Growth(0, 1000), Growth(0, 20), Growth(0, 40), 7)
SCORES = Work("unet", "attention", "float16", 2, "unet/MatMul_0", Growth(0, 0, 5000), Growth(0, 8), Growth(0, 0, 16), 0)
ADD = Work("unet", "elementwise", "float32", 1, "unet/Add_0", Growth(), Growth(0, 6, 1), Growth(5, 4), 2)
COSTS = Costs(SCHEMA, 64, 32, 2, 23, (Growth(1, 100), Growth(0, 10, 20)), (CONV, SCORES, ADD))


@pytest.fixture
def saved(tmp_path):
    path = tmp_path / "costs.json"
    path.write_text(COSTS.to_json(), encoding="utf-8")
    return path


def test_a_table_comes_back_as_it_was_written(saved):
    assert read_costs(saved) == COSTS


def test_a_figure_grows_by_its_parts():
    assert Growth(3, 5, 7).at() == 15
    assert Growth(3, 5, 7).at(2.0) == 3 + 10 + 28
    assert Growth(1, 2, 3) + Growth(10, 20, 30) == Growth(11, 22, 33)
    assert COSTS.scale(128, 64) == 4.0
    assert [COSTS.peak_live(scale) for scale in (1.0, 10.0)] == [101.0, 2100.0]
    assert moved(ADD, 2.0) == (12 + 4) + (5 + 8) + 2


def test_sums_are_those_of_all_nodes():
    assert COSTS.flops == 3 * 1000 + 2 * 5000
    assert [(line.name, line.nodes, line.flops, line.moved, line.weights) for line in by_stage(COSTS)] == [
        ("vae_encoder", 3, 3000, 3 * 67, 21),
        ("unet", 3, 10000, 2 * 24 + 18, 2),
        ("total", 6, 13000, 201 + 66, 23),
    ]
    assert [line.name for line in by_kind(COSTS)] == ["conv", "attention", "elementwise", "total"]
    assert by_kind(COSTS)[0].intensity == 3000 / 201
    assert [line.name for line in most_expensive(COSTS, 2)] == ["unet/MatMul_0", "vae_encoder/Conv_0"]


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda data: data.update(schema=2), "schema 2"),
        (lambda data: data.update(schema="1"), "schema '1'"),
        (lambda data: data.update(extra=1), "unknown keys"),
        (lambda data: data.pop("width"), "missing keys"),
        (lambda data: data["work"][0].update(nodes="3"), "nodes"),
        (lambda data: data["work"][0].update(nodes=0), "0 nodes"),
        (lambda data: data["work"][0].update(kind="magic"), "magic"),
        (lambda data: data["work"][0]["flops"].update(linear=-1), "below 0"),
        (lambda data: data["live"][0].update(linear=1.5), "1.5"),
        (lambda data: data.update(height=0), "below 1"),
        (lambda data: data.clear(), "missing keys"),
    ],
)
def test_a_damaged_or_foreign_table_is_refused(saved, change, says):
    data = json.loads(saved.read_text())
    change(data)
    saved.write_text(json.dumps(data))
    with pytest.raises(BundleError, match=says) as caught:
        read_costs(saved)
    assert "export the bundle again" in str(caught.value)


@pytest.mark.parametrize("content", [b"", b"[]", b"null", b'{"schema": 1', b"\xff\xfe", b"[" * 100_000])
def test_what_is_no_table_at_all_is_refused(saved, content):
    saved.write_bytes(content)
    with pytest.raises(BundleError, match="cost table"):
        read_costs(saved)


def test_a_missing_table_is_named(tmp_path):
    with pytest.raises(BundleError, match=r"costs\.json"):
        read_costs(tmp_path / "costs.json")


def test_a_table_without_operations_has_no_intensity():
    empty = replace(COSTS, work=(replace(ADD, read=Growth(), written=Growth(), weights=0),), live=())
    assert by_stage(empty)[0].intensity == 0.0
    assert empty.peak_live() == 0.0
