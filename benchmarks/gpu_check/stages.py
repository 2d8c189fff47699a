"""The stages in their order: cheap and certain first, so that a machine's short loan yields the most."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING

from ...engines.errors import UsageError
from . import needs
from .needs import Need
from .options import CheckOptions

if TYPE_CHECKING:
    from .context import Context


@dataclass(frozen=True)
class Stage:
    """``where`` is the module of this package and the function in it that runs the stage, ``"prepare.weights"``.

    ``needs`` are looked at in order before it starts. ``leaves`` tells whether what the stage wrote is still there.
    """

    name: str
    about: str
    where: str
    needs: tuple[Need, ...] = ()
    leaves: Need | None = None

    def problem(self, options: CheckOptions) -> str | None:
        """Why the stage cannot run, in a sentence, or None."""
        reasons = (need(options) for need in self.needs)
        return next((reason for reason in reasons if reason is not None), None)

    def still_there(self, options: CheckOptions) -> bool:
        return self.leaves is None or self.leaves(options) is None

    def run(self, context: Context) -> None:
        module, _, function = self.where.partition(".")
        run: Callable[[Context], None] = getattr(import_module(f".{module}", __package__), function)
        run(context)


_PYTORCH = (needs.device, needs.MODEL, needs.weights, needs.bundle, needs.reference)
_ENGINE = (needs.nvidia_gpu, needs.bundle, needs.reference)

STAGES = (
    Stage("prepare-weights", "a random base model and checkpoint of the right size", "prepare.weights",
          (needs.device, needs.MODEL), needs.weights),
    Stage("prepare-bundle", "the FP16 bundle, through turbo-export's gates", "prepare.bundle",
          (needs.device, needs.EXPORT, needs.weights), needs.bundle),
    Stage("prepare-reference", "what unmerged FP32 PyTorch makes of a frame", "prepare.reference",
          (needs.device, needs.MODEL, needs.weights, needs.bundle), needs.reference),
    Stage("prepare-three", "encoder, UNet and decoder as three ONNX files", "prepare.three",
          (needs.device, needs.EXPORT, needs.weights, needs.bundle), needs.three),
    Stage("ceiling", "the fastest matrix product this device keeps up", "ceiling.ceiling",
          (needs.device, needs.TORCH)),
    Stage("pytorch-eager", "PyTorch eager, merged and with live adapters", "pytorch_stages.eager",
          _PYTORCH),
    Stage("compile", "torch.compile, channels-last, CUDA graphs", "pytorch_stages.compiled",
          _PYTORCH),
    Stage("onnxruntime-cuda", "ONNX Runtime on the GPU", "engine_stages.onnxruntime_cuda",
          _ENGINE),
    Stage("cpu-engines", "ONNX Runtime and OpenVINO on the CPU", "engine_stages.cpu_engines",
          (needs.cpu_asked, needs.bundle, needs.reference)),
    Stage("goldens", "the published code's goldens through every engine here", "goldens.goldens",
          (needs.device, needs.goldens, needs.EXPORT)),
    Stage("tensorrt", "our single engine, built here", "engine_stages.tensorrt",
          _ENGINE),
    Stage("three-engines", "encoder, UNet and decoder as three engines, as peers do", "three_stage.three_engines",
          (needs.device, needs.bundle, needs.reference, needs.three)),
    Stage("tensorrt-rtx", "our single engine with TensorRT for RTX", "engine_stages.tensorrt_rtx",
          _ENGINE),
    Stage("compile-max-autotune", "torch.compile that tries every kernel", "pytorch_stages.compiled_max_autotune",
          _PYTORCH),
)  # fmt: skip


def stage_called(name: str) -> Stage:
    """Raises UsageError for a name that is none."""
    for stage in STAGES:
        if stage.name == name:
            return stage
    raise UsageError(f"no stage '{name}'", expected=", ".join(stage.name for stage in STAGES), got=name)
