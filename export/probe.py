"""A second look at a saved graph: the same weights on disk, other outputs. The bundle's own files stay as they are."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from ..engines.onnxruntime import LEAN, OnnxRuntimeEngine

if TYPE_CHECKING:
    import onnx_ir as ir


@contextmanager
def probing(model: ir.Model, beside: Path) -> Iterator[OnnxRuntimeEngine]:
    """Run ``model``, loaded from ``beside`` and changed since, through ONNX Runtime with as little memory as it can do.

    The graph runs as it is written: ONNX Runtime's own rewriting would widen every FP16 weight at once, 3.6 GB at full
    size, and change nothing that is to be checked.
    The graph is written beside the original, where its external data lies, and removed afterwards.
    """
    import onnx_ir as ir

    path = beside.with_name(f".{beside.stem}.probe.onnx")
    try:
        path.write_bytes(ir.to_proto(model).SerializeToString())
        with OnnxRuntimeEngine(path, options=replace(LEAN, optimise=False)) as engine:
            yield engine
    finally:
        path.unlink(missing_ok=True)
