"""How TensorRT and TensorRT for RTX build a plan: one recipe for TensorRT 8.6, 10.3 to 11.x, and RTX 1.5 and later.

What a version can do is asked of its Python interface by name, never read off its number:

- with ``NetworkDefinitionCreationFlag.STRONGLY_TYPED`` (10.0 and later; 11 accepts and ignores it) the graph's own
  types are the precision, and islands need no mention;
- without it (8.6) the network is weakly typed: FP16 is allowed as a whole, and ``_precision`` pins the FP32 islands.

Only TensorRT for RTX builds without a GPU. The path of TensorRT proper was never run on one where this was written:
its calls were checked against the bindings' sources of 8.6.1, 10.3, 10.16 and 11.1, and by a stand-in in the tests.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from . import _build_trt_islands
from ._build_job import peak_rss_bytes
from ._build_targets import resolve_targets
from .cuda import driver_problem
from .errors import BuildError, BundleError, DeviceError, EdgeTurboError, InputError, UsageError
from .files import writing_to
from .vendor import TENSORRT, TENSORRT_RTX, Vendor

if TYPE_CHECKING:
    from pathlib import Path

    from ._build_job import Job, Progress

_log = logging.getLogger(__name__)


def build(job: Job, progress: Progress) -> dict[str, Any]:
    """Build, write and check the plan; returns what the ``built`` message says.

    Raises UsageError for a target or timing cache that this machine or version cannot build with,
    MissingComponentError without the vendor's package (or, for TensorRT, a GPU), BuildError when the builder fails.
    """
    vendor = TENSORRT_RTX if job.backend == "tensorrt-rtx" else TENSORRT
    resolve_targets(job.backend, job.targets)  # again: a reproduce.sh may have come to another device
    trt = vendor.load()
    serialized = _serialized(vendor, job, progress)
    if not progress.phase("writing the plan"):
        raise BuildError("the process that asked for the plan is gone")
    with writing_to(job.plan), job.plan.open("wb") as stream:
        stream.write(memoryview(serialized))
    del serialized
    progress.phase("checking the plan")
    checked, unchecked = _check_rtx(job.plan) if vendor is TENSORRT_RTX else _check(vendor, job.plan)
    return {
        "version": str(trt.__version__),
        "checked": checked,
        "unchecked": unchecked,
        "peak_rss_bytes": peak_rss_bytes(),
    }


def _serialized(vendor: Vendor, job: Job, progress: Progress) -> Any:
    """The plan in the vendor's host memory. The network, and the weights that its parser holds, are gone by then."""
    trt = vendor.load()
    progress.phase(f"reading {job.onnx.name}")
    if vendor is TENSORRT and hasattr(trt, "init_libnvinfer_plugins"):
        # The parsers of 8.6 and 10 make plugins of some operators (InstanceNormalization is one).
        trt.init_libnvinfer_plugins(vendor.logger(), "")
    builder = _builder(vendor)
    network = builder.create_network(1 << int(_network_flag(trt)))
    parser = trt.OnnxParser(network, vendor.logger())
    if not parser.parse_from_file(str(job.onnx)):
        raise _parse_error(vendor, parser, job.onnx)
    _allow_decomposing_attention(trt, network)
    config = builder_config(vendor, builder, job)
    if not is_strongly_typed(trt):
        _build_trt_islands.constrain(trt, config, network, job)
    cache = _attach_timing_cache(vendor, config, job)
    if hasattr(config, "progress_monitor"):
        monitor = _monitor(trt, progress)
        config.progress_monitor = monitor
    else:
        progress.phase(f"building; {vendor.name} {trt.__version__} does not say how far it is")
    serialized = builder.build_serialized_network(network, config)
    if serialized is None or serialized.nbytes == 0:
        raise BuildError(f"{vendor.name} could not build {job.onnx.name}", got=vendor.last_errors())
    if cache is not None:
        _write_timing_cache(config, job)
    return serialized


def is_strongly_typed(trt: Any) -> bool:
    """Whether this version takes precision from the graph's types (10.0 and later, and RTX)."""
    return hasattr(trt.NetworkDefinitionCreationFlag, "STRONGLY_TYPED")


def _network_flag(trt: Any) -> Any:
    """8.6 would else make a network with an implicit batch dimension, which its ONNX parser refuses."""
    flags = trt.NetworkDefinitionCreationFlag
    return flags.STRONGLY_TYPED if is_strongly_typed(trt) else flags.EXPLICIT_BATCH


def _builder(vendor: Vendor) -> Any:
    try:
        return vendor.load().Builder(vendor.logger())
    except TypeError as error:  # pybind11's word for a constructor of the vendor's that returned nothing
        raise DeviceError(
            f"{vendor.name} could not make a builder", got=f"{error}\n{vendor.last_errors()}", hint="nvidia-smi"
        ) from error


def _allow_decomposing_attention(trt: Any, network: Any) -> None:
    """Let Attention operators (opset 23) fall back to plain products where no fused kernel fits.

    Fused kernels exist for heads of 64 to 256; SD-Turbo's VAE has one head of 512, and a build without this fails.
    """
    kind = getattr(trt.LayerType, "ATTENTION_INPUT", None)
    if kind is None:
        return  # before 10.14, whose parsers do not know the operator either
    for index in range(network.num_layers):
        layer = network.get_layer(index)
        if layer.type == kind:
            layer.__class__ = trt.IAttentionInputLayer
            layer.attention.decomposable = True


def _parse_error(vendor: Vendor, parser: Any, onnx: Path) -> BuildError:
    problems = [_problem(parser.get_error(index)) for index in range(parser.num_errors)]
    return BuildError(
        f"{vendor.name} cannot parse {onnx.name}",
        expected=f"operators that {vendor.module} {vendor.version()} supports",
        got="\n".join(problems) or vendor.last_errors(),
    )


def _problem(error: Any) -> str:
    """8.6 knows the node's number alone; later versions its name and operator."""
    if not hasattr(error, "node_name"):
        return f"node {error.node()}: {error.desc()}"
    node = f"node '{error.node_name()}' ({error.node_operator()}): " if error.node_operator() else ""
    return f"{node}{error.desc()}"


def builder_config(vendor: Vendor, builder: Any, job: Job) -> Any:
    """The vendor's configuration of ``job``. Raises UsageError for a target that this version cannot build for.

    TF32 is always off. It rounds the factors of FP32 products to 10 bits of mantissa (NvInfer.h, ``BuilderFlag``),
    and whatever computes in FP32 here does so to be exact: an FP32 bundle as a whole, an FP16 bundle's islands.
    """
    trt = vendor.load()
    config = builder.create_builder_config()
    if job.workspace_bytes is not None:
        config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, job.workspace_bytes)
    if job.tactic_memory_bytes is not None:
        config.set_memory_pool_limit(trt.MemoryPoolType.TACTIC_DRAM, job.tactic_memory_bytes)
    if job.optimization_level is not None:
        config.builder_optimization_level = job.optimization_level
    config.clear_flag(trt.BuilderFlag.TF32)
    if vendor is TENSORRT_RTX:
        _set_targets(trt, config, job.targets)
    return config


def _set_targets(trt: Any, config: Any, targets: tuple[str, ...]) -> None:
    config.num_compute_capabilities = len(targets)
    for index, target in enumerate(targets):
        capability = getattr(trt.ComputeCapability, target.replace("_", "").upper(), None)
        if capability is None or not config.set_compute_capability(capability, index):
            raise UsageError(f"tensorrt_rtx {trt.__version__} cannot build for {target}")


def _attach_timing_cache(vendor: Vendor, config: Any, job: Job) -> Any:
    """The vendor's cache, which must live until the build is over; None when none was asked for.

    Raises UsageError for one of another GPU or version: with ``ignore_mismatch`` it could make a wrong plan (NvInfer.h,
    ``setTimingCache``), and going on without would replace it by one that its own GPU cannot use.
    """
    if job.timing_cache is None:
        return None
    cache = config.create_timing_cache(_bytes_of(job.timing_cache))
    if cache is None or not config.set_timing_cache(cache, ignore_mismatch=False):
        raise UsageError(
            f"{job.timing_cache} is not a timing cache of this GPU and {vendor.name} {vendor.version()}",
            got=vendor.last_errors(),
            hint=f"--timing-cache with another name: a new one is made; or delete {job.timing_cache.name}",
        )
    return cache


def _bytes_of(path: Path) -> bytes:
    """Nothing when there is no file yet: the vendor then begins a new cache."""
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return b""
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}") from error


def _write_timing_cache(config: Any, job: Job) -> None:
    """Write what was timed, with whatever another build added to the file meanwhile."""
    if job.new_timing_cache is None or job.timing_cache is None:
        return
    cache = config.get_timing_cache()
    meanwhile = _bytes_of(job.timing_cache)
    if meanwhile and not cache.combine(config.create_timing_cache(meanwhile), ignore_mismatch=False):
        _log.warning("%s changed during the build and could not be combined with this build's", job.timing_cache)
    with writing_to(job.new_timing_cache):
        job.new_timing_cache.write_bytes(memoryview(cache.serialize()))


def _check_rtx(plan: Path) -> tuple[list[str], list[str]]:
    """What of the written plan could be checked on this machine, and what could not."""
    from .tensorrt_rtx import check_plan, deserialize, device_refusal, read_header

    check_plan(plan)
    says = ", as many as its header says" if read_header(plan).nbytes else ""
    checked = [
        f"the plan is {plan.stat().st_size:,} bytes{says}",
        "the plan's header was accepted by the runtime's validity check (no MALFORMED_ENGINE bit)",
    ]
    problem = driver_problem()
    refusal: EdgeTurboError | None = None if problem else device_refusal(plan)
    if problem is None and refusal is None:
        deserialize(plan)
        return [*checked, "deserialised by the runtime"], ["numerical parity: the builder does not run the plan"]
    reason = problem or str(refusal)
    return checked, [f"deserialisation and numerical parity: {reason} on the building machine"]


def _check(vendor: Vendor, plan: Path) -> tuple[list[str], list[str]]:
    """TensorRT's plans are built where they run, so the runtime itself can say whether it takes the plan."""
    from .tensorrt import deserialize

    try:
        deserialize(plan)
    except BundleError as error:
        raise BuildError(f"{vendor.name} does not take the plan it has just built", got=error.got) from error
    checked = [f"the plan is {plan.stat().st_size:,} bytes", "deserialised by the runtime"]
    return checked, ["numerical parity: the builder does not run the plan"]


def _monitor(trt: Any, progress: Progress) -> Any:
    class Monitor(trt.IProgressMonitor):  # type: ignore[misc] # the vendors' packages have no types
        def __init__(self) -> None:
            super().__init__()

        def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
            progress.begin(phase_name, parent_phase, num_steps)

        def phase_finish(self, phase_name: str) -> None:
            """Its last step said so already."""

        def step_complete(self, phase_name: str, step: int) -> bool:
            return progress.advance(phase_name, step)

    return Monitor()
