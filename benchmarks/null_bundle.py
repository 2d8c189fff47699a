"""A bundle without a network, for the null engine: what remains of a run is the runtime's own work."""

from __future__ import annotations

from importlib import metadata
from pathlib import Path

from ..engines.base import TensorSpec
from ..engines.bundle import ONNX, ONNX_DATA, Bundle, staging
from ..engines.manifest import FRAME, IMAGE, FrameRules, Manifest, Model, Provenance


def null_bundle(out: Path, width: int, height: int) -> Bundle:
    """Write one for frames of ``width`` x ``height`` pixels to ``out``, replacing a bundle there.

    Only ``Translator(out, engine="null")`` can run it: its ONNX files are empty.
    """
    picture = (1, height, width, 3)
    manifest = Manifest(
        edgeturbo=metadata.version("edgeturbo"),
        model=Model("null", None, "", None, "mean", "fp32", 20, width, height, 1),
        frame_rules=FrameRules("raw", "squash"),
        inputs=(TensorSpec(FRAME, "uint8", picture),),
        outputs=(TensorSpec(IMAGE, "uint8", picture),),
        provenance=Provenance("none", "none", "none", "none", "edgeturbo.benchmarks", {}),
    )
    with staging(out, force=True) as staged:
        for name in (ONNX, ONNX_DATA):
            (staged.root / name).touch()
        return Bundle(out, staged.seal(manifest).manifest)
