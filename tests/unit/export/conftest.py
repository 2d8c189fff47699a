"""What the export tests share: tiny models written once, graphs made by hand, and the only exports they make."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest
import torch
from edgeturbo.engines.errors import RangeError
from edgeturbo.export.base import BaseModel, open_base
from edgeturbo.export.recipe import ExportOptions
from edgeturbo.export.session import export_bundle
from exports import Exported, export_into, export_once, place, read_export
from shared import once
from tiny import GOLDEN, GOLDEN_BASE, Tiny

PROMPT = "a prompt"

# Tiny tensors gain nothing from a second thread, and wait for it on a busy machine.
torch.set_num_threads(1)


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Tiny:
    return Tiny(once(tmp_path_factory, "tiny", lambda _: None))


@pytest.fixture(scope="session")
def golden_base() -> BaseModel:
    return open_base(str(GOLDEN_BASE))


@pytest.fixture
def edited(tmp_path: Path) -> Callable[..., Path]:
    """``edited(path, change)``: a copy of a checkpoint whose content ``change`` was applied to."""

    def make(path: Path, change: Callable[[dict[str, Any]], object], name: str = "edited.pkl") -> Path:
        content = torch.load(path, weights_only=True)
        change(content)
        torch.save(content, tmp_path / name)
        return tmp_path / name

    return make


@dataclass
class Overflow:
    """An export that the range ledger refused, over a folder where something stood before."""

    error: RangeError
    out: Path
    before: dict[str, bytes]
    after: dict[str, bytes] = field(default_factory=dict)


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def overflowing(folder: Path) -> Path:
    """The golden checkpoint with the delta that makes a convolution overflow, and compute the same."""
    content = torch.load(GOLDEN / "cyclegan.pkl", weights_only=True)
    for part, delta in torch.load(GOLDEN / "cyclegan_overflow_delta.pt", weights_only=True).items():
        content[part].update(delta)
    torch.save(content, folder / "overflow.pkl")
    return folder / "overflow.pkl"


def overflow_options(ckpt: Path, out: Path) -> ExportOptions:
    return ExportOptions(
        ckpt, out, str(GOLDEN_BASE), "driving in the night", "a2b",
        width=64, height=64, precision="fp16", engine="onnx", parity_frames=1, force=True,
    )  # fmt: skip


def overflowing_in_several_places(folder: Path) -> Path:
    """The golden checkpoint with weights far too large for FP16, each where something behind brings it back.

    Convolutions of the VAE's encoder, the UNet and the decoder in front of a normalisation; in the encoder's attention
    what the values have too much, the output projection has too little.
    """
    content = torch.load(GOLDEN / "cyclegan.pkl", weights_only=True)
    attention = "encoder.mid_block.attentions.0"
    whole = ("base_layer.weight", "base_layer.bias", "lora_B.vae_skip.weight")
    for part in ("sd_vae_enc", "sd_vae_dec"):
        for name, weights, factor in (
            ("encoder.mid_block.resnets.0.conv1", whole, 3e4),
            (f"{attention}.to_v", whole, 6e4),
            (f"{attention}.to_out.0", whole[::2], 1 / 6e4),
            ("decoder.mid_block.resnets.1.conv1", whole, 3e4),
        ):
            for weight in weights:
                content[part][f"vae.{name}.{weight}"] *= factor
    content["sd_encoder"]["down_blocks.1.resnets.0.conv1.lora_B.weight"] *= 1e7
    torch.save(content, folder / "several.pkl")
    return folder / "several.pkl"


@pytest.fixture(scope="session")
def several(tmp_path_factory: pytest.TempPathFactory) -> Exported:
    """The golden that overflows in four places at once, exported in FP16."""
    ckpt = once(tmp_path_factory, "several.pkl", overflowing_in_several_places) / "several.pkl"
    return export_once(tmp_path_factory, "several", lambda out: overflow_options(ckpt, out), keep=True)


@pytest.fixture(scope="session")
def sound(tiny: Tiny, tmp_path_factory: pytest.TempPathFactory) -> Exported:
    """A tiny FP16 bundle of a checkpoint that fits."""
    return export_once(
        tmp_path_factory, "sound", lambda out: replace(tiny_options(tiny, out), precision="fp16"), keep=True
    )


@pytest.fixture(scope="session")
def hopeless(tmp_path_factory: pytest.TempPathFactory) -> Overflow:
    """A checkpoint with a weight that is no number, refused while an old bundle stands."""
    folder = tmp_path_factory.mktemp("hopeless")
    content = torch.load(GOLDEN / "cyclegan.pkl", weights_only=True)
    for part in ("sd_vae_enc", "sd_vae_dec"):
        content[part]["vae.decoder.up_blocks.1.resnets.1.conv1.base_layer.weight"][0, 0, 0, 0] = float("nan")
    torch.save(content, folder / "hopeless.pkl")
    out = folder / "parent" / "bundle"
    out.mkdir(parents=True)
    # All that --force looks for; that it is no bundle of ours shows that nothing reads or rewrites it.
    (out / "manifest.json").write_text("{}")
    (out / "generator.onnx").write_bytes(b"the earlier one")
    before = contents(out.parent)
    with pytest.raises(RangeError) as caught:
        export_bundle(overflow_options(folder / "hopeless.pkl", out))
    return Overflow(caught.value, out, before, contents(out.parent))


def tiny_options(tiny: Tiny, out: Path) -> ExportOptions:
    return ExportOptions(
        tiny.cyclegan(), out, str(tiny.base), PROMPT, "a2b",
        width=64, height=64, precision="fp32", engine="onnx", parity_frames=1, command="turbo-export …",
    )  # fmt: skip


@pytest.fixture(scope="session")
def exports(tiny: Tiny, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``overflow``, then in the same process ``exported``, in whose bytes that must not show, and again in another."""

    def make(folder: Path) -> None:
        names = ("overflow", "exported", "child")
        for name in names:
            (folder / name).mkdir()
        first, second, other = (folder / name for name in names)
        code = (
            "from pathlib import Path; from edgeturbo.export.recipe import ExportOptions; "
            "from edgeturbo.export.session import export_bundle; "
            f"export_bundle(ExportOptions(**{vars(tiny_options(tiny, place(other)))!r}))"
        ).replace("PosixPath(", "Path(")
        with subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.PIPE, text=True) as child:
            export_into(first, overflow_options(overflowing(folder), place(first)))
            export_into(second, tiny_options(tiny, place(second)))
            _, errors = child.communicate()
        assert child.returncode == 0, errors

    return once(tmp_path_factory, "exports", make)


@pytest.fixture(scope="session")
def overflow(exports: Path) -> Exported:
    """The golden that overflows, exported in FP16."""
    return read_export(exports / "overflow", overflow_options(exports / "overflow.pkl", place(exports / "overflow")))


@pytest.fixture(scope="session")
def exported(exports: Path, tiny: Tiny) -> Exported:
    """A tiny FP32 bundle."""
    return read_export(exports / "exported", tiny_options(tiny, place(exports / "exported")))


@pytest.fixture(scope="session")
def exported_elsewhere(exports: Path) -> Path:
    """The bundle of ``exported``, as another process makes it."""
    return place(exports / "child")


Node = tuple[str, list[str], str, dict[str, Any]]


@pytest.fixture
def graph() -> Callable[..., ir.Model]:
    """A graph made by hand, in FP32: nodes are (operator, inputs, name of node and output, attributes)."""

    def make(
        nodes: list[Node],
        weights: dict[str, Any] | None = None,
        *,
        frame: tuple[int, ...] = (1, 2, 4, 3),
        output: tuple[int, tuple[int, ...] | None] = (onnx.TensorProto.UINT8, (1, 2, 4, 3)),
    ) -> ir.Model:
        made = [
            onnx.helper.make_node(operator, inputs, [name], name=name, **attributes)
            for operator, inputs, name, attributes in nodes
        ]
        model = onnx.helper.make_model(
            onnx.helper.make_graph(
                made,
                "generator",
                [onnx.helper.make_tensor_value_info("frame", onnx.TensorProto.UINT8, frame)],
                [onnx.helper.make_tensor_value_info(nodes[-1][2], *output)],
                [onnx.numpy_helper.from_array(np.asarray(value), name) for name, value in (weights or {}).items()],
            ),
            opset_imports=[onnx.helper.make_opsetid("", 20)],
            ir_version=10,
        )
        return ir.from_proto(onnx.shape_inference.infer_shapes(model, check_type=True, strict_mode=True))

    return make
