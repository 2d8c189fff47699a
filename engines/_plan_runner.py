"""Runs a deserialised plan of TensorRT or TensorRT for RTX: contexts, buffers, streams, CUDA graphs, overlap.

A *buffer set* is everything that one frame under way needs for itself: an execution context, a pinned and a device
buffer for each tensor at the plan's border, a CUDA graph. Its addresses are set once. There is one set for ``run``;
``run_stream`` makes a second, and while one is computing, the other's frame is uploaded or downloaded::

    upload stream     N+1 ─┐ event          the host waits for N-1 only after N is enqueued,
    compute stream          └─ N ─┐ event    so the GPU has the next frame before it is asked for
    download stream                └─ N-1

Every context computes in the same activation memory, which is safe because all computing is on one stream. A set has
its own context because a graph holds the addresses it was captured with: for others it would have to be captured again,
which is what NVIDIA's demo/Diffusion does.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple

from ._buffer_set import BufferSet, LoadedPlan, Port, Ticket
from ._device_tensor import DeviceTensor, address_of
from .base import TensorSpec
from .cuda import DeviceBuffer, Resources, Stream, current_device, discard
from .errors import DeviceError, EdgeTurboError

if TYPE_CHECKING:
    from .base import Tensors

_log = logging.getLogger(__name__)


class _Streams(NamedTuple):
    upload: Stream
    compute: Stream
    download: Stream


class PlanRunner:
    """Owns ``plan`` and everything it needs on the GPU, from construction to ``free``.

    Construction warms up and captures, so that the first frame takes as long as the others. When it fails, nothing
    is kept. Raises DeviceError, with figures when memory is short. The GPU is the constructing thread's current one.
    """

    def __init__(self, plan: LoadedPlan) -> None:
        self.no_graph_reason = plan.no_capture
        self._plan = plan
        self._resources = Resources()
        self._resources.add(plan)
        self._sets: list[BufferSet] = []
        self._next = 0
        self._failed = False
        try:
            self._device = current_device()
            self._streams = _Streams(*(self._resources.add(Stream()) for _ in range(3)))
            self._activations = self._resources.add(
                DeviceBuffer(plan.activation_bytes, f"the activations of {plan.path.name}")
            )
            self._add_set()
        except BaseException:
            discard(self._resources)
            raise

    @property
    def inputs(self) -> tuple[TensorSpec, ...]:
        return tuple(port.spec for port in self._sets[0].inputs)

    @property
    def outputs(self) -> tuple[TensorSpec, ...]:
        return tuple(port.spec for port in self._sets[0].outputs)

    @property
    def activation_bytes(self) -> int:
        return self._activations.nbytes

    @property
    def buffer_bytes(self) -> int:
        """Device memory of the border's tensors; as much again is pinned on the host."""
        return sum(port.device.nbytes for buffers in self._sets for port in buffers.ports)

    @property
    def device_inputs(self) -> Mapping[str, DeviceTensor]:
        """The buffers that ``run_device`` computes from: what is written there needs no copy."""
        return {port.spec.name: self._tensor(port) for port in self._sets[0].inputs}

    def run(self, feeds: Tensors, out: Tensors | None) -> Tensors:
        """One frame, all of it on one stream."""
        compute = self._streams.compute
        with self._calm():
            return self._enqueue(self._sets[0], feeds, _Streams(compute, compute, compute)).results(out)

    def submit(self, feeds: Tensors) -> Ticket:
        """Enqueue a frame beside the one under way, and do not wait. ``feeds`` may be changed afterwards."""
        with self._calm():
            if len(self._sets) == 1:
                self._add_set()
            self._next = 1 - self._next
            return self._enqueue(self._sets[self._next], feeds, self._streams)

    def take(self, ticket: Ticket) -> Tensors:
        """A submitted frame's results, once they are there; the caller owns the arrays."""
        with self._calm():
            return ticket.results()

    def run_device(self, feeds: Mapping[str, object], out: Mapping[str, object] | None) -> Mapping[str, Any]:
        """One frame between tensors on the GPU.

        They are copied to and from the set's own buffers, on the GPU: microseconds at the size of a uint8 frame. So
        the captured graph serves any address, where setting addresses would cost the graph. A feed that already is
        one of ``device_inputs``, and a result that is left where it is, are not copied.
        """
        buffers, stream = self._sets[0], self._streams.compute
        with self._calm():
            buffers.settle()
            sources = [(port, self._address(port, feeds, written=False)) for port in buffers.inputs]
            targets = (
                [] if out is None else [(port, self._address(port, out, written=True)) for port in buffers.outputs]
            )
            for port, address in sources:
                if address != port.device.address:
                    stream.copy(address, port.device.address, port.device.nbytes)
            buffers.enqueue(stream)
            for port, address in targets:
                stream.copy(port.device.address, address, port.device.nbytes)
            stream.synchronize()
        return {port.spec.name: self._tensor(port) for port in buffers.outputs} if out is None else out

    def free(self) -> None:
        """Give everything back. After a failure what cannot be freed is logged; else it raises DeviceError."""
        self._quiesce()
        for buffers in self._sets:
            self._resources.add(buffers)
        self._sets = []
        if self._failed:
            discard(self._resources)
        else:
            self._resources.free()

    def _add_set(self) -> None:
        buffers = BufferSet(self._plan, self._activations)
        try:
            self._warm_up(buffers)
            if self.no_graph_reason is None:
                self._capture(buffers)
        except BaseException:
            self._quiesce()
            discard(buffers)
            raise
        self._sets.append(buffers)

    def _warm_up(self, buffers: BufferSet) -> None:
        """Run once on zeros: the library does lazily, on the first run, what a capture could not hold."""
        compute = self._streams.compute
        for port in buffers.inputs:
            port.host.array.fill(0)
            compute.upload(port.host, port.device)
        buffers.enqueue(compute)
        compute.synchronize()

    def _capture(self, buffers: BufferSet) -> None:
        try:
            buffers.capture(self._streams.compute)
        except EdgeTurboError as error:
            self.no_graph_reason = f"{error.what}: {error.got}" if error.got else error.what
            _log.warning("%s runs without a CUDA graph: %s", self._plan.path.name, self.no_graph_reason)
        self._warm_up(buffers)  # the graph, or after a refusal the context: raises if more than the capture failed

    def _enqueue(self, buffers: BufferSet, feeds: Tensors, streams: _Streams) -> Ticket:
        import numpy as np

        upload, compute, download = streams
        buffers.settle()
        for port in buffers.inputs:
            np.copyto(port.host.array, feeds[port.spec.name])
            upload.upload(port.host, port.device)
        if upload is not compute:
            upload.record(buffers.uploaded)
            compute.wait(buffers.uploaded)
        buffers.enqueue(compute)
        if download is not compute:
            compute.record(buffers.computed)
            download.wait(buffers.computed)
        for port in buffers.outputs:
            download.download(port.device, port.host)
        download.record(buffers.downloaded)
        return Ticket(buffers)

    def _address(self, port: Port, tensors: Mapping[str, object], *, written: bool) -> int:
        tensor, stream = tensors[port.spec.name], self._streams.compute
        return address_of(tensor, port.spec, device=self._device, stream=stream.handle, written=written)

    def _tensor(self, port: Port) -> DeviceTensor:
        return DeviceTensor(port.spec, port.device.address, self._device)

    @contextmanager
    def _calm(self) -> Iterator[None]:
        """After a failure nothing is left under way, so that the buffers can be used again, or freed."""
        try:
            yield
        except BaseException as error:
            self._failed = self._failed or isinstance(error, DeviceError)
            self._quiesce()
            raise

    def _quiesce(self) -> None:
        for stream in self._streams:
            try:
                stream.synchronize()
            except DeviceError as error:
                _log.debug("while waiting for the GPU, after a failure or before closing: %s", error.what)
