"""Makes the pictures of docs/precision.md: ``python tests/precision_pictures.py docs/images``. It takes a few minutes.

The bundled demo checkpoint with one convolution of its decoder 30,000 times as large, which the normalisation behind it
takes back. The crops are at 200 %: the unmerged PyTorch reference in FP32, and the repaired and the unrepaired FP16
graph, both in true FP16 (``torch_graph``).
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import numpy as np
import torch
import torch_graph
from edgeturbo.engines.bundle import ONNX
from edgeturbo.engines.parity import psnr
from edgeturbo.export.demo import demo_base, demo_checkpoint, demo_frames
from edgeturbo.export.oracle import pytorch_engine
from edgeturbo.export.recipe import ExportOptions
from edgeturbo.runtime.image import load_frame
from PIL import Image
from unrepaired import export_keeping

_LAYER, _FACTOR = "vae.decoder.up_blocks.1.resnets.1.conv1", 3e4
_SIZE = 512
_CROP = (150, 190, 342, 382)  # left, upper, right, lower
_GAP = 8


def main(out: Path) -> None:
    with tempfile.TemporaryDirectory() as folder:
        pictures = _pictures(Path(folder))
    panels = [Image.fromarray(picture).crop(_CROP) for picture in pictures]
    panels = [panel.resize((2 * panel.width, 2 * panel.height), Image.Resampling.NEAREST) for panel in panels]
    width, height = panels[0].size
    sheet = Image.new("RGB", (len(panels) * (width + _GAP) - _GAP, height), "white")
    for index, panel in enumerate(panels):
        sheet.paste(panel, (index * (width + _GAP), 0))
    sheet.save(out / "precision_overflow.jpg", quality=88)


def _pictures(folder: Path) -> list[np.ndarray]:
    """uint8 RGB: FP32, repaired FP16, unrepaired FP16."""
    ckpt, bundle = _overflowing(folder), folder / "bundle"
    options = ExportOptions(
        ckpt, bundle, str(demo_base()), width=_SIZE, height=_SIZE, direction="a2b",
        prompt="driving in the night", precision="fp16", engine="onnx", parity_frames=1,
    )  # fmt: skip
    report = export_keeping(options, folder, lambda event: _say(event.text))
    frame = np.array(Image.fromarray(load_frame(demo_frames()[0])).resize((_SIZE, _SIZE), Image.Resampling.LANCZOS))
    with pytorch_engine(bundle, ckpt, str(demo_base())) as oracle:
        exact = oracle.run({"frame": frame[None]})["image"][0].copy()
    pictures = [exact]
    for onnx in (bundle / ONNX, folder / ONNX):
        image, broken = torch_graph.run(onnx, {"frame": frame[None]}, "image")
        pictures.append(image[0].numpy())
        _say(f"{psnr(pictures[-1], exact, peak=255.0)} dB, {len(broken)} tensors not finite, the first {broken[:1]}")
    _say(f"{report.bundle.manifest.parity}")
    return pictures


def _overflowing(folder: Path) -> Path:
    content = torch.load(demo_checkpoint(), weights_only=True)
    for part in ("sd_vae_enc", "sd_vae_dec"):
        for name in ("base_layer.weight", "base_layer.bias", "lora_B.vae_skip.weight"):
            content[part][f"{_LAYER}.{name}"] = content[part][f"{_LAYER}.{name}"].float() * _FACTOR
    torch.save(content, folder / "overflow.pkl")
    return folder / "overflow.pkl"


def _say(text: str) -> None:
    sys.stderr.write(f"{text}\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
