"""Plans on a simulated GPU that fails: whatever goes wrong, nothing is kept and the engine can be opened again."""

from __future__ import annotations

import functools
from collections import Counter
from pathlib import Path

import pytest
from edgeturbo.engines._plan_engine import PlanEngine
from edgeturbo.engines.errors import DeviceError, EdgeTurboError
from fakes.cuda import FREES, ILLEGAL_ADDRESS, OUT_OF_MEMORY
from fakes.machine import APIS, Machine, MachineMaker, check, frames
from fakes.tensorrt import ACTIVATIONS


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> MachineMaker:
    return functools.partial(Machine, monkeypatch, tmp_path)


def open_and_stream(engine: PlanEngine) -> None:
    with engine:
        for feeds, results in zip(frames(4), engine.run_stream(frames(4)), strict=True):
            check(results, feeds)
        check(engine.run(frames(1)[0]), frames(1)[0])


def calls_of(here: Machine) -> list[tuple[str, int]]:
    """Every call that opening, running and closing takes: function, and how many calls of it come before."""
    before = Counter(here.cuda.calls)
    open_and_stream(here.engine())
    return [(name, index) for name, count in (here.cuda.calls - before).items() for index in range(count)]


@pytest.mark.parametrize("api", APIS)
def test_whatever_fails_nothing_is_kept_and_it_opens_again(machine: MachineMaker, api: str) -> None:
    here = machine(api)
    engine = here.engine()
    raised = []
    for function, index in calls_of(here):
        if function in FREES:
            continue
        here.cuda.fail(function, OUT_OF_MEMORY, after=index)
        try:
            open_and_stream(engine)
        except DeviceError as error:
            raised.append((function, error))
            assert here.left() == {}, f"{function}, with the error and its traceback still held"
        assert here.left() == {}
        open_and_stream(engine)
    assert all("failed with cudaError2" in error.what for _, error in raised)
    assert {function for function, _ in raised} >= {
        "cudaGetDevice", "cudaMalloc", "cudaHostAlloc", "cudaEventCreateWithFlags", "cudaStreamCreateWithFlags",
        "cudaMemcpyAsync", "cudaEventRecord", "cudaStreamWaitEvent", "cudaEventSynchronize", "cudaStreamSynchronize",
    }  # fmt: skip


@pytest.mark.parametrize("api", APIS)
def test_a_free_that_fails_does_not_stop_the_others(machine: MachineMaker, api: str) -> None:
    here = machine(api)
    engine = here.engine()
    for function, index in calls_of(here):
        if function not in FREES:
            continue
        here.cuda.fail(function, OUT_OF_MEMORY, after=index)
        with pytest.raises(DeviceError, match=f"{function} failed with cudaError2"):
            open_and_stream(engine)
        assert sum(here.left().values()) == 1, f"only what {function} refused"
        for objects in here.cuda.live.values():
            objects.clear()
        open_and_stream(engine)


@pytest.mark.parametrize("way", ["run", "stream"])
def test_a_failed_frame_leaves_the_engine_usable(machine: MachineMaker, way: str) -> None:
    here = machine("11")
    first, second = frames(2)

    def use(engine: PlanEngine) -> object:
        return engine.run(second) if way == "run" else list(engine.run_stream([first, second]))[1]

    with here.engine() as engine:
        check(use(engine), second)
        for function, index in (("cudaMemcpyAsync", 1), ("cudaGraphLaunch", 0), ("cudaEventRecord", 0)):
            here.cuda.fail(function, OUT_OF_MEMORY, after=index)
            with pytest.raises(DeviceError, match=function):
                use(engine)
            check(use(engine), second)
    assert here.left() == {}


@pytest.mark.parametrize("seed", [None, 1, 2, 3])
@pytest.mark.parametrize("graph", [True, False])
def test_a_lost_device_is_named_and_closing_is_quiet(machine: MachineMaker, graph: bool, seed: int | None) -> None:
    here = machine("11", seed)
    engine = here.engine(cuda_graph=graph)

    def lose() -> None:
        with engine:
            engine.run(frames(1)[0])
            here.behaviour.faults = True
            list(engine.run_stream(frames(4)))

    with pytest.raises(DeviceError, match="the GPU is lost to this process") as raised:
        lose()
    assert f"cudaError{ILLEGAL_ADDRESS}" in raised.value.what
    assert "context is gone" in str(raised.value.got)
    assert "start the program again" in str(raised.value.hint)
    assert not here.behaviour.alive, "the library's objects went, though the GPU's memory could not be freed"
    with pytest.raises(DeviceError, match="the GPU is lost to this process"):
        engine.open()
    engine.close()


def test_a_device_lost_while_capturing_is_no_refused_capture(machine: MachineMaker) -> None:
    here = machine("11")
    here.cuda.fail("cudaStreamBeginCapture", ILLEGAL_ADDRESS)
    with pytest.raises(DeviceError, match="the GPU is lost to this process"):
        here.engine().open()
    assert not here.behaviour.alive


def test_a_device_lost_while_idle_is_told_at_close(machine: MachineMaker) -> None:
    here = machine("11")
    engine = here.engine()
    engine.open()
    here.cuda.sticky = 719
    with pytest.raises(DeviceError, match=r"lost to this process.*cudaError719"):
        engine.close()
    assert not here.behaviour.alive
    engine.close()


def test_what_the_library_says_is_in_the_error(machine: MachineMaker) -> None:
    here = machine("10.3")
    with here.engine(cuda_graph=False) as engine:
        here.behaviour.fails = "Error Code 1: Cuda Runtime (invalid argument)"
        with pytest.raises(DeviceError, match=r"10.3.plan did not run") as raised:
            engine.run(frames(1)[0])
        assert raised.value.got == "Error Code 1: Cuda Runtime (invalid argument)"
        check(engine.run(frames(1)[0]), frames(1)[0])


def test_a_lost_device_is_named_though_the_library_only_says_no(machine: MachineMaker) -> None:
    here = machine("10.3")
    engine = here.engine(cuda_graph=False)
    engine.open()
    here.behaviour.fails = "Error Code 1: Cuda Runtime (an illegal memory access was encountered)"
    here.cuda.fail("cudaStreamSynchronize", ILLEGAL_ADDRESS)
    with pytest.raises(DeviceError, match="the GPU is lost to this process"):
        engine.run(frames(1)[0])
    engine.close()


def test_says_how_much_memory_the_activations_lack(machine: MachineMaker) -> None:
    here = machine("11")
    here.cuda.total = ACTIVATIONS - 1
    engine = here.engine()
    with pytest.raises(DeviceError, match=r"out of memory for the activations of 11.plan: cudaMalloc") as raised:
        engine.open()
    assert raised.value.expected == "4,096 bytes"
    assert raised.value.got == "4,095 bytes free of 4,095 on the GPU"
    assert here.left() == {}
    here.cuda.total *= 4
    open_and_stream(engine)


def test_no_room_for_a_second_set_of_buffers(machine: MachineMaker) -> None:
    here = machine("11")
    with here.engine() as engine:
        one = here.left()
        here.cuda.total = sum(block.nbytes for block in here.cuda.live["device"].values()) + 72
        with pytest.raises(DeviceError, match="out of memory for 'noise'"):
            list(engine.run_stream(frames(2)))
        assert here.left() == one, "what there was stays, the half-made set went"
        check(engine.run(frames(1)[0]), frames(1)[0])
    assert here.left() == {}


def test_no_execution_context(machine: MachineMaker) -> None:
    here = machine("8.6")
    here.behaviour.refuses_context = True
    with pytest.raises(DeviceError, match="got no execution context") as raised:
        here.engine().open()
    assert "bytes free of" in str(raised.value.got)
    assert here.left() == {}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"on_host": ["noise"]}, "wants 'noise' in the host's memory"),
        ({"inputs": {"frame": ["uint8", [-1, 4, 6, 3]]}}, "'frame' of no fixed shape"),
        ({"inputs": {"frame": ["bfloat17", [1]]}}, "numpy has no type for 'frame'"),
    ],
)
def test_refuses_tensors_that_no_engine_takes(machine: MachineMaker, content: dict[str, object], message: str) -> None:
    here = machine("11")
    here.write_plan(**content)
    with pytest.raises(EdgeTurboError, match=message) as raised:
        here.engine().open()
    assert raised.value.hint == "turbo-build BUNDLE --engine tensorrt --force"
    assert here.left() == {}
