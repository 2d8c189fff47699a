"""Running plans on simulated CUDA (``tests/fakes`` says what that shows): results, ownership, failures."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from edgeturbo.engines.errors import UsageError
from fakes.machine import APIS, Feeds, Machine, MachineMaker, check, frames
from fakes.tensorrt import ACTIVATIONS, INPUTS, OUTPUTS


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> MachineMaker:
    return functools.partial(Machine, monkeypatch, tmp_path)


SEEDS = [None, *range(12)]


@pytest.mark.parametrize("graph", [True, False])
@pytest.mark.parametrize("api", APIS)
def test_runs_with_every_version(machine: MachineMaker, api: str, graph: bool) -> None:
    here = machine(api)
    with here.engine(cuda_graph=graph) as engine:
        assert [(spec.name, (spec.dtype, spec.shape)) for spec in engine.inputs] == [*INPUTS.items()]
        assert [(spec.name, (spec.dtype, spec.shape)) for spec in engine.outputs] == [*OUTPUTS.items()]
        kept = [(feeds, engine.run(feeds)) for feeds in frames(4)]
        for feeds, results in [*kept, *zip(frames(5), engine.run_stream(frames(5)), strict=True)]:
            check(results, feeds)
    assert here.left() == {}


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("api", ["8.6", "11"])
def test_right_in_whatever_order_the_gpu_works(machine: MachineMaker, api: str, seed: int | None) -> None:
    here = machine(api, seed)
    with here.engine() as engine:
        for _ in range(3):
            feeds = frames(7)
            results = list(engine.run_stream(feeds))
            assert len(results) == 7
            for given, taken in zip(feeds, results, strict=True):
                check(taken, given)
    assert here.left() == {}


@pytest.mark.parametrize("seed", SEEDS)
def test_calls_may_be_interleaved(machine: MachineMaker, seed: int | None) -> None:
    first, second, third, fourth, fifth, sixth = frames(6)
    with machine("10.3", seed).engine() as engine:
        one, two = engine.run_stream([first, second, third]), engine.run_stream([fourth, fifth])
        check(next(one), first)
        check(next(two), fourth)
        check(engine.run(sixth), sixth)
        check(next(one), second)
        check(next(two), fifth)
        check(next(one), third)
        assert next(one, None) is next(two, None) is None


def test_a_source_may_reuse_its_arrays(machine: MachineMaker) -> None:
    given = frames(6)
    arrays = {name: np.empty_like(value) for name, value in given[0].items()}

    def camera() -> Iterator[Feeds]:
        for feeds in given:
            for name, value in feeds.items():
                arrays[name][...] = value
            yield arrays

    with machine("11").engine() as engine:
        for feeds, results in zip(given, engine.run_stream(camera()), strict=True):
            check(results, feeds)


def test_a_result_comes_one_frame_late_and_the_next_frame_is_already_enqueued(machine: MachineMaker) -> None:
    here, asked = machine("11"), []

    def source() -> Iterator[Feeds]:
        for index, feeds in enumerate(frames(4)):
            asked.append(index)
            yield feeds

    with here.engine() as engine:
        stream = engine.run_stream(source())
        assert asked == []
        next(stream)
        assert asked == [0, 1]
        here.cuda.order_of_calls.clear()
        next(stream)
        assert asked == [0, 1, 2]
        calls = [call for call in here.cuda.order_of_calls if call in {"cudaGraphLaunch", "cudaEventSynchronize"}]
        assert calls == ["cudaGraphLaunch", "cudaEventSynchronize"], "frame 2 is enqueued before frame 1 is waited for"
        # What the GPU has to do while the host handles frame 1: upload, compute and download frame 2, on three streams.
        assert sum(bool(busy.queue) for busy in here.cuda.live["stream"].values()) == 3


def test_a_stream_given_up_leaves_the_engine_usable(machine: MachineMaker) -> None:
    here = machine("11")
    with here.engine() as engine:
        stream = engine.run_stream(frames(5))
        next(stream)
        stream.close()
        for feeds in frames(3):
            check(engine.run(feeds), feeds)
        next(engine.run_stream(frames(5)))
    assert here.left() == {}


def test_a_source_that_fails_leaves_the_engine_usable(machine: MachineMaker) -> None:
    def source() -> Iterator[Feeds]:
        yield from frames(2)
        raise OSError("the camera was unplugged")

    with machine("11").engine() as engine:
        with pytest.raises(OSError, match="unplugged"):
            list(engine.run_stream(source()))
        check(engine.run(frames(1)[0]), frames(1)[0])


@pytest.mark.parametrize("reopened", [False, True])
def test_a_stream_does_not_outlive_close(machine: MachineMaker, reopened: bool) -> None:
    here = machine("11")
    engine = here.engine()
    engine.open()
    stream = engine.run_stream(frames(4))
    last = engine.run_stream(frames(2))
    next(stream)
    next(last)
    engine.close()
    assert here.left() == {}
    if reopened:
        engine.open()
    for each in (stream, last):
        with pytest.raises(UsageError, match=r"closed"):
            list(each)
    engine.close()
    with pytest.raises(UsageError, match="closed"):
        engine.run_stream(frames(1))


def test_refuses_a_frame_that_does_not_fit_in_a_stream(machine: MachineMaker) -> None:
    (feeds,) = frames(1)
    with machine("11").engine() as engine, pytest.raises(UsageError, match="'frame' does not fit"):
        list(engine.run_stream([feeds, {**feeds, "frame": feeds["frame"][:, 1:]}]))


def test_writes_into_the_callers_arrays(machine: MachineMaker) -> None:
    (feeds,) = frames(1)
    out = {name: np.zeros(shape, kind) for name, (kind, shape) in OUTPUTS.items()}
    with machine("11").engine() as engine:
        assert engine.run(feeds, out)["image"] is out["image"]
    check(out, feeds)


def test_a_graph_is_captured_once_and_replayed(machine: MachineMaker) -> None:
    here = machine("11")
    with here.engine() as engine:
        assert engine.facts.cuda_graph == "captured"
        assert engine.facts.cuda_graph_reason is None
        assert here.cuda.calls["cudaGraphInstantiate"] == 1
        asked, launched, addresses = here.behaviour.runs, here.cuda.calls["cudaGraphLaunch"], here.behaviour.addresses
        assert (asked, addresses) == (2, len(INPUTS) + len(OUTPUTS)), "one warm-up, one capture"
        for feeds in frames(6):
            engine.run(feeds)
        assert here.behaviour.runs == asked, "the library was not asked again"
        assert here.cuda.calls["cudaGraphLaunch"] == launched + 6
        list(engine.run_stream(frames(9)))
        list(engine.run_stream(frames(9)))
    assert here.cuda.calls["cudaGraphInstantiate"] == 2, "one for each set of buffers"
    assert here.behaviour.runs == 2 * asked
    assert here.behaviour.addresses == 2 * addresses, "addresses are set once for each set"


@pytest.mark.parametrize(
    ("api", "code"),
    [("8.6", "library"), ("11", "library"), ("11", "cudaStreamBeginCapture"), ("11", "cudaGraphInstantiate")],
)
def test_a_refused_capture_is_recorded_and_the_plan_runs(
    machine: MachineMaker, api: str, code: str, caplog: pytest.LogCaptureFixture
) -> None:
    here = machine(api)
    if code == "library":
        here.behaviour.refuses_capture = True
    else:
        here.cuda.fail(code, 901)
    with here.engine() as engine:
        facts = engine.facts
        assert facts.cuda_graph == "none"
        assert ("not permitted when stream is capturing" if code == "library" else code) in str(facts.cuda_graph_reason)
        assert "runs without a CUDA graph" in caplog.text
        for feeds, results in zip(frames(5), engine.run_stream(frames(5)), strict=True):
            check(results, feeds)
            check(engine.run(feeds), feeds)
    assert here.cuda.calls["cudaGraphLaunch"] == 0
    assert here.left() == {}


def test_tells_its_facts(machine: MachineMaker) -> None:
    here = machine("11")
    engine = here.engine(cuda_graph=False)
    with pytest.raises(UsageError, match="closed"):
        _ = engine.facts
    nbytes = sum(int(np.prod(shape)) * np.dtype(kind).itemsize for kind, shape in [*INPUTS.values(), *OUTPUTS.values()])
    with engine:
        facts = engine.facts
        assert (facts.version, facts.cuda_graph) == ("11.4.0.106", "none")
        assert facts.cuda_graph_reason == "not asked for (PlanOptions.cuda_graph)"
        assert (facts.plan, facts.weights) == (here.plan.stat().st_size, 1234)
        assert (facts.activations, facts.buffers) == (ACTIVATIONS, nbytes)
        used = sum(block.nbytes for block in here.cuda.live["device"].values())
        assert used == facts.activations + facts.buffers
        list(engine.run_stream(frames(1)))
        assert engine.facts.buffers == 2 * nbytes
        assert engine.facts.activations == ACTIVATIONS, "both sets compute in the same memory"


@pytest.mark.parametrize("api", APIS)
def test_a_plan_without_activations_gets_an_address_all_the_same(machine: MachineMaker, api: str) -> None:
    here = machine(api)
    here.write_plan(activations=0)
    with here.engine() as engine:
        assert engine.facts.activations == 256
        check(engine.run(frames(1)[0]), frames(1)[0])


@pytest.mark.parametrize("api", APIS)
def test_fifty_cycles_leave_nothing(machine: MachineMaker, api: str) -> None:
    here = machine(api)
    engine = here.engine()
    for _ in range(50):
        with engine:
            for feeds, results in zip(frames(3), engine.run_stream(frames(3)), strict=True):
                check(results, feeds)
        assert here.left() == {}
