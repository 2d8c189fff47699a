"""Frames that come and go as device pointers, on simulated CUDA: ``cuda.core`` itself is exercised by ``tests/gpu``."""

from __future__ import annotations

import functools
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from edgeturbo.engines.base import TensorSpec
from edgeturbo.engines.cuda import DeviceBuffer, Stream
from edgeturbo.engines.errors import DeviceError, MissingComponentError, UsageError
from edgeturbo.engines.null import NullEngine
from fakes.cuda import OUT_OF_MEMORY, FakeCuda
from fakes.machine import APIS, Feeds, Machine, MachineMaker, check, frames
from fakes.tensorrt import OUTPUTS


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> MachineMaker:
    return functools.partial(Machine, monkeypatch, tmp_path)


@dataclass
class Foreign:
    """Another library's tensor in the simulated GPU's memory."""

    cuda: FakeCuda
    values: np.ndarray
    device: int = 0
    strides: tuple[int, ...] | None = None
    readonly: bool = False
    stream: int | None = None

    def __post_init__(self) -> None:
        self.buffer = DeviceBuffer(self.values.nbytes)
        self.memory[:] = np.frombuffer(self.values.tobytes(), np.uint8)

    @property
    def memory(self) -> np.ndarray:
        return self.cuda.memory(self.buffer.address, self.values.nbytes)

    def now(self) -> np.ndarray:
        return self.memory.copy().view(self.values.dtype).reshape(self.values.shape)

    @property
    def __cuda_array_interface__(self) -> dict[str, Any]:
        return {
            "shape": self.values.shape,
            "typestr": self.values.dtype.str,
            "data": (self.buffer.address, self.readonly),
            "version": 3,
            "strides": self.strides,
            "stream": self.stream,
        }


def on_gpu(here: Machine, feeds: Feeds, **kind: Any) -> dict[str, Foreign]:
    return {name: Foreign(here.cuda, values, **kind) for name, values in feeds.items()}


def empty(here: Machine) -> dict[str, Foreign]:
    return on_gpu(here, {name: np.zeros(shape, kind) for name, (kind, shape) in OUTPUTS.items()})


def read(here: Machine, results: Any) -> Feeds:
    """What lies where the results say."""
    found = {}
    for name, tensor in results.items():
        told = tensor.__cuda_array_interface__
        kind = np.dtype(told["typestr"])
        nbytes = int(np.prod(told["shape"])) * kind.itemsize
        found[name] = here.cuda.memory(told["data"][0], nbytes).copy().view(kind).reshape(told["shape"])
        assert (told["version"], told["strides"]) == (3, None)
    return found


@pytest.mark.parametrize("api", APIS)
def test_runs_between_device_pointers(machine: MachineMaker, api: str) -> None:
    here = machine(api)
    with here.engine() as engine:
        asked, launched = here.behaviour.addresses, here.cuda.calls["cudaGraphLaunch"]
        out = empty(here)
        for feeds in frames(3):
            check(read(here, engine.run_device(on_gpu(here, feeds))), feeds)
            assert engine.run_device(on_gpu(here, feeds), out) is out
            check({name: tensor.now() for name, tensor in out.items()}, feeds)
        assert here.behaviour.addresses == asked, "the graph is for the engine's own buffers"
        assert here.cuda.calls["cudaGraphLaunch"] == launched + (0 if api == "rtx" else 6)


@pytest.mark.parametrize("seed", [None, *range(12)])
def test_between_other_calls_in_whatever_order_the_gpu_works(machine: MachineMaker, seed: int | None) -> None:
    here = machine("11", seed)
    given = frames(6)
    with here.engine() as engine:
        stream = engine.run_stream(given[:4])
        for feeds in given[:4]:
            check(next(stream), feeds)
            check(read(here, engine.run_device(on_gpu(here, given[4]))), given[4])
            check(engine.run(given[5]), given[5])


def test_what_is_written_into_the_engines_inputs_is_not_copied(machine: MachineMaker) -> None:
    here = machine("11")
    (feeds,) = frames(1)
    with here.engine() as engine:
        inputs = engine.device_inputs
        for name, tensor in inputs.items():
            here.cuda.memory(tensor.address, feeds[name].nbytes)[:] = np.frombuffer(feeds[name].tobytes(), np.uint8)
        copies = here.cuda.calls["cudaMemcpyAsync"]
        check(read(here, engine.run_device(inputs)), feeds)
        assert here.cuda.calls["cudaMemcpyAsync"] == copies
    with pytest.raises(UsageError, match="closed"):
        _ = engine.device_inputs


def test_waits_for_the_stream_that_makes_the_frame(machine: MachineMaker) -> None:
    here = machine("11")
    (feeds,) = frames(1)
    producer = Stream()
    late = on_gpu(here, {name: np.zeros_like(values) for name, values in feeds.items()}, stream=producer.handle)

    def write(name: str) -> None:
        late[name].memory[:] = np.frombuffer(feeds[name].tobytes(), np.uint8)

    with here.engine() as engine:
        for name in feeds:
            here.cuda.launch(producer.handle, functools.partial(write, name))
        check(read(here, engine.run_device(late)), feeds)


def test_refuses_what_does_not_fit(machine: MachineMaker) -> None:
    here = machine("11")
    (feeds,) = frames(1)
    frame, noise = feeds["frame"], feeds["noise"]

    def foreign(values: np.ndarray, **kind: Any) -> Foreign:
        return Foreign(here.cuda, values, **kind)

    refused = {
        "lies elsewhere": [frame, foreign(frame, device=1)],
        "is no tensor on a GPU": [[1, 2], None],
        "does not fit": [foreign(noise), foreign(frame[:, 1:]), foreign(frame.astype(np.int8))],
        "is not C-contiguous": [foreign(frame, strides=(72, 3, 12, 1))],
    }
    with here.engine() as engine:
        good = on_gpu(here, feeds)
        for message, tensors in refused.items():
            for tensor in tensors:
                with pytest.raises(UsageError, match=f"'frame' {message}"):
                    engine.run_device({**good, "frame": tensor})
        with pytest.raises(UsageError, match="inputs do not match"):
            engine.run_device({"frame": good["frame"]})
        with pytest.raises(UsageError, match="output buffers do not match"):
            engine.run_device(good, {"image": good["frame"]})
        locked = {name: foreign(tensor.values, readonly=True) for name, tensor in empty(here).items()}
        with pytest.raises(UsageError, match="'image' is read-only"):
            engine.run_device(good, locked)
        check(read(here, engine.run_device(good)), feeds)
        contiguous = {**good, "frame": foreign(frame, strides=(999, 18, 3, 1))}
        check(read(here, engine.run_device(contiguous)), feeds)


def test_a_failure_leaves_the_engine_usable(machine: MachineMaker) -> None:
    here = machine("11")
    (feeds,) = frames(1)
    with here.engine() as engine:
        given, out = on_gpu(here, feeds), empty(here)
        before = here.cuda.calls["cudaMemcpyAsync"]
        engine.run_device(given, out)
        for index in range(here.cuda.calls["cudaMemcpyAsync"] - before):
            here.cuda.fail("cudaMemcpyAsync", OUT_OF_MEMORY, after=index)
            with pytest.raises(DeviceError, match="cudaMemcpyAsync"):
                engine.run_device(given, out)
        engine.run_device(given, out)
        check({name: tensor.now() for name, tensor in out.items()}, feeds)


@pytest.mark.parametrize("seed", range(30))
def test_what_a_failed_frame_left_under_way_does_not_reach_the_next(machine: MachineMaker, seed: int) -> None:
    here = machine("11", seed)
    first, second, third = frames(3)
    with here.engine() as engine:
        given = on_gpu(here, third)
        list(engine.run_stream([first, second]))
        # A frame records three events: the second frame, in the buffers that run_device uses, fails after its uploads.
        here.cuda.fail("cudaEventRecord", OUT_OF_MEMORY, after=3)
        with pytest.raises(DeviceError, match="cudaEventRecord"):
            list(engine.run_stream([first, second]))
        check(read(here, engine.run_device(given)), third)


def test_without_cuda_core(machine: MachineMaker, monkeypatch: pytest.MonkeyPatch) -> None:
    here = machine("11")
    for module in ("cuda.core.utils", "cuda.core.experimental.utils"):
        monkeypatch.setitem(sys.modules, module, None)
    (feeds,) = frames(1)
    with here.engine() as engine:
        check(engine.run(feeds), feeds)
        with pytest.raises(MissingComponentError, match=r"need cuda\.core") as raised:
            engine.run_device(on_gpu(here, feeds))
    assert raised.value.hint == "pip install cuda-core"


def test_cuda_core_tells_what_is_asked_of_it() -> None:
    """The simulated view would not notice a name that only it has. An array on the host needs no driver."""
    utils = pytest.importorskip("cuda.core.utils", reason="needs cuda.core")
    view = utils.StridedMemoryView.from_any_interface(np.zeros((2, 3), np.float32), -1)
    assert (view.device_id, view.is_device_accessible, view.readonly) == (-1, False, False)
    assert (view.shape, view.strides, str(view.dtype)) == ((2, 3), (3, 1), "float32"), "strides count elements"
    assert view.ptr
    with pytest.raises(BufferError):
        utils.StridedMemoryView.from_any_interface([1, 2], -1)


def test_other_backends_say_which_can() -> None:
    spec = TensorSpec("frame", "uint8", (1, 2, 2, 3))
    image = TensorSpec("image", "uint8", (1, 2, 2, 3))
    frame = np.arange(12, dtype=np.uint8).reshape(spec.shape)
    with NullEngine((spec,), (image,)) as engine:
        with pytest.raises(UsageError, match="null engine takes no tensors in a GPU's memory") as raised:
            engine.run_device({"frame": frame})
        assert "tensorrt" in str(raised.value.expected)
        results = [result["image"] for result in engine.run_stream({"frame": frame + step} for step in range(3))]
    for step, image_of in enumerate(results):
        np.testing.assert_array_equal(image_of, frame + step)
    with pytest.raises(UsageError, match="closed"):
        engine.run_device({"frame": frame})
