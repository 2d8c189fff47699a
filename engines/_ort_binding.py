"""ONNX Runtime's tensors at fixed addresses ("IO binding"), on the CPU or in a GPU's memory."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from .base import Tensors, TensorSpec


class Binding:
    """One session's inputs and outputs, allocated once and bound for good, as a captured CUDA graph wants it.

    ``run`` copies in, executes and copies out; what it returns is the caller's. On a GPU the tensors come from an arena
    that ONNX Runtime keeps for the process: a later binding is given the same memory again.
    """

    def __init__(self, runtime: Any, session: Any, specs: tuple[tuple[TensorSpec, ...], ...], device: str) -> None:
        """``specs``: of the inputs and of the outputs. ``device``: ``cpu`` or ``cuda``, its first GPU."""
        self._session = session
        self._inputs, self._outputs = ({spec.name: _allocate(runtime, spec, device) for spec in side} for side in specs)
        self._bound = session.io_binding()
        for name, value in self._inputs.items():
            self._bound.bind_ortvalue_input(name, value)
        for name, value in self._outputs.items():
            self._bound.bind_ortvalue_output(name, value)

    def run(self, feeds: Tensors, out: Tensors | None) -> Tensors:
        """As ``Engine.run``; ONNX Runtime's exceptions pass. Both copies and the execution are complete on return."""
        for name, value in self._inputs.items():
            value.update_inplace(feeds[name])
        self._session.run_with_iobinding(self._bound)
        results = {name: value.numpy() for name, value in self._outputs.items()}
        if out is None:
            return {name: _own(result) for name, result in results.items()}
        for name, result in results.items():
            np.copyto(out[name], result)
        return out


def _own(array: NDArray[np.generic]) -> NDArray[np.generic]:
    """``OrtValue.numpy`` makes a new array of what lies on a GPU, and a view of what lies on the CPU."""
    return array if array.flags.owndata else array.copy()


def _allocate(runtime: Any, spec: TensorSpec, device: str) -> Any:
    return runtime.OrtValue.ortvalue_from_shape_and_type(list(spec.shape), np.dtype(spec.dtype).type, device, 0)
