"""CUDA's error codes in words, and who frees what, on simulated CUDA; without a driver for what needs none."""

from __future__ import annotations

import inspect
import re
import sys

import pytest
from edgeturbo.engines import cuda as cuda_module
from edgeturbo.engines.cuda import (
    DeviceBuffer,
    Event,
    PinnedArray,
    Resources,
    Stream,
    current_device,
    discard,
    free_memory,
    require_bindings,
)
from edgeturbo.engines.errors import DeviceError, EdgeTurboError, MissingComponentError
from fakes.cuda import OUT_OF_MEMORY, FakeCuda


@pytest.fixture
def cuda(monkeypatch: pytest.MonkeyPatch) -> FakeCuda:
    fake = FakeCuda(total=1000)
    monkeypatch.setitem(sys.modules, "cuda.bindings.runtime", fake.module)
    return fake


def test_copies_in_the_order_of_a_stream(cuda: FakeCuda) -> None:
    source, target = PinnedArray((2, 3), "uint8"), PinnedArray((2, 3), "uint8")
    first, second, stream = DeviceBuffer(6), DeviceBuffer(6), Stream()
    source.array[...] = 7
    stream.upload(source, first)
    stream.copy(first.address, second.address, 6)
    stream.download(second, target)
    assert target.array.max() == 0xA5, "nothing has run yet"
    stream.synchronize()
    assert (target.array == 7).all()
    for resource in (stream, first, second, source, target):
        resource.free()
        resource.free()
    assert cuda.counts() == {}


def test_one_stream_waits_for_another(cuda: FakeCuda) -> None:
    one, other, done, seen = Stream(), Stream(), Event(), list[str]()
    cuda.launch(one.handle, lambda: seen.append("first"))
    one.record(done)
    other.wait(done)
    cuda.launch(other.handle, lambda: seen.append("second"))
    other.synchronize()
    assert seen == ["first", "second"]


def test_a_captured_graph_runs_when_launched(cuda: FakeCuda) -> None:
    stream, seen = Stream(), list[int]()
    graph = stream.capture(lambda: [cuda.launch(stream.handle, lambda: seen.append(1)), None][1])
    stream.synchronize()
    assert seen == []
    for _ in range(3):
        stream.launch(graph)
    stream.synchronize()
    assert seen == [1, 1, 1]
    graph.free()
    stream.free()
    assert cuda.counts() == {}


@pytest.mark.parametrize("seized", [KeyError, DeviceError])
def test_a_capture_that_fails_leaves_nothing(cuda: FakeCuda, seized: type[Exception]) -> None:
    stream = Stream()

    def enqueue() -> None:
        raise seized("refused")

    with pytest.raises(seized, match="refused"):
        stream.capture(enqueue)
    cuda.fail("cudaGraphInstantiate", OUT_OF_MEMORY)
    with pytest.raises(DeviceError, match="cudaGraphInstantiate"):
        stream.capture(lambda: None)
    with pytest.raises(DeviceError, match="cudaError900"):
        stream.capture(stream.synchronize)
    stream.synchronize()
    assert cuda.counts() == {"stream": 1}


@pytest.mark.usefixtures("cuda")
def test_says_how_much_memory_is_lacking() -> None:
    held = DeviceBuffer(300)
    with pytest.raises(DeviceError, match="out of memory for 'frame': cudaMalloc failed") as raised:
        DeviceBuffer(800, "'frame'")
    assert (raised.value.expected, raised.value.got) == ("800 bytes", "700 bytes free of 1,000 on the GPU")
    assert free_memory() == "700 bytes free of 1,000"
    held.free()


@pytest.mark.parametrize(
    ("code", "kind", "words"),
    [
        (35, MissingComponentError, "the NVIDIA driver is too old for cudaGetDevice"),
        (36, MissingComponentError, "the NVIDIA driver is too old for cudaGetDevice"),
        (100, MissingComponentError, "CUDA_VISIBLE_DEVICES"),
        (803, MissingComponentError, "restart the machine"),
        (46, DeviceError, "what else uses the GPU"),
        (700, DeviceError, "this process's CUDA context is gone"),
        (719, DeviceError, "this process's CUDA context is gone"),
        (1, DeviceError, "cudaGetDevice failed with cudaError1: what 1 means"),
    ],
)
def test_each_code_is_an_error_in_words(cuda: FakeCuda, code: int, kind: type[EdgeTurboError], words: str) -> None:
    cuda.fail("cudaGetDevice", code)
    with pytest.raises(EdgeTurboError) as raised:
        current_device()
    assert type(raised.value) is kind
    assert words in str(raised.value)
    assert ("context is gone" in str(raised.value)) == (code in {700, 719})


@pytest.mark.parametrize(
    ("driver", "problem"), [(12060, True), (13000, False), (13040, False), (14000, False), (0, False)]
)
def test_a_driver_of_an_older_major_version_is_too_old(cuda: FakeCuda, driver: int, problem: bool) -> None:
    cuda.driver = driver
    if not problem:
        require_bindings()
        return
    with pytest.raises(MissingComponentError, match="too old for cuda-python") as raised:
        require_bindings()
    assert raised.value.got == "a driver for CUDA 12.6 and cuda-python for CUDA 13.4"


class Thing:
    def __init__(self, log: list[str], name: str, error: str = "") -> None:
        self.log, self.name, self.error = log, name, error

    def free(self) -> None:
        self.log.append(self.name)
        if self.error:
            raise DeviceError(self.error)


def test_resources_are_all_freed_and_the_first_error_is_told() -> None:
    log: list[str] = []
    resources = Resources()
    for name, error in (("a", "third"), ("b", ""), ("c", "second"), ("d", "first"), ("e", "")):
        resources.add(Thing(log, name, error))
    with pytest.raises(DeviceError, match="first"):
        resources.free()
    assert log == ["e", "d", "c", "b", "a"]
    resources.free()
    assert len(log) == 5


def test_discarding_tells_no_one_but_the_log(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("DEBUG"):
        discard(Thing([], "a", "the free failed"))
    assert "the free failed" in caplog.text


def test_cuda_python_has_every_name_that_is_used() -> None:
    """The simulation would not notice a name that only it has."""
    runtime = pytest.importorskip("cuda.bindings.runtime", reason="needs cuda-python")
    source = inspect.getsource(cuda_module)
    names = set(re.findall(r'_(?:call|allocate)\("(cuda\w+)"', source)) | set(
        re.findall(r"runtime(?:\(\))?\.(\w+)", source)
    )
    assert len(names) > 25
    assert [name for name in sorted(names) if not hasattr(runtime, name)] == []
    for kind in ("HostToDevice", "DeviceToHost", "DeviceToDevice"):
        assert f'"cudaMemcpy{kind}"' in source
        assert hasattr(runtime.cudaMemcpyKind, f"cudaMemcpy{kind}")
    assert hasattr(runtime.cudaStreamCaptureMode, "cudaStreamCaptureModeThreadLocal")
