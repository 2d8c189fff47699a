# ruff: noqa: N802 # the functions have CUDA's names
"""A simulation of the CUDA runtime functions that ``engines/cuda.py`` calls, on host memory.

Streams are deferred: an operation runs when something waits for it or, with a ``seed``, at any earlier moment that the
order of streams and events allows, drawn at random. Copies read and write when they run, not when they are enqueued.
So a missing wait, a buffer that is used again too early, or a result that is read too early gives a wrong result.

What this shows: the order of our calls, our ownership (every live object is counted, memory is poisoned when freed,
touching it is error 700), and that each error code ends where it should. What it cannot show: that NVIDIA's library
does what its documentation says, that anything is fast, or that work truly overlaps.
"""

from __future__ import annotations

import random
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np

OUT_OF_MEMORY, ILLEGAL_ADDRESS, CAPTURE_UNSUPPORTED, CAPTURE_INVALIDATED = 2, 700, 900, 901
STICKY = {226, 700, 702, 710, 714, 715, 716, 717, 718, 719, 721, 810}
FREES = (
    "cudaFree",
    "cudaFreeHost",
    "cudaEventDestroy",
    "cudaStreamDestroy",
    "cudaGraphDestroy",
    "cudaGraphExecDestroy",
)
Work = Callable[[], None]


class FaultError(Exception):
    """The simulated GPU touched memory that it may not."""


class Handle:
    """Opaque like cuda-python's: ``int`` gives its address."""

    def __init__(self, number: int) -> None:
        self.number = number

    def __int__(self) -> int:
        return self.number


@dataclass(eq=False)
class Event(Handle):
    number: int
    recorded: int = 0
    done: int = 0
    stream: Stream | None = None


@dataclass(eq=False)
class Stream(Handle):
    number: int
    queue: deque[tuple[Work, Event | None, int]] = field(default_factory=deque)
    captured: list[Work] | None = None
    invalid: bool = False


@dataclass(eq=False)
class Graph(Handle):
    number: int
    works: list[Work]


class FakeCuda:
    """``module`` stands in for ``cuda.bindings.runtime``, ``utils`` for ``cuda.core.utils``."""

    def __init__(self, seed: int | None = None, total: int = 1 << 20) -> None:
        self.total = total
        self.driver, self.library = 13000, 13040
        self.live: dict[str, dict[int, Any]] = {k: {} for k in ("device", "pinned", "stream", "event", "graph", "exec")}
        self.calls: Counter[str] = Counter()
        self.order_of_calls: list[str] = []
        self.sticky = 0
        self._graves: list[np.ndarray] = []
        self._failures: dict[tuple[str, int], int] = {}
        self._random = None if seed is None else random.Random(seed)  # noqa: S311 # an order of events, no secret
        self._numbers = iter(range(1 << 40, 1 << 41))
        self.module = self._module()
        self.utils = ModuleType("cuda.core.utils")
        views = SimpleNamespace(from_any_interface=lambda tensor, stream: View(self, tensor, stream))
        self.utils.StridedMemoryView = views  # type: ignore[attr-defined]

    def counts(self) -> dict[str, int]:
        """Everything that is alive; empty when all was given back."""
        return {kind: len(objects) for kind, objects in self.live.items() if objects}

    def fail(self, function: str, code: int, after: int = 0) -> None:
        """Let ``function`` ("" is any) return ``code`` once, after ``after`` more calls."""
        calls = self.calls[function] if function else self.calls.total()
        self._failures[function, calls + after + 1] = code

    def memory(self, address: int, nbytes: int, *kinds: str) -> np.ndarray:
        """The bytes at ``address``, or FaultError unless all of them belong to one live allocation of these kinds."""
        for kind in kinds or ("device",):
            for start, block in self.live[kind].items():
                if start <= address and address + nbytes <= start + block.nbytes:
                    return block[address - start : address - start + nbytes]  # type: ignore[no-any-return]
        raise FaultError(f"{nbytes} bytes at {address:#x} are no live {kinds} memory")

    def launch(self, handle: int, work: Work) -> bool:
        """Enqueue a kernel, as a library does. False on a stream that does not exist."""
        stream = self.live["stream"].get(handle)
        if stream is not None:
            self._enqueue(stream, work)
        return stream is not None

    def capturing(self, handle: int) -> bool:
        return self.live["stream"][handle].captured is not None

    def order(self, producer: int, consumer: int) -> None:
        """Let ``consumer`` wait for what is on ``producer`` now."""
        event = Event(0)
        self._record(event, self.live["stream"][producer])
        self._wait(self.live["stream"][consumer], event)

    # Streams and events

    def _enqueue(self, stream: Stream, work: Work, event: Event | None = None, ticket: int = 0) -> None:
        if stream.captured is not None:
            stream.captured.append(work)
            return
        stream.queue.append((work, event, ticket))
        if self._random is not None:
            for _ in range(self._random.randrange(4)):
                self._step(self._random.choice([*self.live["stream"].values()]))

    def _step(self, stream: Stream) -> bool:
        """Run the first operation of ``stream``, unless it waits."""
        if not stream.queue:
            return False
        work, event, ticket = stream.queue[0]
        if event is not None and event.done < ticket:
            return False
        stream.queue.popleft()
        if not self.sticky:
            try:
                work()
            except FaultError:
                self.sticky = ILLEGAL_ADDRESS
        return True

    def _drain(self, stream: Stream, until: Callable[[], bool] = lambda: False) -> None:
        while stream.queue and not until():
            if not self._step(stream):
                _, event, ticket = stream.queue[0]
                self._reach(event, ticket)

    def _reach(self, event: Event | None, ticket: int) -> None:
        if event is not None and event.stream is not None:
            self._drain(event.stream, lambda: event.done >= ticket)

    def _record(self, event: Event, stream: Stream) -> None:
        event.recorded += 1
        event.stream, ticket = stream, event.recorded

        def reached() -> None:
            event.done = ticket

        self._enqueue(stream, reached)

    def _wait(self, stream: Stream, event: Event) -> None:
        self._enqueue(stream, lambda: None, event, event.recorded)

    def _forbidden_while_capturing(self) -> int:
        capturing = [stream for stream in self.live["stream"].values() if stream.captured is not None]
        for stream in capturing:
            stream.invalid = True
        return CAPTURE_UNSUPPORTED if capturing else 0

    # The functions

    def _module(self) -> ModuleType:
        module = ModuleType("cuda.bindings.runtime")
        for name in (name for name in dir(self) if name.startswith("cuda")):
            setattr(module, name, self._checked(name))
        module.cudaEventDisableTiming, module.cudaStreamNonBlocking = 2, 1  # type: ignore[attr-defined]
        kinds = ("HostToDevice", "DeviceToHost", "DeviceToDevice")
        module.cudaMemcpyKind = SimpleNamespace(**{f"cudaMemcpy{kind}": kind for kind in kinds})  # type: ignore[attr-defined]
        module.cudaStreamCaptureMode = SimpleNamespace(cudaStreamCaptureModeThreadLocal=1)  # type: ignore[attr-defined]
        module.cudaGetErrorName = lambda code: (0, f"cudaError{code}".encode())  # type: ignore[attr-defined]
        module.cudaGetErrorString = lambda code: (0, f"what {code} means".encode())  # type: ignore[attr-defined]
        module.cudaDriverGetVersion = lambda: (0, self.driver)  # type: ignore[attr-defined]
        module.cudaRuntimeGetVersion = lambda: (0, self.library)  # type: ignore[attr-defined]
        return module

    def _checked(self, name: str) -> Callable[..., tuple[Any, ...]]:
        function = getattr(self, name)

        def call(*arguments: Any) -> tuple[Any, ...]:
            self.calls[name] += 1
            self.order_of_calls.append(name)
            code = self._failures.pop((name, self.calls[name]), 0)
            code = self._failures.pop(("", self.calls.total()), 0) or code
            if code in STICKY:
                self.sticky = code
            if code and name == "cudaStreamEndCapture":
                arguments[0].captured = None  # it ends the capture also when it fails
            result = (code,) if code or self.sticky else function(*arguments)
            if self.sticky or result[0]:
                return (
                    (self.sticky or result[0], None, None)
                    if name == "cudaMemGetInfo"
                    else (
                        self.sticky or result[0],
                        None,
                    )
                )
            return result  # type: ignore[no-any-return]

        return call

    def _new(self, kind: str, make: Callable[[int], Any]) -> tuple[int, Any]:
        handle = make(next(self._numbers))
        self.live[kind][int(handle)] = handle
        return 0, handle

    def _allocate(self, kind: str, nbytes: int) -> tuple[int, int | None]:
        used = sum(block.nbytes for block in self.live["device"].values())
        code = self._forbidden_while_capturing()
        if code or (kind == "device" and used + nbytes > self.total):
            return code or OUT_OF_MEMORY, None
        whole = np.full(nbytes + 256, 0xA5, np.uint8)
        start = -whole.ctypes.data % 256
        self.live[kind][whole.ctypes.data + start] = whole[start : start + nbytes]
        self._graves.append(whole)  # a test that goes wrong must not take the process with it
        return 0, whole.ctypes.data + start

    def _release(self, kind: str, handle: Any) -> tuple[int]:
        for stream in self.live["stream"].values():
            self._drain(stream)
        freed = self.live[kind].pop(int(handle), None)
        if isinstance(freed, np.ndarray):
            freed.fill(0xDD)
        return (0 if freed is not None else 400,)

    def cudaGetDevice(self) -> tuple[int, int]:
        return 0, 0

    def cudaMemGetInfo(self) -> tuple[int, int, int]:
        return 0, self.total - sum(block.nbytes for block in self.live["device"].values()), self.total

    def cudaMalloc(self, nbytes: int) -> tuple[int, int | None]:
        return self._allocate("device", nbytes)

    def cudaHostAlloc(self, nbytes: int, _flags: int) -> tuple[int, int | None]:
        return self._allocate("pinned", nbytes)

    def cudaFree(self, address: int) -> tuple[int]:
        return self._release("device", address)

    def cudaFreeHost(self, address: int) -> tuple[int]:
        return self._release("pinned", address)

    def cudaStreamCreateWithFlags(self, _flags: int) -> tuple[int, Stream]:
        return self._new("stream", Stream)

    def cudaStreamDestroy(self, stream: Stream) -> tuple[int]:
        return self._release("stream", stream)

    def cudaEventCreateWithFlags(self, _flags: int) -> tuple[int, Event]:
        return self._new("event", Event)

    def cudaEventDestroy(self, event: Event) -> tuple[int]:
        return self._release("event", event)

    def cudaEventRecord(self, event: Event, stream: Stream) -> tuple[int]:
        self._record(event, stream)
        return (0,)

    def cudaStreamWaitEvent(self, stream: Stream, event: Event, _flags: int) -> tuple[int]:
        self._wait(stream, event)
        return (0,)

    def cudaStreamSynchronize(self, stream: Stream) -> tuple[int]:
        code = self._forbidden_while_capturing()
        if not code:
            self._drain(stream)
        return (code or self.sticky,)

    def cudaEventSynchronize(self, event: Event) -> tuple[int]:
        self._reach(event, event.recorded)
        return (self.sticky,)

    def cudaMemcpyAsync(self, target: int, source: int, nbytes: int, kind: str, stream: Stream) -> tuple[int]:
        places = {"Host": "pinned", "Device": "device"}
        came, went = (places[side] for side in kind.split("To"))

        def copy() -> None:
            self.memory(target, nbytes, went)[:] = self.memory(source, nbytes, came)

        self._enqueue(stream, copy)
        return (0,)

    def cudaStreamBeginCapture(self, stream: Stream, _mode: int) -> tuple[int]:
        stream.captured, stream.invalid = [], False
        return (0,)

    def cudaStreamEndCapture(self, stream: Stream) -> tuple[int, Graph | None]:
        works, stream.captured = stream.captured or [], None
        if stream.invalid:
            return CAPTURE_INVALIDATED, None
        return self._new("graph", lambda number: Graph(number, works))

    def cudaGraphInstantiate(self, graph: Graph, _flags: int) -> tuple[int, Graph]:
        return self._new("exec", lambda number: Graph(number, graph.works))

    def cudaGraphLaunch(self, graph: Graph, stream: Stream) -> tuple[int]:
        for work in graph.works:
            self._enqueue(stream, work)
        return (0,)

    def cudaGraphDestroy(self, graph: Graph) -> tuple[int]:
        return self._release("graph", graph)

    def cudaGraphExecDestroy(self, graph: Graph) -> tuple[int]:
        return self._release("exec", graph)


class View:
    """What ``cuda.core.utils.StridedMemoryView`` tells of a ``__cuda_array_interface__``; strides count elements."""

    def __init__(self, cuda: FakeCuda, tensor: Any, stream: int) -> None:
        if not hasattr(tensor, "__cuda_array_interface__"):
            raise BufferError("the input object does not support any data exchange protocol")
        told = tensor.__cuda_array_interface__
        self.ptr, self.readonly = told["data"]
        self.shape, self.dtype = told["shape"], np.dtype(told["typestr"])
        strides = told.get("strides")
        self.strides = None if strides is None else tuple(step // self.dtype.itemsize for step in strides)
        self.is_device_accessible = any(
            start <= self.ptr < start + b.nbytes for start, b in cuda.live["device"].items()
        )
        self.device_id = getattr(tensor, "device", 0) if self.is_device_accessible else -1
        if told.get("stream") and stream != -1:
            cuda.order(told["stream"], stream)
