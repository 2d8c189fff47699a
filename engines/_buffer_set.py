"""What one frame under way needs of a plan: an execution context, buffers, a CUDA graph. ``_plan_runner`` uses it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from .base import TensorSpec
from .cuda import DeviceBuffer, Event, Graph, PinnedArray, Resources, Stream, discard, free_memory
from .errors import BundleError, DeviceError, UsageError

if TYPE_CHECKING:
    from .base import Tensors
    from .vendor import Vendor

# An execution context without activations still wants an address; memory of cudaMalloc's is aligned to 256 bytes.
_LEAST_ACTIVATIONS = 256


@dataclass
class LoadedPlan:
    """A deserialised plan and how its library runs it. ``free`` lets go of the library's objects.

    ``hint`` is what to type to build the plan anew. ``new_context`` makes an execution context without activation
    memory, or returns None when it fails. ``no_capture`` says why no CUDA graph is to be captured; None to capture;
    ``library_graph`` that the library was asked to capture by itself. ``runtime_cache`` is whether one was there.
    """

    vendor: Vendor
    path: Path
    hint: str
    runtime: Any
    engine: Any
    new_context: Callable[[], Any] | None
    no_capture: str | None = None
    library_graph: bool = False
    runtime_cache: Literal["loaded", "new"] | None = None
    plan_bytes: int = field(init=False)

    def __post_init__(self) -> None:
        self.plan_bytes = self.path.stat().st_size

    @property
    def activation_bytes(self) -> int:
        """GPU memory that a context computes in. TensorRT 8.6 to 10 have the one name, 10.3 and later the other."""
        name = "device_memory_size_v2" if hasattr(self.engine, "device_memory_size_v2") else "device_memory_size"
        return max(int(getattr(self.engine, name)), _LEAST_ACTIVATIONS)

    @property
    def weights_bytes(self) -> int | None:
        """What the library says that the plan's weights take; None where it does not say (before TensorRT 10.13)."""
        stat = getattr(getattr(self.vendor.load(), "EngineStat", None), "TOTAL_WEIGHTS_SIZE", None)
        return None if stat is None else int(self.engine.get_engine_stat(stat))

    def border(self) -> Iterator[tuple[TensorSpec, bool]]:
        """The plan's tensors, and whether each is an input. Raises BundleError for one that no engine here takes."""
        trt = self.vendor.load()
        for index in range(self.engine.num_io_tensors):
            name = self.engine.get_tensor_name(index)
            yield self._spec(trt, name), self.engine.get_tensor_mode(name) == trt.TensorIOMode.INPUT

    def _spec(self, trt: Any, name: str) -> TensorSpec:
        import numpy as np

        shape = tuple(int(size) for size in self.engine.get_tensor_shape(name))
        if min(shape, default=1) < 1:
            raise BundleError(
                f"{self.path} has a tensor '{name}' of no fixed shape", got=str(list(shape)), hint=self.hint
            )
        if self.engine.get_tensor_location(name) != trt.TensorLocation.DEVICE:
            raise BundleError(f"{self.path} wants '{name}' in the host's memory", hint=self.hint)
        try:
            return TensorSpec(name, np.dtype(trt.nptype(self.engine.get_tensor_dtype(name))).name, shape)
        except TypeError as error:
            raise BundleError(f"{self.path}: numpy has no type for '{name}': {error}", hint=self.hint) from error

    def free(self) -> None:
        self.new_context = None
        self.engine = None
        self.runtime = None


@dataclass(frozen=True)
class Port:
    """A tensor at the plan's border with its buffers on both sides."""

    spec: TensorSpec
    host: PinnedArray
    device: DeviceBuffer
    is_input: bool


class BufferSet:
    """A context with ``activations`` to compute in, and its own buffers, whose addresses it is told once.

    Owns all but ``activations``. When it cannot have everything, nothing is kept, and DeviceError says what lacked.
    """

    def __init__(self, plan: LoadedPlan, activations: DeviceBuffer) -> None:
        self.ticket: Ticket | None = None
        self.graph: Graph | None = None
        self.ports: tuple[Port, ...] = ()
        self._plan = plan
        self._context = _Context()
        self._resources = Resources()
        try:
            self.uploaded, self.computed, self.downloaded = (self._resources.add(Event()) for _ in range(3))
            self.ports = tuple(self._port(spec, is_input) for spec, is_input in plan.border())
            self._resources.add(self._context)
            self._make_context(activations)
        except BaseException:
            discard(self)
            raise

    @property
    def inputs(self) -> tuple[Port, ...]:
        return tuple(port for port in self.ports if port.is_input)

    @property
    def outputs(self) -> tuple[Port, ...]:
        return tuple(port for port in self.ports if not port.is_input)

    def _port(self, spec: TensorSpec, is_input: bool) -> Port:
        host = self._resources.add(PinnedArray(spec.shape, spec.dtype))
        device = self._resources.add(DeviceBuffer(host.array.nbytes, f"'{spec.name}'"))
        return Port(spec, host, device, is_input)

    def _make_context(self, activations: DeviceBuffer) -> None:
        held = self._context
        if self._plan.new_context is not None:
            held.context = self._plan.new_context()
        if held.context is None:
            raise DeviceError(
                f"{self._plan.path.name} got no execution context",
                got=f"{self._plan.vendor.last_errors()}; {free_memory()} on the GPU",
                hint="close other programs that use the GPU",
            )
        if hasattr(held.context, "set_device_memory"):
            held.context.set_device_memory(activations.address, activations.nbytes)
        else:  # TensorRT 8.6
            held.context.device_memory = activations.address
        for port in self.ports:
            if not held.context.set_tensor_address(port.spec.name, port.device.address):
                raise DeviceError(
                    f"{self._plan.path.name} refuses a buffer for '{port.spec.name}'",
                    got=self._plan.vendor.last_errors(),
                    hint=self._plan.hint,
                )

    def capture(self, stream: Stream) -> None:
        """Capture the plan's work as a CUDA graph. Raises DeviceError when that is refused."""
        self.graph = self._resources.add(stream.capture(lambda: self._ask(stream)))

    def enqueue(self, stream: Stream) -> None:
        """Put the plan's work on ``stream``: the graph where there is one."""
        if self.graph is not None:
            stream.launch(self.graph)
            return
        try:
            self._ask(stream)
        except DeviceError:
            stream.synchronize()  # a lost device says so here, in CUDA's own words
            raise

    def _ask(self, stream: Stream) -> None:
        if not self._context.context.execute_async_v3(stream.handle):
            raise DeviceError(
                f"{self._plan.path.name} did not run", got=self._plan.vendor.last_errors(), hint="nvidia-smi"
            )

    def settle(self) -> None:
        """Let the frame under way keep its results, so that the buffers are free for another."""
        if self.ticket is not None:
            self.ticket.results()

    def free(self) -> None:
        """Nothing may be under way. The graph goes first, then the context, then the buffers they point to."""
        if self.ticket is not None:
            self.ticket.lose()
        self.graph = None
        self.ports = ()
        self._resources.free()


class _Context:
    """Holds the library's execution context, which has no other way of being freed than being let go of."""

    def __init__(self) -> None:
        self.context: Any = None

    def free(self) -> None:
        self.context = None


class Ticket:
    """A frame under way. Its results are copied out of the set's buffers once: when asked, or when those are needed."""

    def __init__(self, buffers: BufferSet) -> None:
        self._buffers: BufferSet | None = buffers
        self._results: Tensors | None = None
        buffers.ticket = self

    def results(self, out: Tensors | None = None) -> Tensors:
        """Wait for the frame. The arrays are the caller's: copies, or ``out``. Raises UsageError after ``close``."""
        if self._results is not None:
            return self._results
        if self._buffers is None:
            raise UsageError("the engine was closed before this frame's result was taken")
        self._buffers.downloaded.synchronize()
        self._results = _copied(self._buffers.outputs, out)
        self.lose()
        return self._results

    def lose(self) -> None:
        """Let go of the buffers."""
        if self._buffers is not None:
            self._buffers.ticket = None
            self._buffers = None


def _copied(ports: tuple[Port, ...], out: Tensors | None) -> Tensors:
    import numpy as np

    if out is None:
        return {port.spec.name: port.host.array.copy() for port in ports}
    for port in ports:
        np.copyto(out[port.spec.name], port.host.array)
    return out
