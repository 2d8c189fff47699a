"""What a stage cannot do without, looked at before it starts: a plain sentence, or nothing."""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

from ...engines.cuda import driver_problem
from .options import CheckOptions

GOLDEN = Path(__file__).resolve().parent.parent.parent / "tests" / "golden"

Need = Callable[[CheckOptions], str | None]


def packages(*names: str, hint: str) -> Need:
    """The import names in ``names`` must all be installed; ``hint`` says what to type."""

    def check(_: CheckOptions) -> str | None:
        missing = [name for name in names if find_spec(name) is None]
        return f"not installed: {', '.join(missing)} ({hint})" if missing else None

    return check


def nvidia_gpu(options: CheckOptions) -> str | None:
    """A GPU that was asked for and that the driver can use."""
    if options.device != "cuda":
        return f"it needs an NVIDIA GPU, and --device {options.device} was asked for"
    return driver_problem()


def cpu_asked(options: CheckOptions) -> str | None:
    """Engines of the CPU are measured where the CPU was asked for, not beside a GPU's figures."""
    return None if options.device == "cpu" else "it measures CPU engines: --device cpu asks for it"


def device(options: CheckOptions) -> str | None:
    """The device that was asked for."""
    return nvidia_gpu(options) if options.device == "cuda" else None


def weights(options: CheckOptions) -> str | None:
    return None if options.checkpoint.is_file() and options.base.is_dir() else _first("prepare-weights")


def bundle(options: CheckOptions) -> str | None:
    return None if (options.bundle / "manifest.json").is_file() else _first("prepare-bundle")


def reference(options: CheckOptions) -> str | None:
    return None if options.reference.is_file() else _first("prepare-reference")


def three(options: CheckOptions) -> str | None:
    return None if (options.three / "decoder.onnx").is_file() else _first("prepare-three")


def goldens(_: CheckOptions) -> str | None:
    """They come with the repository, not with the package."""
    return (
        None if GOLDEN.is_dir() else "the goldens are in the repository: git clone it, and run this from the checkout"
    )


def _first(stage: str) -> str:
    return f"it needs what the stage {stage} writes (--stage {stage})"


TORCH = packages("torch", hint="https://pytorch.org/get-started/locally")
EXPORT = packages(
    "torch", "diffusers", "transformers", "peft", "safetensors", "onnx", "onnxscript", "onnxruntime",
    hint='pip install "edgeturbo[export,cpu]"',
)  # fmt: skip
MODEL = packages("torch", "diffusers", "transformers", "peft", "safetensors", hint='pip install "edgeturbo[export]"')
