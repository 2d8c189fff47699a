"""The passes that ``--passes`` can name, the order in which they run, and which of them run without being named."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING

from ...engines.errors import UsageError

if TYPE_CHECKING:
    from onnx_ir.passes import InPlacePass


@dataclass(frozen=True)
class GraphPass:
    """A rewrite that computes the same in real numbers: its class, by name, and in one sentence what it does."""

    module: str
    kind: str
    what: str

    def make(self) -> InPlacePass:
        made: InPlacePass = getattr(import_module(f".{self.module}", __package__), self.kind)()
        return made


# In the order in which they run. They expect the graph that Specialise leaves: float32, static, nothing foldable.
PASSES: dict[str, GraphPass] = {
    "split-upsample": GraphPass(
        "split_upsample", "SplitUpsample",
        "computes convolutions behind a 2x upsample before it, with 16 multiplications for 36 (60 MB more in FP16)",
    ),
    "winograd": GraphPass(
        "winograd", "Winograd",
        "computes 3x3 convolutions of 256 channels and more with 36 multiplications for 144 (for CPUs, in FP32)",
    ),
    "fold-time-bias": GraphPass(
        "fold_time_bias", "FoldTimeBias", "makes the time embedding's constants part of the convolutions' biases",
    ),
    "fold-latent-scale": GraphPass(
        "fold_scale", "FoldLatentScale", "moves factors of latent and x0 into the convolutions around them",
    ),
    "fold-quant-conv": GraphPass(
        "fold_quant_conv", "FoldQuantConv", "makes quant_conv part of the encoder's conv_out",
    ),
    "fold-attention-scale": GraphPass(
        "fold_scale", "FoldAttentionScale", "moves the attention's scale into the projections of queries and keys",
    ),
    "fold-prompt": GraphPass(
        "fold_prompt", "FoldPrompt", "multiplies the one prompt's keys and values into the projections around them",
    ),
    "merge-projections": GraphPass(
        "merge_projections", "MergeProjections", "computes queries, keys and values of one input as one product",
    ),
}  # fmt: skip

# These only take operations away: 22 sums and a convolution less, no weight more, one FP16 rounding less for each.
_LESS_WORK = ("fold-time-bias", "fold-quant-conv")

# By the backend that a bundle is meant for. What trades one operation for another is on only where the whole generator
# was measured to be faster, and nothing else is lost. split-upsample saves 2 % of OpenVINO's time in FP32 on a quiet
# CPU, too little to tell (benchmarks/results/cpu_sizes.json). winograd saves 22 %, but costs memory, and digits in FP16
# and BF16. Nothing was measured on a GPU.
DEFAULT_PASSES: dict[str, tuple[str, ...]] = dict.fromkeys(
    ("onnxruntime", "openvino", "tensorrt", "tensorrt-rtx"), _LESS_WORK
)


def default_passes(backend: str) -> tuple[str, ...]:
    """The passes that run for a bundle meant for ``backend`` when ``--passes`` says nothing; none for unknown ones."""
    return DEFAULT_PASSES.get(backend, ())


def chosen_passes(names: tuple[str, ...]) -> list[InPlacePass]:
    """The passes of those names, in the order of ``PASSES`` whatever the order of the names; each once.

    Raises UsageError for a name that is none.
    """
    refuse_unknown_passes(names)
    return [graph_pass.make() for name, graph_pass in PASSES.items() if name in names]


def refuse_unknown_passes(names: tuple[str, ...]) -> None:
    """Raise UsageError for a name that is none of ``PASSES``. Cheap: nothing is loaded."""
    unknown = [name for name in names if name not in PASSES]
    if unknown:
        raise UsageError(
            f"--passes does not know {', '.join(unknown)}",
            expected=", ".join(PASSES),
            got=", ".join(names),
            hint=f"--passes {next(iter(PASSES))}",
        )
