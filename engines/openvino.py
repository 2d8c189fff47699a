"""OpenVINO on the CPU: the generator's ONNX file, or a plan that ``_build_openvino`` compiled of it on such a CPU.

What OpenVINO computes in does not depend on the graph ("inference precision", OpenVINO's guide "Precision Control").
Left to itself it takes bfloat16 wherever the CPU can: it is always told here, and what it then says it does must be
what was asked. Asked for FP16 on a CPU without such instructions, it takes bfloat16 without a word (seen in 2026.4).

A plan holds OpenVINO's transformed graph for one precision, and neither says which nor checks it: imported for another,
it was seen to make wrong pictures (12 dB) or to crash. Versions up to 2026.2 do not check theirs either. The network is
therefore named after both before it is compiled, and a plan is refused before it runs when its name says another one.
OpenVINO's own model cache (CACHE_DIR) has the same fault and no such name (black pictures, 2026.4), and is not used.

Importing the ``openvino`` package reports its use to the vendor (it forks a process that sends to Google Analytics, and
writes ``~/intel``), unless its dependency ``openvino_telemetry`` is missing. ``load_openvino`` makes it look missing.
"""

from __future__ import annotations

import io
import mmap
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, ClassVar

import numpy as np

from . import device
from .base import Engine, TensorSpec
from .errors import BundleError, DeviceError, InputError, MissingComponentError, UsageError

if TYPE_CHECKING:
    from .base import Tensors

# The names that OpenVINO's INFERENCE_PRECISION_HINT takes and tells.
PRECISIONS = ("f32", "bf16", "f16")
DEFAULT_PRECISION = "f32"

_DEVICE = "CPU"
_REBUILD = "turbo-build BUNDLE --engine openvino --force"
_OTHER_ENGINE = "turbo-run BUNDLE INPUT --engine onnxruntime"
_NAMED_BY_US = "edgeturbo"
_FORGET_S = 0.1  # a disk gives some 200 MB meanwhile, and looking costs microseconds
_TELEMETRY = "openvino_telemetry"
_importing = threading.Lock()


@dataclass(frozen=True)
class OpenVinoOptions:
    """``precision``: one of ``PRECISIONS``. ``threads``: None takes every core.

    ``f32`` is the default because it is what the gate measured: FP16 weights widen to it exactly, and its pictures
    differ from ONNX Runtime's by one grey level here and there (61 to 81 dB). ``bf16`` keeps 8 bits of every number:
    42 to 57 dB on the same networks, and two to four times as fast on a CPU with AMX. ``f16`` needs a CPU with
    AVX512-FP16 or Arm's FP16.
    """

    precision: str = DEFAULT_PRECISION
    threads: int | None = None


class OpenVinoEngine(Engine):
    """Runs ``generator.onnx`` or an OpenVINO plan, with static shapes, on the CPU.

    ``open`` raises MissingComponentError without the package or for a precision that this CPU lacks, BundleError for a
    file that it cannot load or a plan for another precision, version or CPU, DeviceError when memory runs out; ``run``
    raises DeviceError. The arrays that ``run`` returns are the caller's; with ``out`` the result is copied there.

    A plan's file is mapped and read from as long as the engine is open: it may be replaced, but not be cut short.
    """

    backend: ClassVar[str] = "openvino"

    def __init__(self, path: Path | str, options: OpenVinoOptions | None = None) -> None:
        """``path``: a name that ends in ``.onnx``, or a plan of any other name. Raises UsageError for wrong options."""
        super().__init__()
        self.path = Path(path)
        self.options = options or OpenVinoOptions()
        _check_options(self.options)
        # In the order in which they may go: the network reads the mapped plan.
        self._request: Any = None
        self._compiled: Any = None
        self._plan: Any = None

    @property
    def precision(self) -> str:
        """What the network is computed in: what was asked for, or ``open`` raised."""
        return self.options.precision

    @property
    def requirements(self) -> str | None:
        """The version and the CPU's instructions that a plan of it needs, in OpenVINO's words. Known only while open.

        None from versions that do not tell: 2026.4 does, 2026.2 does not.
        """
        if "RUNTIME_REQUIREMENTS" not in self._compiled.get_property("SUPPORTED_PROPERTIES"):
            return None
        return str(self._compiled.get_property("RUNTIME_REQUIREMENTS"))

    def write_plan(self, stream: IO[bytes]) -> None:
        """Write the open network as a plan for this version, CPU and precision. OSErrors of the stream pass."""
        self._compiled.export_model(_ToFile(stream))

    def _open(self) -> None:
        try:
            if self.path.suffix == ".onnx":
                self._compiled = _compile(self.path, self.options)
            else:
                mapped = _map(self.path)
                self._plan = load_openvino().Tensor(np.frombuffer(mapped, np.uint8), shared_memory=True)
                with _forgetting(mapped):
                    self._compiled = _import(self.path, self._plan, self.options)
            self._inputs = tuple(_spec(port) for port in self._compiled.inputs)
            self._outputs = tuple(_spec(port) for port in self._compiled.outputs)
            with _as_errors(DeviceError, f"OpenVINO cannot prepare to run {self.path}", hint=_OTHER_ENGINE):
                self._request = self._compiled.create_infer_request()
        except BaseException:
            self._close()
            raise

    def _close(self) -> None:
        self._request = None
        self._compiled = None
        self._plan = None
        self._inputs = self._outputs = ()

    def _run(self, feeds: Tensors, out: Tensors | None) -> Tensors:
        with _as_errors(DeviceError, f"OpenVINO failed to run {self.path}", hint=_OTHER_ENGINE):
            for port in self._compiled.inputs:
                np.copyto(self._request.get_tensor(port).data, feeds[port.get_any_name()])
            self._request.infer(share_outputs=True)
        # Views of the request's own memory.
        results = {port.get_any_name(): self._request.get_tensor(port).data for port in self._compiled.outputs}
        if out is None:
            return {name: result.copy() for name, result in results.items()}
        for name, result in results.items():
            np.copyto(out[name], result)
        return out

    def _interrupt(self) -> None:
        request = self._request
        if request is not None:
            request.cancel()


def load_openvino() -> Any:
    """The ``openvino`` package, imported so that it reports nothing to anybody: see the module's docstring.

    When the program imported it before, it has reported already. Raises MissingComponentError without the package.
    """
    try:
        with _importing, _without_telemetry():
            return import_module("openvino")
    except (ImportError, OSError) as error:
        raise MissingComponentError(
            f"OpenVINO cannot be imported: {error}", hint='pip install "edgeturbo[openvino]"'
        ) from error


def version() -> str:
    """As in ``2026.4.1``, without the build. Raises MissingComponentError without the package."""
    return str(load_openvino().__version__).partition("-")[0]


def _check_options(options: OpenVinoOptions) -> None:
    """Raise UsageError for a precision that OpenVINO has not, or less than one thread."""
    if options.precision not in PRECISIONS:
        raise UsageError("no such precision in OpenVINO", expected=", ".join(PRECISIONS), got=options.precision)
    if options.threads is not None and options.threads < 1:
        raise UsageError("an engine needs a thread", expected="1 or more", got=str(options.threads))


def _compile(onnx: Path, options: OpenVinoOptions) -> Any:
    """The vendor's compiled model, named so that a plan of it says its precision.

    Raises as ``OpenVinoEngine.open`` does. In f32 and bf16 it holds the weights twice: widened to f32, and arranged for
    its kernels. Of the full-size generator, 1.8 GB in FP16, that is 7.0 and 5.8 GB; a plan has the former in its file.
    """
    core = load_openvino().Core()
    with _as_errors(BundleError, f"OpenVINO cannot load {onnx}", hint="export the bundle again"):
        model = core.read_model(str(onnx))
    _refuse_dynamic(onnx, model)
    model.set_friendly_name(_network_name(options.precision))
    with _as_errors(BundleError, f"OpenVINO cannot compile {onnx}", hint="export the bundle again"):
        compiled = core.compile_model(model, _DEVICE, _properties(options))
    _refuse_other_precision(compiled, options.precision)
    return compiled


def _map(plan: Path) -> mmap.mmap:
    """The file's bytes, mapped, not read. Whatever is imported from them must go first."""
    try:
        with plan.open("rb") as file:
            # Copy on write: the vendor wants memory that it could write to, and never does.
            return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
    except (OSError, ValueError) as error:  # a ValueError says that the file is empty
        raise InputError(f"cannot read {plan}: {error}", hint=_REBUILD) from error


@contextmanager
def _forgetting(mapped: mmap.mmap) -> Iterator[None]:
    """Meanwhile, the pages of ``mapped`` that were read leave this process again, where the system can do that.

    The vendor reads the weights once, to arrange copies for its kernels, and never again; kept, both are resident: of
    the full-size generator in f32 8.0 GB at most with the first frame, and 4.5 GB so (2026.4). A page that is needed
    after all is read from the file again.
    """
    if not hasattr(mmap, "MADV_DONTNEED"):
        yield
        return
    done = threading.Event()

    def forget() -> None:
        ended = False
        while not ended:
            ended = done.wait(_FORGET_S)
            mapped.madvise(mmap.MADV_DONTNEED)

    worker = threading.Thread(target=forget, name="forget-plan", daemon=True)
    worker.start()
    try:
        yield
    finally:
        done.set()
        worker.join()


def _import(plan: Path, mapped: Any, options: OpenVinoOptions) -> Any:
    """The vendor's compiled model out of ``mapped``, the bytes of ``plan``; raises as ``OpenVinoEngine.open`` does."""
    with _as_errors(BundleError, f"OpenVINO {version()} cannot load {plan} here", hint=_REBUILD):
        compiled = load_openvino().Core().import_model(mapped, _DEVICE, _properties(options))
        name = str(compiled.get_property("NETWORK_NAME"))
    _refuse_other_name(plan, name, options.precision)
    _refuse_other_precision(compiled, options.precision)
    return compiled


def _network_name(precision: str) -> str:
    return f"{_NAMED_BY_US} {version()} {precision}"


def _refuse_other_name(plan: Path, name: str, precision: str) -> None:
    if name == _network_name(precision):
        return
    said = name.split()
    if len(said) != 3 or said[0] != _NAMED_BY_US:
        raise BundleError(
            f"{plan} does not say in which precision it was compiled",
            expected=_network_name(precision),
            got=name,
            hint=_REBUILD,
        )
    if said[1] != version():
        raise BundleError(
            f"{plan} was compiled by another version of OpenVINO",
            expected=f"{version()}, which is installed",
            got=said[1],
            hint=_REBUILD,
        )
    raise BundleError(
        f"{plan} was not compiled for the precision that was asked for",
        expected=precision,
        got=said[2],
        hint=f"--precision {said[2]}",
    )


def _properties(options: OpenVinoOptions) -> dict[str, Any]:
    """One frame at a time, as soon as possible (OpenVINO's guide "Optimizing for Latency")."""
    properties: dict[str, Any] = {
        "INFERENCE_PRECISION_HINT": options.precision,
        "PERFORMANCE_HINT": "LATENCY",
        "NUM_STREAMS": 1,
    }
    return properties if options.threads is None else properties | {"INFERENCE_NUM_THREADS": options.threads}


def _refuse_other_precision(compiled: Any, precision: str) -> None:
    used = compiled.get_property("INFERENCE_PRECISION_HINT").get_type_name()
    if used != precision:
        raise MissingComponentError(
            f"this CPU does not compute in {precision} with OpenVINO",
            expected=precision,
            got=f"{used}, which OpenVINO would take instead on {device.cpu()}",
            hint=f"--precision {DEFAULT_PRECISION}",
        )


def _refuse_dynamic(onnx: Path, model: Any) -> None:
    for port in (*model.inputs, *model.outputs):
        shape = port.get_partial_shape()
        if shape.is_dynamic:
            raise BundleError(
                f"{onnx}: tensor '{port.get_any_name()}' has no static shape",
                expected="fixed sizes, as turbo-export writes them",
                got=str(shape),
                hint="export the bundle again",
            )


def _spec(port: Any) -> TensorSpec:
    return TensorSpec(port.get_any_name(), np.dtype(port.get_element_type().to_dtype()).name, tuple(port.get_shape()))


@contextmanager
def _as_errors(kind: type[BundleError | DeviceError], what: str, *, hint: str) -> Iterator[None]:
    """OpenVINO raises RuntimeError for whatever happens; C++'s own words are in it when memory runs out."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if isinstance(error, MemoryError) or "bad_alloc" in str(error):
            raise DeviceError(
                f"{what}: out of memory",
                got=str(device.memory() or "an unknown amount of memory"),
                hint="close other programs that use the memory, or export at a smaller size",
            ) from error
        raise kind(f"{what}: {_words(error)}", hint=hint) from error


def _words(error: RuntimeError) -> str:
    """What OpenVINO says, without the places in its sources that it puts before it."""
    lines = [line.strip() for line in str(error).splitlines()]
    told = [line for line in lines if line and not line.startswith(("Exception from ", "Check '"))]
    return " ".join(told or lines)[:500]


@contextmanager
def _without_telemetry() -> Iterator[None]:
    """A module that is None cannot be imported; OpenVINO then takes a stand-in of its own, for good."""
    if "openvino" in sys.modules:
        yield
        return
    missing = object()
    before: Any = sys.modules.get(_TELEMETRY, missing)
    sys.modules[_TELEMETRY] = None  # type: ignore[assignment] # what the import system makes of it is documented
    try:
        yield
    finally:
        if before is missing:
            del sys.modules[_TELEMETRY]
        else:
            sys.modules[_TELEMETRY] = before


class _ToFile(io.BytesIO):
    """Lets ``export_model``, which takes a BytesIO alone, write to a file: the plan is never in memory as a whole.

    The export goes back to fill in its header, hence ``seek`` and ``tell``.
    """

    def __init__(self, stream: IO[bytes]) -> None:
        super().__init__()
        self._stream = stream

    def write(self, data: Any) -> int:
        return self._stream.write(data)

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        return self._stream.seek(offset, whence)

    def tell(self) -> int:
        return self._stream.tell()

    def flush(self) -> None:
        self._stream.flush()
