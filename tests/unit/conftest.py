"""Small real bundles: an ONNX graph that inverts the frame, sealed with a manifest as an export seals one."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from edgeturbo.engines.base import TensorSpec
from edgeturbo.engines.bundle import ONNX, ONNX_DATA, Bundle, staging
from edgeturbo.engines.manifest import FrameRules, Manifest, Model, Provenance

BundleMaker = Callable[..., Bundle]
FrameMaker = Callable[..., np.ndarray]


@pytest.fixture
def make_frame() -> FrameMaker:
    def make(height: int = 48, width: int = 64, seed: int = 0) -> np.ndarray:
        return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)

    return make


@pytest.fixture
def make_bundle(tmp_path: Path) -> BundleMaker:
    """``image = 255 - frame + 50 * (mean of noise's and of posterior_noise's first three channels)``, clipped."""

    def make(
        name: str = "bundle",
        *,
        size: tuple[int, int] = (64, 48),
        batch: int = 1,
        rules: tuple[str, str] = ("raw", "squash"),
        noises: tuple[str, ...] = (),
        force: bool = False,
    ) -> Bundle:
        width, height = size
        picture = (batch, height, width, 3)
        latent = (batch, 4, height // 8, width // 8)
        manifest = Manifest(
            edgeturbo="0.1.0",
            model=Model("cyclegan-turbo", "a2b", "a prompt", None, "mean", "fp32", 20, width, height, batch),
            frame_rules=FrameRules(*rules),
            inputs=(TensorSpec("frame", "uint8", picture), *(TensorSpec(n, "float32", latent) for n in noises)),
            outputs=(TensorSpec("image", "uint8", picture),),
            provenance=Provenance("x.pkl", "00", "base", "main", "turbo-export", {}),
        )
        out = tmp_path / name
        with staging(out, force=force) as staged:
            save_inverter(staged.root / ONNX, picture, dict.fromkeys(noises, latent))
            staged.seal(manifest)
        return Bundle.open(out)

    return make


def save_inverter(
    path: Path, picture: tuple[int | str, ...], noises: dict[str, tuple[int, ...]] | None = None, bits: int = 8
) -> None:
    """Write the graph with its constant 255 as external data, as a real generator has its weights."""
    import onnx
    from onnx import TensorProto as T
    from onnx import helper, numpy_helper

    weights = [numpy_helper.from_array(np.full((1, 1, 1, 3), 255, np.float32), "white")]
    weights += [numpy_helper.from_array(np.float32(value), name) for name, value in (("zero", 0), ("high", 255))]
    weights.append(numpy_helper.from_array(np.float32(50), "gain"))
    nodes = [
        # Not among the weights: shape inference reads these, and cannot read external data.
        helper.make_node("Constant", [], ["from"], value_ints=[0]),
        helper.make_node("Constant", [], ["to"], value_ints=[3]),
        helper.make_node("Constant", [], ["axis"], value_ints=[1]),
        helper.make_node("Cast", ["frame"], ["f"], to=T.FLOAT),
        helper.make_node("Sub", ["white", "f"], ["x0"]),
    ]
    for i, name in enumerate(noises or {}):
        nodes += [
            helper.make_node("GlobalAveragePool", [name], [f"m{i}"]),
            helper.make_node("Slice", [f"m{i}", "from", "to", "axis"], [f"s{i}"]),
            helper.make_node("Transpose", [f"s{i}"], [f"t{i}"], perm=[0, 2, 3, 1]),
            helper.make_node("Mul", [f"t{i}", "gain"], [f"g{i}"]),
            helper.make_node("Add", [f"x{i}", f"g{i}"], [f"x{i + 1}"]),
        ]
    nodes += [
        helper.make_node("Clip", [f"x{len(noises or {})}", "zero", "high"], ["y"]),
        helper.make_node("Cast", ["y"], ["image"], to=T.UINT8 if bits == 8 else T.UINT16),
    ]
    inputs = [helper.make_tensor_value_info("frame", T.UINT8, picture)]
    inputs += [helper.make_tensor_value_info(name, T.FLOAT, shape) for name, shape in (noises or {}).items()]
    outputs = [helper.make_tensor_value_info("image", T.UINT8 if bits == 8 else T.UINT16, picture)]
    graph = helper.make_graph(nodes, "inverter", inputs, outputs, weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)
    onnx.checker.check_model(model)
    onnx.save_model(
        model, str(path), save_as_external_data=True, location=ONNX_DATA, size_threshold=0, convert_attribute=False
    )


@pytest.fixture
def save_graph() -> Callable[..., None]:
    return save_inverter
