"""What the engines of TensorRT and TensorRT for RTX share: options, facts, the way from a file to a running plan."""

from __future__ import annotations

import mmap
from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, cast

from . import cuda
from ._plan_runner import PlanRunner
from .base import Engine, TensorSpec
from .errors import BundleError, DeviceError, EdgeTurboError, MissingComponentError

if TYPE_CHECKING:
    from ._buffer_set import LoadedPlan, Ticket
    from ._device_tensor import DeviceTensor
    from .base import Tensors
    from .vendor import Vendor

NO_GRAPH_WANTED = "not asked for (PlanOptions.cuda_graph)"


@dataclass(frozen=True)
class PlanOptions:
    """``cuda_graph``: replay the plan's work as one CUDA graph instead of launching its kernels one by one.

    ``runtime_cache``: a file (``engine.plan.cache`` beside the plan, say) that keeps the kernels TensorRT for RTX
    compiles while it opens a plan. It is read when there is one and written after opening; TensorRT has none.
    """

    cuda_graph: bool = True
    runtime_cache: Path | None = None


@dataclass(frozen=True)
class PlanFacts:
    """How an open plan runs, for benchmarks and metrics. Sizes are bytes.

    ``cuda_graph`` is ``"captured"`` (by this package), ``"library"`` (TensorRT for RTX captures by itself, and does
    not tell whether it could) or ``"none"``; ``cuda_graph_reason`` says why it is not ``"captured"``.
    ``weights`` is what the library says of the plan, None where it does not say; ``plan`` is the file's size, which
    the weights make up for the most part. ``buffers`` are the tensors at the border, on the GPU; as much is pinned on
    the host. ``runtime_cache`` is None without one, else whether it was ``"loaded"`` or ``"new"``.
    """

    version: str
    cuda_graph: Literal["captured", "library", "none"]
    cuda_graph_reason: str | None
    plan: int
    weights: int | None
    activations: int
    buffers: int
    runtime_cache: Literal["loaded", "new"] | None = None


class PlanEngine(Engine):
    """Runs a plan on the GPU: contexts, buffers and streams live as long as the engine is open.

    Opening raises BundleError for a plan that cannot be this library's; MissingComponentError without its package,
    cuda-python or an NVIDIA driver that is new enough; DeviceError when the GPU fails, with figures when its memory
    is short. Closing gives all of it back, after a failure too, and an engine can be opened again: unless the
    device was lost to the process, which the error says.

    ``run_stream`` uploads, computes and downloads at once with two sets of buffers, and gives each result one frame
    late. ``run_device`` copies within the GPU's memory, or not at all: see ``device_inputs``.

    What needs a GPU is tested in ``tests/gpu`` and was not run by the authors; ``tests/fakes`` simulates CUDA and
    the libraries to test the order of calls and who owns what.
    """

    vendor: ClassVar[Vendor]

    def __init__(self, plan: Path | str, options: PlanOptions | None = None) -> None:
        super().__init__()
        self.plan = Path(plan)
        self.options = options or PlanOptions()
        self._loaded: LoadedPlan | None = None
        self._runner: PlanRunner | None = None

    @abstractmethod
    def _check(self) -> None:
        """Raise BundleError or MissingComponentError for what can be known before the GPU is touched."""

    @abstractmethod
    def _load(self) -> LoadedPlan:
        """Deserialise the plan."""

    def _opened(self) -> None:
        """The plan has run for the first time."""

    @property
    def inputs(self) -> tuple[TensorSpec, ...]:
        return () if self._runner is None else self._runner.inputs

    @property
    def outputs(self) -> tuple[TensorSpec, ...]:
        return () if self._runner is None else self._runner.outputs

    @property
    def facts(self) -> PlanFacts:
        """Known only while open; UsageError otherwise. The first ``run_stream`` adds a set of buffers."""
        runner, loaded = self._running(), cast("LoadedPlan", self._loaded)
        reason = runner.no_graph_reason
        return PlanFacts(
            version=self.vendor.version(),
            cuda_graph="captured" if reason is None else "library" if loaded.library_graph else "none",
            cuda_graph_reason=reason,
            plan=loaded.plan_bytes,
            weights=loaded.weights_bytes,
            activations=runner.activation_bytes,
            buffers=runner.buffer_bytes,
            runtime_cache=loaded.runtime_cache,
        )

    @property
    def device_inputs(self) -> Mapping[str, DeviceTensor]:
        """The engine's own input buffers, while it is open; UsageError otherwise.

        A frame that is made there, by a kernel or a decoder on the GPU, and fed to ``run_device`` is not copied. They
        are free to be written whenever no call of the engine's is under way; a ``run_stream`` is, until its end.
        """
        return self._running().device_inputs

    def _open(self) -> None:
        self._check()
        problem = cuda.driver_problem()
        if problem is not None:
            raise MissingComponentError(
                f"{self.plan.name} cannot run here: {problem}",
                hint="turbo-run BUNDLE --engine onnxruntime runs the same generator on the CPU",
            )
        cuda.require_bindings()
        try:
            self._loaded = self._load()
            self._runner = PlanRunner(self._loaded)
            self._opened()
        except BaseException:
            self._drop()
            raise

    def _drop(self) -> None:
        """After a failure to open."""
        runner, self._runner = self._runner, None
        loaded, self._loaded = self._loaded, None
        if runner is not None:
            cuda.discard(runner)
        elif loaded is not None:
            loaded.free()

    def _close(self) -> None:
        runner, self._runner, self._loaded = self._running(), None, None
        runner.free()

    def _run(self, feeds: Tensors, out: Tensors | None) -> Tensors:
        return self._running().run(feeds, out)

    def _run_device(self, feeds: Mapping[str, object], out: Mapping[str, object] | None) -> Mapping[str, Any]:
        return self._running().run_device(feeds, out)

    def _run_stream(self, feeds: Iterator[Tensors]) -> Iterator[Tensors]:
        runner = self._running()
        last: Ticket | None = None
        for tensors in feeds:
            if runner is not self._runner:
                raise self._closed()
            ticket = runner.submit(tensors)
            if last is not None:
                yield runner.take(last)
            last = ticket
        if last is not None:
            yield last.results() if runner is not self._runner else runner.take(last)

    def _running(self) -> PlanRunner:
        if self._runner is None:
            raise self._closed()
        return self._runner


def unusable_reason(vendor: Vendor) -> str | None:
    """Why no plan of ``vendor``'s can run here, in one sentence, or None."""
    try:
        vendor.load()
        problem = cuda.driver_problem()
        if problem is None:
            cuda.require_bindings()
    except MissingComponentError as error:
        return f"{error.what} ({error.hint})"
    return problem


def problem_with(check: Callable[[Path], None], path: Path | str) -> str | None:
    """What ``check`` finds against the plan at ``path``, in one sentence; what needs the package goes unchecked."""
    try:
        check(Path(path))
    except BundleError as error:
        return f"{error.what}: expected {error.expected}, got {error.got}"
    except MissingComponentError:
        return None
    return None


def deserialize(vendor: Vendor, path: Path, hint: str) -> tuple[Any, Any]:
    """The library's runtime and engine of a checked plan.

    Raises BundleError when the library refuses the plan, DeviceError when the machine is at fault; its messages tell
    which, and they are in the error. ``hint`` says how to build the plan anew.
    """
    trt = vendor.load()
    vendor.last_errors()  # of another plan, perhaps
    try:
        runtime = trt.Runtime(vendor.logger())
    except TypeError as error:  # pybind11's, when the library returns no object
        raise DeviceError(f"{vendor.name} does not start", got=vendor.last_errors(), hint="nvidia-smi") from error
    # Mapped, not read: the library copies what it keeps, and a plan may take gigabytes.
    with path.open("rb") as stream, mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as plan:
        engine = runtime.deserialize_cuda_engine(plan)
    if engine is None:
        del runtime  # or it lives as long as the error's traceback does
        raise _refused(vendor, path, hint)
    return runtime, engine


def _refused(vendor: Vendor, path: Path, hint: str) -> EdgeTurboError:
    said = vendor.last_errors()
    if "memory" in said.lower():
        return DeviceError(
            f"{path} could not be deserialised: out of memory",
            expected=f"about {path.stat().st_size:,} bytes",
            got=f"{cuda.free_memory()} on the GPU; {vendor.name} says: {said}",
            hint="close other programs that use the GPU",
        )
    if "cuda" in said.lower():
        return DeviceError(f"{path} could not be deserialised", got=said, hint="nvidia-smi")
    return BundleError(
        f"{path} was refused by {vendor.name}",
        expected=f"a plan that {vendor.module} {vendor.version()} built on a GPU of this kind",
        got=said,
        hint=hint,
    )
