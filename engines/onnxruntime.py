"""ONNX Runtime: on the CPU the backend that runs wherever Python does, and the one parity is measured with; or on CUDA.

TensorRT's provider is not used: this package builds and runs plans itself. The module has the library's name;
``import onnxruntime`` below is the library, because imports in this package that mean the package are relative.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from . import _ort_cuda
from ._ort_binding import Binding
from ._ort_errors import cpu_error, cuda_error, exceptions
from .base import Engine, TensorSpec
from .errors import BundleError, DeviceError, EdgeTurboError, MissingComponentError, UsageError

if TYPE_CHECKING:
    from .base import Tensors

_NUMPY_NAMES = {
    "tensor(uint8)": "uint8",
    "tensor(int8)": "int8",
    "tensor(int32)": "int32",
    "tensor(int64)": "int64",
    "tensor(float16)": "float16",
    "tensor(float)": "float32",
    "tensor(double)": "float64",
    "tensor(bool)": "bool",
}

_DEVICES = ("cpu", "cuda")

# Errors reach the caller as exceptions, with ONNX Runtime's own words in them: not a second time on stderr.
_LOG_FATAL_ONLY = 4


@dataclass(frozen=True)
class OnnxRuntimeOptions:
    """``device``: ``cpu``, or ``cuda`` for the first GPU, wholly or not at all.

    ``cuda_graph``: on CUDA, the first run records what it launches and later ones replay it. ``binding``: on the CPU,
    use tensors at fixed addresses, as CUDA always does; it was measured to be no faster there.

    The rest is for the CPU. ``threads``: None takes every core. The others trade memory for time; all off is leanest.
    ``arena`` keeps freed memory for the next run. ``prepack`` rearranges weights for faster kernels and thereby holds
    a second copy of them, which at full size is gigabytes. ``optimise`` rewrites the graph, which folds casts of
    weights into wider weights. ``quantised_kernels`` lets it multiply INT8 where the graph has scales; of FP8, which
    it has no kernels for, it makes nodes that it then cannot load (1.31), so that must be off.
    """

    threads: int | None = None
    arena: bool = True
    prepack: bool = True
    optimise: bool = True
    quantised_kernels: bool = True
    device: str = "cpu"
    cuda_graph: bool = True
    binding: bool = False


LEAN = OnnxRuntimeOptions(arena=False, prepack=False)


class OnnxRuntimeEngine(Engine):
    """Runs an ONNX file with static shapes on the CPU or, when ``options.device`` says so, on CUDA.

    ``open`` raises MissingComponentError without the package, a GPU or a driver that is new enough, BundleError for a
    file that it cannot load, DeviceError when memory runs out; ``run`` raises DeviceError, which names the bytes where
    ONNX Runtime does. The arrays that ``run`` returns are the caller's; with ``out`` the result is copied there.

    ``backend`` is ``onnxruntime`` or ``onnxruntime-cuda``.
    """

    backend: ClassVar[str] = "onnxruntime"

    def __init__(
        self, onnx: Path | str, *, threads: int | None = None, options: OnnxRuntimeOptions | None = None
    ) -> None:
        """``threads`` is short for ``OnnxRuntimeOptions(threads=...)`` and yields to ``options``.

        Raises UsageError for a device that is none of ``cpu`` and ``cuda``.
        """
        super().__init__()
        self._onnx = Path(onnx)
        self._options = options or OnnxRuntimeOptions(threads=threads)
        if self._options.device not in _DEVICES:
            raise UsageError("no such device", expected=" or ".join(_DEVICES), got=self._options.device)
        if self._on_cuda:
            self.backend = "onnxruntime-cuda"  # type: ignore[misc] # one class, two names: the device is an option
        self._session: Any = None
        self._binding: Binding | None = None
        self._running: Any = None

    @property
    def _on_cuda(self) -> bool:
        return self._options.device == "cuda"

    def _open(self) -> None:
        runtime = _library()
        try:
            self._session = self._new_session(runtime)
            self._inputs = tuple(_spec(self._onnx, node) for node in self._session.get_inputs())
            self._outputs = tuple(_spec(self._onnx, node) for node in self._session.get_outputs())
            if self._on_cuda or self._options.binding:
                specs = (self._inputs, self._outputs)
                self._binding = Binding(runtime, self._session, specs, self._options.device)
        except exceptions() as error:
            self._close()
            what = f"ONNX Runtime cannot load {self._onnx}"
            raise self._device_error(error, what) or BundleError(
                f"{what}: {error}", hint="export the bundle again"
            ) from error
        except BaseException:
            self._close()
            raise

    def _new_session(self, runtime: Any) -> Any:
        session_options = _session_options(runtime, self._options)
        if self._on_cuda:
            return _ort_cuda.open_session(runtime, self._onnx, session_options, cuda_graph=self._options.cuda_graph)
        return runtime.InferenceSession(
            str(self._onnx), session_options, providers=["CPUExecutionProvider"], enable_fallback=0
        )

    def _close(self) -> None:
        self._binding = None
        self._session = None
        self._inputs = self._outputs = ()

    def _run(self, feeds: Tensors, out: Tensors | None) -> Tensors:
        try:
            if self._binding is not None:
                return self._binding.run(feeds, out)
            names = [spec.name for spec in self._outputs]
            # New for each run: the word to stop stays in it.
            self._running = _library().RunOptions()
            self._running.log_severity_level = _LOG_FATAL_ONLY
            values = self._session.run(names, dict(feeds), self._running)
        except exceptions() as error:
            what = f"ONNX Runtime failed to run {self._onnx}"
            raise self._device_error(error, what) or DeviceError(f"{what}: {error}") from error
        if out is None:
            return dict(zip(names, values, strict=True))
        for name, value in zip(names, values, strict=True):
            np.copyto(out[name], value)
        return out

    def _interrupt(self) -> None:
        running = self._running
        if running is not None:
            running.terminate = True

    def _device_error(self, error: Exception, doing: str) -> EdgeTurboError | None:
        return cuda_error(error, doing) if self._on_cuda else cpu_error(error, doing)


def cuda_problem() -> str | None:
    """Why ONNX Runtime cannot use CUDA here, in one sentence, or None when it can. Opens no session.

    Only opening an engine tells whether CUDA's and cuDNN's own libraries can be loaded, and the memory suffices.
    """
    try:
        runtime = _library()
    except MissingComponentError as error:
        return f"{error.what} ({_ort_cuda.HINT})"
    return _ort_cuda.provider_problem(runtime)


def _library() -> Any:
    try:
        import onnxruntime
    except ImportError as error:
        raise MissingComponentError("ONNX Runtime is not installed", hint='pip install "edgeturbo[cpu]"') from error
    return onnxruntime


def _session_options(runtime: Any, options: OnnxRuntimeOptions) -> Any:
    session_options = runtime.SessionOptions()
    session_options.log_severity_level = _LOG_FATAL_ONLY
    session_options.enable_cpu_mem_arena = options.arena
    session_options.enable_mem_pattern = options.arena
    if not options.optimise:
        session_options.graph_optimization_level = runtime.GraphOptimizationLevel.ORT_DISABLE_ALL
        # In the order the graph is written, where the default order would leave side branches (probes) to the end and
        # keep every tensor they read until then.
        session_options.execution_order = runtime.ExecutionOrder.PRIORITY_BASED
    if not options.quantised_kernels:
        session_options.add_session_config_entry("session.disable_quant_qdq", "1")
    if options.threads is not None:
        session_options.intra_op_num_threads = options.threads
    if not options.prepack:
        session_options.add_session_config_entry("session.disable_prepacking", "1")
    return session_options


def _spec(onnx: Path, node: Any) -> TensorSpec:
    if node.type not in _NUMPY_NAMES:
        raise BundleError(f"{onnx}: tensor '{node.name}' has a type that no engine here takes", got=node.type)
    if not all(isinstance(size, int) and size > 0 for size in node.shape):
        raise BundleError(
            f"{onnx}: tensor '{node.name}' has no static shape",
            expected="fixed sizes, as turbo-export writes them",
            got=str(list(node.shape)),
            hint="export the bundle again",
        )
    return TensorSpec(node.name, _NUMPY_NAMES[node.type], tuple(node.shape))
