"""The common row: the one way to run the generator that every stage on a machine repeats.

On a GPU that is PyTorch eager FP16, merged, with the prompt's embedding kept: the strongest form of the reference that
needs no compiler. A GPU machine without PyTorch repeats the bundle's first usable engine instead. On a CPU it is ONNX
Runtime. The row's own name says which it was; ratios across machines of different common rows do not compare.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from ...engines.bundle import Bundle
from ...engines.errors import MissingComponentError
from ...engines.onnxruntime import OnnxRuntimeEngine, OnnxRuntimeOptions
from . import needs
from .bench import Bench
from .subject import engine_subject

if TYPE_CHECKING:
    from .bench import Opener
    from .context import Context
    from .pytorch_stages import Rival

PYTORCH_COMMON = "PyTorch eager fp16, merged, prompt kept"


def common_row(context: Context, bench: Bench, rival: Rival | None = None) -> Opener:
    """``rival``: PyTorch's subjects, if the stage has read their weights already.

    Raises MissingComponentError where nothing here can be the common row.
    """
    options = context.options
    if options.device == "cpu":
        return onnxruntime_row(context, bench, "cpu")
    if needs.MODEL(options) is None and needs.weights(options) is None:
        from .pytorch_stages import Rival

        try:
            return partial((rival or Rival.of(context, bench)).merged, "fp16")
        except MissingComponentError as error:
            context.note(f"the common row is not PyTorch's: {error.what}")
    return _first_engine(context, bench)


def onnxruntime_row(context: Context, bench: Bench, device: str) -> Opener:
    """The bundle through ONNX Runtime on ``device``, its graph rewriting and all else at its defaults."""
    onnx = Bundle.open(context.options.bundle).onnx()
    engine = OnnxRuntimeEngine(onnx, options=OnnxRuntimeOptions(device=device))
    name = "ONNX Runtime CUDA fp16" if device == "cuda" else "ONNX Runtime CPU, fp16 graph"
    return partial(engine_subject, name, "fp16", engine, bench.frame)


def _first_engine(context: Context, bench: Bench) -> Opener:
    from ...engines import onnxruntime, tensorrt
    from .engine_stages import plan_row

    if tensorrt.unusable_reason() is None:
        return plan_row(context, bench, "tensorrt")
    if onnxruntime.cuda_problem() is None:
        return onnxruntime_row(context, bench, "cuda")
    raise MissingComponentError(
        "no PyTorch, TensorRT or ONNX Runtime here can use the GPU: there is no common row to measure against",
        hint="pip install one of them",
    )
