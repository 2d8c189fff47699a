"""A generator of a dozen layers, made by hand: every kind of product that quantisation meets, in milliseconds.

Stages and names are those of an exported one, the picture 16x16. One linear layer's input has a channel that is far
larger than the others, as SmoothQuant's do.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
from edgeturbo.export.passes.half import Half
from edgeturbo.export.precision import is_island

SIZE, CHANNELS, WIDE = 16, 16, 32
OUTLIER = 5  # the channel
UP = {"mode": "nearest", "coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}
ENCODER, UNET, DECODER = "vae_encoder/encoder", "unet/network.down_blocks.0", "vae_decoder/decoder"

FIRST = f"{ENCODER}.conv_in/Conv_0"
DOWN = f"{ENCODER}.down_blocks.0.conv/Conv_0"
LEFT, RIGHT = f"{ENCODER}.mid_block.left/Conv_0", f"{ENCODER}.mid_block.right/Conv_0"  # two that take the same input
NORM = f"{UNET}.norm/LayerNormalization_0"
QUERY, KEY, OUT = (f"{UNET}.{name}/MatMul_0" for name in ("query", "key", "out"))
UPPER = f"{DECODER}.up_blocks.0.conv/Conv_0"
PRODUCTS = (DOWN, LEFT, RIGHT, QUERY, KEY, OUT, UPPER)


def random(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng([seed, *shape]).standard_normal(shape).astype(np.float32)


def _weights() -> dict[str, np.ndarray]:
    def kernel(out: int, inner: int, size: int, seed: int) -> np.ndarray:
        # Rows of very different size, so that one scale for all of them would show.
        spread = np.geomspace(0.02, 1.0, out).astype(np.float32)[:, None, None, None]
        return random(out, inner, size, size, seed=seed) * spread / np.sqrt(inner * size * size)

    gain = np.ones(WIDE, np.float32)
    gain[OUTLIER] = 40
    return {
        "levels": np.float32(127.5), "one": np.float32(1),
        "first.w": kernel(CHANNELS, 3, 3, 1) * 3, "first.b": random(CHANNELS, seed=1),
        "down.w": kernel(WIDE, CHANNELS, 3, 2) * 3, "down.b": random(WIDE, seed=2),
        "left.w": kernel(WIDE, WIDE, 3, 3), "right.w": kernel(WIDE, WIDE, 1, 4), "right.b": random(WIDE, seed=4),
        "rows": np.array([1, WIDE, 64]), "grid": np.array([1, WIDE, 8, 8]),
        "norm.w": gain, "norm.b": random(WIDE, seed=5) * 0.1,
        "query.w": random(WIDE, WIDE, seed=6) / 8, "key.w": random(WIDE, WIDE, seed=7) / 8,
        "out.w": random(WIDE, WIDE, seed=8) / 8,
        "scales": np.float32([1, 1, 2, 2]), "upper.w": kernel(CHANNELS, WIDE, 3, 9) * 2, "upper.b": random(CHANNELS),
        "last.w": kernel(3, CHANNELS, 3, 10), "low": np.float32(-1), "high": np.float32(1),
    }  # fmt: skip


def _nodes() -> list[tuple[str, list[str], str, dict[str, Any]]]:
    same = {"pads": [1, 1, 1, 1]}
    return [
        ("Cast", ["frame"], "frame_in/Cast_0", {"to": onnx.TensorProto.FLOAT}),
        ("Transpose", ["frame_in/Cast_0"], "frame_in/Transpose_0", {"perm": [0, 3, 1, 2]}),
        ("Div", ["frame_in/Transpose_0", "levels"], "frame_in/Div_0", {}),
        ("Sub", ["frame_in/Div_0", "one"], "frame_in/Sub_0", {}),
        ("Conv", ["frame_in/Sub_0", "first.w", "first.b"], FIRST, same),
        ("Sigmoid", [FIRST], f"{ENCODER}.act/Sigmoid_0", {}),
        ("Mul", [FIRST, f"{ENCODER}.act/Sigmoid_0"], f"{ENCODER}.act/Mul_0", {}),
        ("Conv", [f"{ENCODER}.act/Mul_0", "down.w", "down.b"], DOWN, {"pads": [0, 0, 1, 1], "strides": [2, 2]}),
        ("Conv", [DOWN, "left.w"], LEFT, same),
        ("Conv", [DOWN, "right.w", "right.b"], RIGHT, {}),
        ("Add", [LEFT, RIGHT], f"{ENCODER}.mid_block/Add_0", {}),
        ("Reshape", [f"{ENCODER}.mid_block/Add_0", "rows"], "unet/Reshape_0", {}),
        ("Transpose", ["unet/Reshape_0"], "unet/Transpose_0", {"perm": [0, 2, 1]}),
        ("LayerNormalization", ["unet/Transpose_0", "norm.w", "norm.b"], NORM, {"axis": -1}),
        ("MatMul", [NORM, "query.w"], QUERY, {}),
        ("MatMul", [NORM, "key.w"], KEY, {}),
        ("Mul", [QUERY, KEY], f"{UNET}.gate/Mul_0", {}),
        ("MatMul", [f"{UNET}.gate/Mul_0", "out.w"], OUT, {}),
        ("Transpose", [OUT], "unet/Transpose_1", {"perm": [0, 2, 1]}),
        ("Reshape", ["unet/Transpose_1", "grid"], "unet/Reshape_1", {}),
        ("Add", ["unet/Reshape_1", f"{ENCODER}.mid_block/Add_0"], f"{DECODER}.skip/Add_0", {}),
        ("Resize", [f"{DECODER}.skip/Add_0", "", "scales"], f"{DECODER}.up_blocks.0/Resize_0", UP),
        ("Conv", [f"{DECODER}.up_blocks.0/Resize_0", "upper.w", "upper.b"], UPPER, same),
        ("Conv", [UPPER, "last.w"], f"{DECODER}.conv_out/Conv_0", same),
        ("Clip", [f"{DECODER}.conv_out/Conv_0", "low", "high"], "image_unquantised", {}),
        ("Add", ["image_unquantised", "one"], "image_out/Add_0", {}),
        ("Mul", ["image_out/Add_0", "levels"], "image_out/Mul_0", {}),
        ("Transpose", ["image_out/Mul_0"], "image_out/Transpose_0", {"perm": [0, 2, 3, 1]}),
        ("Cast", ["image_out/Transpose_0"], "image", {"to": onnx.TensorProto.UINT8}),
    ]  # fmt: skip


def generator(*, half: bool = False) -> ir.Model:
    """frame uint8 [1,16,16,3] to image uint8 [1,16,16,3], in FP32 or FP16."""
    nodes = [
        onnx.helper.make_node(kind, inputs, [name], name=name if "/" in name else f"image_out/{kind}_9", **more)
        for kind, inputs, name, more in _nodes()
    ]
    shape = (1, SIZE, SIZE, 3)
    graph = onnx.helper.make_graph(
        nodes, "generator",
        [onnx.helper.make_tensor_value_info("frame", onnx.TensorProto.UINT8, shape)],
        [onnx.helper.make_tensor_value_info("image", onnx.TensorProto.UINT8, shape)],
        [onnx.numpy_helper.from_array(_single(value), name) for name, value in _weights().items()],
    )  # fmt: skip
    proto = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 20)], ir_version=10)
    model = ir.from_proto(onnx.shape_inference.infer_shapes(proto, check_type=True, strict_mode=True))
    if half:
        Half(is_island)(model)
    return model


def saved(folder: Path, *, half: bool = False) -> Path:
    """The generator as an export leaves it: a graph and its weights' file beside it."""
    ir.save(generator(half=half), folder / "generator.onnx", external_data="generator.onnx.data")
    return folder / "generator.onnx"


def frames(count: int = 3) -> list[dict[str, np.ndarray]]:
    draw = np.random.default_rng(0)
    return [{"frame": draw.integers(0, 256, (1, SIZE, SIZE, 3), dtype=np.uint8)} for _ in range(count)]


def _single(value: np.ndarray) -> np.ndarray:
    return np.asarray(value, np.int64 if np.issubdtype(np.asarray(value).dtype, np.integer) else np.float32)
