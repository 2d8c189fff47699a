"""What the full-size measurement is made with, on a bundle that takes no time."""

from __future__ import annotations

import numpy as np
from edgeturbo.benchmarks.commands import run_command
from edgeturbo.engines.base import TensorSpec
from edgeturbo.engines.bundle import ONNX, ONNX_DATA, staging
from edgeturbo.engines.manifest import FrameRules, Manifest, Model, Provenance
from PIL import Image


def test_a_command_is_run_and_watched(tmp_path):
    picture = (1, 16, 16, 3)
    manifest = Manifest(
        edgeturbo="0.1.0", model=Model("cyclegan-turbo", "a2b", "", None, "mean", "fp32", 20, 16, 16, 1),
        frame_rules=FrameRules("raw", "squash"), inputs=(TensorSpec("frame", "uint8", picture),),
        outputs=(TensorSpec("image", "uint8", picture),), provenance=Provenance("x", "0", "b", "r", "c", {}),
    )  # fmt: skip
    with staging(tmp_path / "bundle", force=False) as staged:
        for name in (ONNX, ONNX_DATA):
            (staged.root / name).write_bytes(b"nothing")
        staged.seal(manifest)
    frame = tmp_path / "frame.png"
    Image.fromarray(np.zeros((16, 16, 3), np.uint8)).save(frame)
    words = [str(tmp_path / "bundle"), str(frame), str(tmp_path / "out.png"), "--engine", "null"]
    ran = run_command("run", words)
    assert (ran.exit, ran.error) == (0, None)
    assert (ran.result["engine"], len(ran.result["pictures"])) == ("null", 1)
    assert ran.seconds > 0
    assert ran.peak_rss_bytes > 0
