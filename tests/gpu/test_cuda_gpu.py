"""The few CUDA calls, on this machine's GPU."""

from __future__ import annotations

import numpy as np
import pytest
from edgeturbo.engines.cuda import DeviceBuffer, Event, PinnedArray, Stream, driver_problem
from edgeturbo.engines.errors import DeviceError

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(driver_problem() is not None, reason=str(driver_problem())),
]


def test_copies_to_the_gpu_and_back() -> None:
    source, target = PinnedArray((5, 7), "float32"), PinnedArray((5, 7), "float32")
    first, second = DeviceBuffer(source.array.nbytes), DeviceBuffer(source.array.nbytes)
    stream, other, done = Stream(), Stream(), Event()
    np.copyto(source.array, np.arange(35, dtype=np.float32).reshape(5, 7))
    stream.upload(source, first)
    stream.copy(first.address, second.address, first.nbytes)
    stream.record(done)
    other.wait(done)
    other.download(second, target)
    other.record(done)
    done.synchronize()
    np.testing.assert_array_equal(target.array, np.arange(35, dtype=np.float32).reshape(5, 7))
    for resource in (done, stream, other, first, second, source, target):
        resource.free()
        resource.free()


def test_a_captured_copy_runs_when_launched() -> None:
    source, target, device, stream = PinnedArray((4,), "uint8"), PinnedArray((4,), "uint8"), DeviceBuffer(4), Stream()
    target.array[...] = 0
    source.array[...] = 7

    def both() -> None:
        stream.upload(source, device)
        stream.download(device, target)

    graph = stream.capture(both)
    stream.synchronize()
    assert not target.array.any()
    stream.launch(graph)
    stream.synchronize()
    assert (target.array == 7).all()
    with pytest.raises(DeviceError, match="cudaErrorStreamCapture"):
        stream.capture(stream.synchronize)
    stream.launch(graph)
    stream.synchronize()
    for resource in (graph, stream, device, source, target):
        resource.free()


def test_says_how_much_memory_is_lacking() -> None:
    with pytest.raises(DeviceError, match="out of memory") as raised:
        DeviceBuffer(1 << 50)
    assert "1,125,899,906,842,624 bytes" in str(raised.value.expected)
    assert "bytes free of" in str(raised.value.got)
