"""Runs plans on this machine's GPU, with TensorRT and TensorRT for RTX, and compares with numpy, bit for bit."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
from edgeturbo.engines.base import TensorSpec
from edgeturbo.engines.cuda import DeviceBuffer, PinnedArray, Stream
from edgeturbo.engines.errors import EdgeTurboError
from gpu.network import MODULES, SHAPE, Frame, Plan, build, expected, frames

pytestmark = pytest.mark.gpu


@pytest.fixture(scope="module", params=[*MODULES])
def plan(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Plan:
    return build(request.param, tmp_path_factory.mktemp(request.param))


@pytest.mark.parametrize("graph", [True, False])
def test_runs_what_numpy_computes(plan: Plan, graph: bool) -> None:
    with plan.engine(cuda_graph=graph) as engine:
        assert engine.inputs == (TensorSpec("frame", "uint8", SHAPE),)
        assert engine.outputs == (TensorSpec("image", "uint8", SHAPE),)
        results = [(frame, engine.run({"frame": frame})["image"]) for frame in frames(4)]
    for frame, image in results:
        np.testing.assert_array_equal(image, expected(frame))


def test_a_graph_is_captured(plan: Plan) -> None:
    with plan.engine() as engine:
        facts = engine.facts
    assert facts.cuda_graph == {"tensorrt": "captured", "tensorrt-rtx": "library"}[plan.backend], facts
    assert facts.plan > 0
    assert facts.activations > 0
    assert facts.buffers == 2 * int(np.prod(SHAPE))


def test_streams_in_order(plan: Plan) -> None:
    given = frames(3) * 20
    with plan.engine() as engine:
        for _ in range(2):
            results = [result["image"] for result in engine.run_stream({"frame": frame} for frame in given)]
            assert len(results) == len(given)
            for frame, image in zip(given, results, strict=True):
                np.testing.assert_array_equal(image, expected(frame))


def test_stream_and_run_may_be_interleaved(plan: Plan) -> None:
    given = frames(6)
    with plan.engine() as engine:
        stream = engine.run_stream({"frame": frame} for frame in given)
        for frame, other in zip(given, reversed(given), strict=True):
            np.testing.assert_array_equal(next(stream)["image"], expected(frame))
            np.testing.assert_array_equal(engine.run({"frame": other})["image"], expected(other))


def test_writes_into_the_callers_array(plan: Plan) -> None:
    (frame,) = frames(1)
    out = {"image": np.zeros(SHAPE, np.uint8)}
    with plan.engine() as engine:
        assert engine.run({"frame": frame}, out)["image"] is out["image"]
    np.testing.assert_array_equal(out["image"], expected(frame))


def test_fifty_cycles_leave_memory_flat(plan: Plan) -> None:
    """What the first cycles take for good (CUDA's context, the library's kernels) is taken by then."""
    (frame,) = frames(1)
    engine = plan.engine()
    used = []
    for _ in range(50):
        with engine:
            np.testing.assert_array_equal(engine.run({"frame": frame})["image"], expected(frame))
            list(engine.run_stream([{"frame": frame}] * 3))
        used.append(used_bytes())
    assert used[-1] <= max(used[5:10]), used


def test_an_engine_that_failed_opens_again(plan: Plan, tmp_path: Path) -> None:
    (frame,) = frames(1)
    broken = Plan(plan.backend, tmp_path / "engine.plan")
    content = plan.path.read_bytes()
    broken.path.write_bytes(content[: len(content) // 2])
    engine = broken.engine()
    for _ in range(2):
        with pytest.raises(EdgeTurboError):
            engine.open()
    broken.path.write_bytes(content)
    with engine:
        np.testing.assert_array_equal(engine.run({"frame": frame})["image"], expected(frame))


def test_a_runtime_cache_is_loaded_the_next_time(plan: Plan, tmp_path: Path) -> None:
    if plan.backend != "tensorrt-rtx":
        pytest.skip("TensorRT has no runtime cache")
    (frame,) = frames(1)
    for state in ("new", "loaded"):
        with plan.engine(runtime_cache=tmp_path / "engine.plan.cache") as engine:
            assert engine.facts.runtime_cache == state
            np.testing.assert_array_equal(engine.run({"frame": frame})["image"], expected(frame))


# Device pointers. cuda.core allocates and copies, so that nothing of ours makes what is tested.


@pytest.fixture
def device_array() -> Iterator[Callable[[Frame], object]]:
    """Makes a tensor on the GPU, by ``cuda.core``, of an array."""
    core = pytest.importorskip("cuda.core", reason="tensors in a GPU's memory need cuda.core")
    view = import_module("cuda.core.utils").StridedMemoryView
    device = core.Device()
    device.set_current()
    held, stream = [], device.create_stream()

    def make(values: Frame) -> object:
        buffer = device.allocate(values.nbytes, stream=stream)
        pinned = PinnedArray(values.shape, values.dtype.name)
        np.copyto(pinned.array, values)
        copy = DeviceBuffer(values.nbytes)
        ours = Stream()
        ours.upload(pinned, copy)
        ours.copy(copy.address, int(buffer.handle), values.nbytes)
        stream.sync()
        ours.synchronize()
        for resource in (ours, copy, pinned):
            resource.free()
        held.append(buffer)
        return view.from_buffer(buffer, shape=values.shape, dtype=values.dtype)

    yield make
    for buffer in held:
        buffer.close()


def to_host(address: int) -> Frame:
    target, device, stream = PinnedArray(SHAPE, "uint8"), DeviceBuffer(int(np.prod(SHAPE))), Stream()
    stream.copy(address, device.address, device.nbytes)
    stream.download(device, target)
    stream.synchronize()
    values: Frame = target.array.astype(np.uint8, copy=True)
    for resource in (stream, device, target):
        resource.free()
    return values


def test_runs_between_device_pointers(plan: Plan, device_array: Callable[[Frame], object]) -> None:
    view = import_module("cuda.core.utils").StridedMemoryView
    with plan.engine() as engine:
        for frame in frames(3):
            (image,) = engine.run_device({"frame": device_array(frame)}).values()
            np.testing.assert_array_equal(to_host(image.address), expected(frame))
            for reader in (view.from_cuda_array_interface, view.from_dlpack):
                seen = reader(image, -1)
                assert (seen.ptr, seen.shape, str(seen.dtype)) == (image.address, SHAPE, "uint8")
            again = engine.run_device({"frame": image}, {"image": device_array(np.zeros(SHAPE, np.uint8))})["image"]
            np.testing.assert_array_equal(to_host(view.from_any_interface(again, -1).ptr), expected(expected(frame)))


def test_what_is_written_into_the_engines_input_is_not_copied(plan: Plan) -> None:
    (frame,) = frames(1)
    with plan.engine() as engine:
        source, stream = PinnedArray(SHAPE, "uint8"), Stream()
        np.copyto(source.array, frame)
        staging = DeviceBuffer(frame.nbytes)
        stream.upload(source, staging)
        stream.copy(staging.address, engine.device_inputs["frame"].address, frame.nbytes)
        stream.synchronize()
        image = engine.run_device(engine.device_inputs)["image"]
        np.testing.assert_array_equal(to_host(image.address), expected(frame))
        for resource in (stream, staging, source):
            resource.free()


def used_bytes() -> int:
    runtime = import_module("cuda.bindings.runtime")
    _, free, total = runtime.cudaMemGetInfo()
    return int(total - free)
