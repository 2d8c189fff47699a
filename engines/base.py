"""The contract that every backend keeps: named tensors in, named tensors out.

Each backend is one module of this folder with one class that has the same public shape, so knowing one is
knowing all. A backend never falls back to another: what the user asked for runs, or an error says why not.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from .errors import UsageError
from .opening import Openable

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Tensors = Mapping[str, NDArray[np.generic]]


@dataclass(frozen=True)
class TensorSpec:
    """A tensor at an engine's border: its name, numpy dtype name (``"uint8"``) and static shape."""

    name: str
    dtype: str
    shape: tuple[int, ...]

    def __str__(self) -> str:
        return f"{self.name} {self.dtype} {list(self.shape)}"


class Engine(Openable):
    """Executes one network with static shapes. A context manager: ``with OnnxRuntimeEngine(path) as engine: ...``.

    Subclasses implement ``_open``, ``_run`` and ``_close``, and where they can do better ``_run_stream`` and
    ``_run_device``; checks and the open/closed state stand here once.
    An engine can be opened again after it was closed. It is not thread-safe: one thread calls ``run``.
    """

    backend: ClassVar[str]

    def __init__(self) -> None:
        self._is_open = False
        self._inputs: tuple[TensorSpec, ...] = ()
        self._outputs: tuple[TensorSpec, ...] = ()

    @property
    def inputs(self) -> tuple[TensorSpec, ...]:
        """What ``run`` must be fed. Known only while open."""
        return self._inputs

    @property
    def outputs(self) -> tuple[TensorSpec, ...]:
        """What ``run`` returns. Known only while open."""
        return self._outputs

    @abstractmethod
    def _open(self) -> None: ...

    @abstractmethod
    def _run(self, feeds: Tensors, out: Tensors | None) -> Tensors: ...

    @abstractmethod
    def _close(self) -> None: ...

    def open(self) -> None:
        """Load the network and take what it needs of the device. No effect when already open."""
        if not self._is_open:
            self._open()
            self._is_open = True

    def close(self) -> None:
        """Give everything back. No effect when already closed."""
        if self._is_open:
            self._is_open = False
            self._close()

    def run(self, feeds: Tensors, out: Tensors | None = None) -> Tensors:
        """Execute once, synchronously.

        ``feeds`` holds one C-contiguous array for each of ``inputs``, of exactly its dtype and shape. ``out`` may
        hold arrays of ``outputs``' dtypes and shapes to write into; they are returned. Without ``out`` the caller
        owns the returned arrays: no backend reuses their memory in a later call.

        Raises UsageError for a closed engine or a feed that does not fit, DeviceError when the device fails.
        """
        self._require_open()
        _check(feeds, self.inputs, "input")
        if out is not None:
            _check(out, self.outputs, "output buffer")
        return self._run(feeds, out)

    def interrupt(self) -> None:
        """From any thread: make a ``run`` in progress raise DeviceError soon, if the library can be told to stop.

        Where it cannot (a GPU's few milliseconds), the run ends by itself. Later runs are not affected.
        """
        if self._is_open:
            self._interrupt()

    def run_stream(self, feeds: Iterable[Tensors]) -> Iterator[Tensors]:
        """``run`` for each of ``feeds``, in order; the caller owns the arrays of every result.

        An engine that overlaps its work takes the next of ``feeds`` before it gives the last result: a result comes
        at most one frame late, and the last ones when ``feeds`` ends. An array of ``feeds`` may be changed as soon
        as the next is asked for. Where each frame's delay counts more than their number per second, use ``run``.

        Raises what ``run`` raises, and what ``feeds`` raises; a result not given by then is lost.
        """
        self._require_open()
        return self._run_stream(self._checked(feeds))

    def run_device(self, feeds: Mapping[str, object], out: Mapping[str, object] | None = None) -> Mapping[str, Any]:
        """Execute once with tensors that lie in the GPU's memory: nothing crosses to the host.

        ``feeds`` and ``out`` hold objects with ``__dlpack__`` or ``__cuda_array_interface__`` (PyTorch, CuPy, Numba,
        cuda.core …), C-contiguous, of the engine's dtypes and shapes, on its GPU. They stay the caller's.

        Work that produces ``feeds``, or still uses ``out``, need not be finished when its stream is told by the
        object: by ``__dlpack__``, or by ``stream`` in the interface's dictionary. Otherwise it must be. The call
        returns when the results are complete, so whatever reads them needs no synchronisation.

        Returns ``out`` when given; else objects with both interfaces on memory of the engine's, which hold their
        contents until its next call (a ``run_stream`` calls with each frame) and are invalid after ``close``.

        Raises UsageError for what does not fit, and from every backend that has no memory on a GPU.
        """
        self._require_open()
        _check_names(feeds, self.inputs, "input")
        if out is not None:
            _check_names(out, self.outputs, "output buffer")
        return self._run_device(feeds, out)

    def _interrupt(self) -> None:
        """Stop a run in progress."""

    def _run_stream(self, feeds: Iterator[Tensors]) -> Iterator[Tensors]:
        return (self._run(tensors, None) for tensors in feeds)

    def _run_device(self, feeds: Mapping[str, object], out: Mapping[str, object] | None) -> Mapping[str, Any]:  # noqa: ARG002
        raise UsageError(
            f"the {self.backend} engine takes no tensors in a GPU's memory",
            expected="the tensorrt or tensorrt-rtx engine",
            hint="run(feeds) takes numpy arrays",
        )

    def _require_open(self) -> None:
        if not self._is_open:
            raise self._closed()

    def _closed(self) -> UsageError:
        return UsageError(f"the {self.backend} engine is closed", hint="use it in a `with` block, or call open()")

    def _checked(self, feeds: Iterable[Tensors]) -> Iterator[Tensors]:
        for tensors in feeds:
            self._require_open()
            _check(tensors, self.inputs, "input")
            yield tensors


def _check_names(tensors: Mapping[str, object], specs: tuple[TensorSpec, ...], role: str) -> None:
    if set(tensors) != {spec.name for spec in specs}:
        raise UsageError(
            f"the engine's {role}s do not match",
            expected=", ".join(str(spec) for spec in specs),
            got=", ".join(sorted(tensors)) or "nothing",
        )


def _check(tensors: Tensors, specs: tuple[TensorSpec, ...], role: str) -> None:
    _check_names(tensors, specs, role)
    for spec in specs:
        tensor = tensors[spec.name]
        if tensor.dtype.name != spec.dtype or tensor.shape != spec.shape:
            raise UsageError(
                f"{role} '{spec.name}' does not fit",
                expected=f"{spec.dtype} {list(spec.shape)}",
                got=f"{tensor.dtype.name} {list(tensor.shape)}",
            )
        if not tensor.flags.c_contiguous:
            raise UsageError(f"{role} '{spec.name}' is not C-contiguous", hint="numpy.ascontiguousarray(array)")
