"""The search for the fastest mixture, and generators quantised in place from end to end."""

from __future__ import annotations

import itertools
import math

import numpy as np
import onnx_ir as ir
import pytest
import small_generator as small
from edgeturbo.engines.errors import ParityError, UsageError
from edgeturbo.engines.onnxruntime import OnnxRuntimeEngine
from edgeturbo.export.costs import operations
from edgeturbo.export.quantise.apply import QUANTISATIONS, QuantiseOptions, quantise_file
from edgeturbo.export.quantise.mix import Block, decibels, front, search

ERRORS = [3e-5, 1e-4, 2e-6, 5e-4, 8e-5, 1e-6, 2e-4]
SAVED = [4.0, 9.0, 0.7, 6.0, 5.0, -0.2, 8.0]
BLOCKS = tuple(Block(f"b{i}", error, saved) for i, (error, saved) in enumerate(zip(ERRORS, SAVED, strict=True)))


def subsets():
    for count in range(len(BLOCKS) + 1):
        yield from itertools.combinations(BLOCKS, count)


def best_of_all(min_psnr: float) -> float:
    return min(
        100 - sum(b.saved_ms for b in chosen)
        for chosen in subsets()
        if decibels(sum(b.error for b in chosen)) >= min_psnr
    )


@pytest.mark.parametrize("min_psnr", [30, 35, 38, 40, 42, 45, 50])
def test_the_front_holds_the_best_of_all_sets_of_blocks_for_every_bound(min_psnr):
    fit = [mixture.ms for mixture in front(100, BLOCKS) if mixture.predicted_db >= min_psnr]
    assert min(fit) == pytest.approx(best_of_all(min_psnr), abs=0.3)


def test_the_front_falls_in_both_and_begins_with_nothing():
    points = front(100, BLOCKS)
    assert (points[0].ms, points[0].predicted_db, points[0].blocks) == (100, math.inf, frozenset())
    for before, after in itertools.pairwise(points):
        assert after.ms < before.ms
        assert after.predicted_db < before.predicted_db
    assert not any("b5" in point.blocks for point in points)  # it saves nothing


def measured(factor: float = 1.0, calls: list[frozenset[str]] | None = None):
    """Errors that add up to ``factor`` times their sum, wherever more than one block is quantised."""
    single = {block.name: block.error for block in BLOCKS}

    def measure(names: frozenset[str]) -> float:
        if calls is not None:
            calls.append(names)
        return sum(single[name] for name in names) * (factor if len(names) > 1 else 1)

    return measure


@pytest.mark.parametrize("factor", [1.0, 1.6, 0.6])
def test_what_is_taken_keeps_the_bound_when_measured_and_is_nearly_the_fastest_that_does(factor):
    calls: list[frozenset[str]] = []
    saved = {block.name: block.saved_ms for block in BLOCKS}
    found = search(100, saved, measured(factor, calls), 37)
    assert found.chosen.measured_db is not None
    assert found.chosen.measured_db >= 37
    assert found.chosen.measured_db == pytest.approx(decibels(measured(factor)(found.chosen.blocks)))
    reachable = best_of_all(37 + 10 * math.log10(factor))
    assert found.chosen.ms <= reachable + 1.0
    assert found.measurements == len(calls) <= len(BLOCKS) + 6
    assert found.chosen in found.front
    assert [block.psnr_db for block in found.blocks] == [pytest.approx(decibels(error)) for error in ERRORS]


def test_a_bound_out_of_reach_is_a_parity_error_that_says_what_is_in_reach():
    with pytest.raises(ParityError, match="no mixture") as caught:
        search(100, {block.name: block.saved_ms for block in BLOCKS}, measured(), 80)
    assert "57.0 dB with b2 alone" in str(caught.value)


# In place


def predict(model: ir.Model) -> float:
    """Half the time for a product on eight bits."""
    return sum(operations(node) / (2e3 if _quantised(node) else 1e3) for node in model.graph)


def _quantised(node: ir.Node) -> bool:
    producer = node.inputs[0].producer() if node.inputs and node.inputs[0] is not None else None
    return producer is not None and producer.op_type == "DequantizeLinear"


def images(path) -> list[np.ndarray]:
    with OnnxRuntimeEngine(path) as engine:
        return [engine.run(feed)["image"].astype(float) for feed in small.frames()]


def worst(a: list[np.ndarray], b: list[np.ndarray]) -> float:
    return min(10 * math.log10(255**2 / np.mean((x - y) ** 2)) for x, y in zip(a, b, strict=True))


@pytest.mark.parametrize("precision", QUANTISATIONS)
def test_a_generator_is_quantised_in_place(tmp_path, precision):
    path = small.saved(tmp_path, half=True)
    exact, before = images(path), path.with_name("generator.onnx.data").stat().st_size
    options = QuantiseOptions(precision, min_psnr=38)
    done = quantise_file(path, options, small.frames, predict, small.frames)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["generator.onnx", "generator.onnx.data"]
    assert path.with_name("generator.onnx.data").stat().st_size < before
    assert done.frames == (0 if precision == "int8-weights" else 3)
    quantisers = sum(node.op_type == "QuantizeLinear" for node in ir.load(path).graph)
    assert (quantisers == 0) == (precision == "int8-weights")
    reached = worst(exact, images(path))
    if done.search is not None:
        assert 0 < done.products <= len(small.PRODUCTS)
        assert done.search.chosen.measured_db >= 38
        assert reached > 37  # truncation to uint8 comes on top
        assert done.search.chosen.blocks == set(done.blocks)
    else:
        assert done.products == len(small.PRODUCTS)
        assert done.share > 0.8
        assert reached > 25


def test_a_generator_stays_as_it_was_when_no_mixture_keeps_the_bound(tmp_path):
    path = small.saved(tmp_path)
    before = {file.name: file.read_bytes() for file in tmp_path.iterdir()}
    with pytest.raises(ParityError):
        quantise_file(path, QuantiseOptions("mixed:int8", min_psnr=150), small.frames, predict, small.frames)
    assert {file.name: file.read_bytes() for file in tmp_path.iterdir()} == before


def test_mixed_precision_needs_a_prediction(tmp_path):
    with pytest.raises(UsageError, match="needs a device"):
        quantise_file(small.saved(tmp_path), QuantiseOptions("mixed:int8"), small.frames)
