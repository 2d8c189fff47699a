"""Precision in a weakly typed network (TensorRT 8.6): FP16 wherever it is faster, FP32 where the manifest says so."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ._build_job import Job

_log = logging.getLogger(__name__)

# onnx-tensorrt 8.6 (``processMetadata``) writes "[ONNX Layer: <node name>]", with " | <property>" after the name.
_METADATA = re.compile(r"\[ONNX Layer: (?P<node>.*?)(?: \||\]|\x1e)")
_NAMED = 5


def constrain(trt: Any, config: Any, network: Any, job: Job) -> None:
    """Allow FP16 as a whole, and oblige the layers of ``job.fp32_islands`` to compute and answer in FP32.

    ``OBEY_PRECISION_CONSTRAINTS``, not ``PREFER_...``: the latter may fall back to FP16 with no more than a line in
    the log, and an FP32 implementation of every float layer exists. An FP32 bundle gets no FP16 at all, so needs
    neither.
    """
    if job.precision != "fp16":
        return
    config.set_flag(trt.BuilderFlag.FP16)
    if not job.fp32_islands:
        return
    config.set_flag(trt.BuilderFlag.OBEY_PRECISION_CONSTRAINTS)
    found = {island for layer, island in _layers_of(network, job.fp32_islands) if _pin(trt, layer)}
    missed = [island for island in job.fp32_islands if island not in found]
    _log.info("%d of %d FP32 islands are pinned to FP32", len(found), len(job.fp32_islands))
    if missed:
        names = ", ".join(missed[:_NAMED]) + (", ..." if len(missed) > _NAMED else "")
        _log.warning("%d FP32 islands match no float layer of the network and are not pinned: %s", len(missed), names)


def _layers_of(network: Any, islands: tuple[str, ...]) -> Iterator[tuple[Any, str]]:
    """Each layer that was made for an island's node, with that island."""
    known = set(islands)
    # The longest first: "x0/Add_1" must not take what belongs to "x0/Add_1_2".
    names = "|".join(re.escape(name) for name in sorted(islands, key=len, reverse=True))
    begins = re.compile(rf"(?P<node>{names})(?=$|[_ ])")
    for index in range(network.num_layers):
        layer = network.get_layer(index)
        # Helpers of a node are named after it; the metadata says the same exactly, where the parser wrote it.
        said = _METADATA.match(layer.metadata or "") or begins.match(layer.name)
        if said is not None and said["node"] in known:
            yield layer, said["node"]


def _pin(trt: Any, layer: Any) -> bool:
    """Whether ``layer`` answers in a float type, and is now obliged to FP32. Integers and uint8 stay as they are.

    A cast's types are what it is for: it is left alone, and counts when it answers in FP32.
    """
    floats = [
        index
        for index in range(layer.num_outputs)
        if layer.get_output(index).dtype in (trt.DataType.FLOAT, trt.DataType.HALF)
    ]
    if layer.type == trt.LayerType.CAST:
        return bool(floats) and layer.get_output(0).dtype == trt.DataType.FLOAT
    if not floats:
        return False
    layer.precision = trt.DataType.FLOAT
    for index in floats:
        layer.set_output_type(index, trt.DataType.FLOAT)
    return True
