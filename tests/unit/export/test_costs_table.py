"""The cost table of a graph: against torch's flop counter on a whole generator, and by hand on graphs small enough."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from edgeturbo.benchmarks.gpu_check.flops import generator_flops
from edgeturbo.benchmarks.synthetic import on_meta
from edgeturbo.engines.bundle import ONNX
from edgeturbo.engines.costs import Costs, Growth, by_stage, read_costs
from edgeturbo.engines.errors import BundleError
from edgeturbo.export.costs import cost_table, write_costs
from edgeturbo.export.stages import STAGES

TOKENS = 77


def folded(base: Path) -> int:
    """What the UNet loses because prompt and time are constants, at any size: the prompt's keys and values, the time
    embedding and its projections."""
    operations = 0
    for name, module in on_meta(base, "unet").named_modules():
        if name.endswith(("attn2.to_k", "attn2.to_v")):
            operations += 2 * TOKENS * module.in_features * module.out_features
        elif name.endswith(("time_emb_proj", "time_embedding.linear_1", "time_embedding.linear_2")):
            operations += 2 * module.in_features * module.out_features
    return operations


def folded_quant_conv(base: Path, pixels: int) -> int:
    """What the encoder loses to the pass fold-quant-conv: quant_conv for the mean, and conv_out for the variance."""
    vae = on_meta(base, "vae")
    inner, outer = vae.encoder.conv_out, vae.quant_conv
    latent = (pixels // 8) ** 2
    return 2 * latent * (inner.in_channels * 9 * inner.out_channels // 2 + outer.in_channels * outer.out_channels // 2)


@pytest.fixture(scope="module")
def table(exported, tmp_path_factory) -> Costs:
    """Of a tiny FP32 export at 64x64, from a copy without the weights' file."""
    alone = tmp_path_factory.mktemp("costs") / "alone.onnx"
    alone.write_bytes((exported.root / ONNX).read_bytes())
    return cost_table(alone)


@pytest.mark.parametrize("pixels", [64, 128, 192])
def test_operations_are_torchs_less_what_was_folded_at_any_size(table, tiny, pixels):
    """Exactly: both count the same products, and nothing else is missing. 128 and 192 are scaled from 64."""
    counted, scale = generator_flops(tiny.base, pixels), table.scale(pixels, pixels)
    ours = {
        stage: sum(item.nodes * item.flops.at(scale) for item in table.work if item.stage == stage) for stage in STAGES
    }
    assert ours["vae_encoder"] == counted["vae_encoder"] - folded_quant_conv(tiny.base, pixels)
    assert ours["vae_decoder"] == counted["vae_decoder"]
    assert ours["unet"] == counted["unet"] - folded(tiny.base)
    assert ours["frame_in"] + ours["latent"] + ours["x0"] + ours["image_out"] == 0


def test_weights_stages_and_types_are_the_graphs(table, exported):
    graph = ir.load(exported.root / ONNX).graph
    assert (table.width, table.height, table.batch) == (64, 64, 1)
    assert table.weights == sum(value.const_value.nbytes for value in graph.initializers.values())
    assert sum(item.nodes for item in table.work) == len(graph)
    assert [line.name for line in by_stage(table)] == [*STAGES, "total"]
    assert {item.dtype for item in table.work if item.flops.at()} == {"float32"}
    assert not [item.example for item in table.work if item.kind == "other"]


def test_only_self_attention_grows_as_the_square(table):
    quadratic = {item.example for item in table.work if item.flops.quadratic}
    assert quadratic
    assert all("attn1" in name or "mid_block.attentions" in name for name in quadratic)
    cross = [item for item in table.work if item.kind == "attention" and "attn2" in item.example]
    assert cross
    assert not any(item.flops.quadratic or item.written.quadratic for item in cross)


def test_the_table_is_small_and_is_written_as_it_is_returned(exported, tmp_path, table):
    path = tmp_path / "costs.json"
    assert write_costs(exported.root / ONNX, path) == table == read_costs(path)
    assert path.stat().st_size < 100_000


ATTENTION = [
    ("Cast", ["frame"], "frame_in/Cast_0", {"to": onnx.TensorProto.FLOAT}),
    ("Transpose", ["frame_in/Cast_0"], "frame_in/Transpose_0", {"perm": [0, 3, 1, 2]}),
    ("Conv", ["frame_in/Transpose_0", "kernel"], "vae_encoder/Conv_0", {"pads": [1, 1, 1, 1]}),
    ("Reshape", ["vae_encoder/Conv_0", "flat"], "unet/Reshape_0", {}),
    ("Transpose", ["unet/Reshape_0"], "unet/Transpose_0", {"perm": [0, 2, 1]}),
    ("MatMul", ["unet/Transpose_0", "unet/Reshape_0"], "unet/scores", {}),
    ("Softmax", ["unet/scores"], "unet/Softmax_0", {}),
    ("MatMul", ["unet/Softmax_0", "unet/Transpose_0"], "unet/attended", {}),
    ("MatMul", ["unet/attended", "project"], "unet/projected", {}),
    ("MatMul", ["unet/projected", "keys"], "unet/cross", {}),
    ("Cast", ["unet/cross"], "image_out/Cast_0", {"to": onnx.TensorProto.UINT8}),
]


WEIGHTS = {
    "kernel": np.full((5, 3, 3, 3), 0.5, np.float32), "flat": np.array([1, 5, -1]),
    "project": np.full((5, 7), 0.5, np.float32), "keys": np.full((1, 7, 11), 0.5, np.float32),
}  # fmt: skip


@pytest.fixture
def attention(graph, tmp_path) -> Callable[..., Costs]:
    """A convolution to 5 channels, self-attention over all pixels, a projection to 7 channels, a product with keys."""

    def count(height: int = 2, width: int = 4) -> Costs:
        model = graph(
            ATTENTION, WEIGHTS, frame=(1, height, width, 3), output=(onnx.TensorProto.UINT8, (1, height * width, 11))
        )
        path = tmp_path / f"{height}x{width}.onnx"
        ir.save(model, path)
        return cost_table(path)

    return count


def entry(costs, name):
    return next(item for item in costs.work if item.example == name)


def test_each_node_by_hand(attention):
    costs = attention()
    conv, scores, cross = (entry(costs, name) for name in ("vae_encoder/Conv_0", "unet/scores", "unet/cross"))
    assert (conv.kind, conv.flops) == ("conv", Growth(0, 2 * (5 * 8) * (3 * 9)))
    assert (conv.read, conv.written, conv.weights) == (Growth(0, 3 * 8 * 4), Growth(0, 5 * 8 * 4), 5 * 3 * 9 * 4)
    assert (scores.kind, scores.flops) == ("attention", Growth(0, 0, 2 * 8 * 8 * 5))
    assert (scores.read, scores.written) == (Growth(0, 2 * 5 * 8 * 4), Growth(0, 0, 8 * 8 * 4))
    softmax, attended = entry(costs, "unet/Softmax_0"), entry(costs, "unet/attended")
    assert (softmax.kind, softmax.read, softmax.flops) == ("attention", Growth(0, 0, 8 * 8 * 4), Growth())
    assert (attended.flops, attended.written) == (Growth(0, 0, 2 * 8 * 5 * 8), Growth(0, 8 * 5 * 4))
    projected = entry(costs, "unet/projected")
    assert (projected.kind, projected.flops, projected.weights) == ("matmul", Growth(0, 2 * 8 * 7 * 5), 5 * 7 * 4)
    assert (cross.kind, cross.flops, cross.weights) == ("attention", Growth(0, 2 * 8 * 11 * 7), 7 * 11 * 4)
    cast = entry(costs, "image_out/Cast_0")
    assert (cast.kind, cast.dtype, cast.read, cast.written) == (
        "movement", "uint8", Growth(0, 8 * 11 * 4), Growth(0, 8 * 11),
    )  # fmt: skip


def test_a_view_moves_nothing_and_keeps_what_it_names_alive(attention):
    costs = attention()
    view = entry(costs, "unet/Reshape_0")
    assert (view.read, view.written) == (Growth(), Growth())
    frame, pixels = 3 * 8, 8 * 4
    # While the scores are made: the frame, the convolution's output under its new name, its transposed copy and the
    # scores. While the softmax runs: the frame, the copy, twice the scores. At last: the frame, what the product with
    # the keys reads and what it writes.
    assert set(costs.live) == {
        Growth(0, frame + 2 * 5 * pixels, 8 * 8 * 4),
        Growth(0, frame + 5 * pixels, 2 * 8 * 8 * 4),
        Growth(0, frame + 7 * pixels + 11 * pixels),
    }


def test_a_view_and_what_it_names_are_alive_once(graph, tmp_path):
    """Convolution and its reshaped view are both needed later; while the product runs there are three such tensors."""
    nodes = [
        *ATTENTION[:4],
        ("Sigmoid", ["unet/Reshape_0"], "unet/Sigmoid_0", {}),
        ("Mul", ["unet/Sigmoid_0", "unet/Reshape_0"], "unet/Mul_0", {}),
        ("Reshape", ["unet/Mul_0", "back"], "unet/Reshape_1", {}),
        ("Add", ["vae_encoder/Conv_0", "unet/Reshape_1"], "unet/Add_0", {}),
        ("Cast", ["unet/Add_0"], "image_out/Cast_0", {"to": onnx.TensorProto.UINT8}),
    ]
    weights = {name: WEIGHTS[name] for name in ("kernel", "flat")} | {"back": np.array([1, 5, 2, 4])}
    ir.save(graph(nodes, weights, output=(onnx.TensorProto.UINT8, (1, 5, 2, 4))), tmp_path / "g.onnx")
    assert cost_table(tmp_path / "g.onnx").live == (Growth(0, 3 * 8 + 3 * (5 * 8 * 4)),)


def test_a_table_scaled_to_another_size_is_that_sizes_table(attention):
    small, large = attention(2, 4), attention(4, 6)
    scale = small.scale(6, 4)
    assert scale == 3.0
    assert len(small.work) == len(large.work)
    for one, other in zip(small.work, large.work, strict=True):
        assert one.flops.at(scale) == other.flops.at()
        assert one.read.at(scale) == other.read.at()
        assert one.written.at(scale) == other.written.at()
        assert one.weights == other.weights
    assert small.peak_live(scale) == large.peak_live()


def test_a_fused_attention_costs_what_its_two_products_cost(tmp_path):
    """Opset 23's Attention: 2 heads of 4 over 6 pixels, once 4-D and once with the heads packed."""
    counted = []
    for shape, packed in (((1, 2, 6, 4), {}), ((1, 6, 8), {"q_num_heads": 2, "kv_num_heads": 2})):
        counted.append(_fused(tmp_path, shape, packed))
    assert counted[0] == counted[1] == Growth(0, 0, 2 * (2 * 2 * 6 * 6 * 4))


def _fused(folder, shape, packed) -> Growth:
    nodes = [
        onnx.helper.make_node("Conv", ["frame", "k"], ["c"], name="vae_encoder/Conv_0"),
        onnx.helper.make_node("Reshape", ["c", "shape"], ["q"], name="unet/Reshape_0"),
        onnx.helper.make_node("Attention", ["q", "q", "q"], ["y"], name="unet/Attention_0", **packed),
    ]
    model = onnx.helper.make_model(
        onnx.helper.make_graph(
            nodes,
            "g",
            [onnx.helper.make_tensor_value_info("frame", 1, (1, 3, 2, 3))],
            [onnx.helper.make_tensor_value_info("y", 1, shape)],
            [
                onnx.helper.make_tensor("k", 1, (8, 3, 1, 1), [0.5] * 24),
                onnx.helper.make_tensor("shape", 7, [len(shape)], shape),
            ],
        ),
        opset_imports=[onnx.helper.make_opsetid("", 23)],
        ir_version=11,
    )
    path = folder / f"fused-{len(shape)}.onnx"
    onnx.save(onnx.shape_inference.infer_shapes(model, strict_mode=True), path)
    return entry(cost_table(path), "unet/Attention_0").flops


def test_grouped_transposed_and_quantised_nodes(tmp_path):
    """A grouped convolution sums over its own group; a transposed one multiplies every input; QDQ computes in INT8."""
    make = onnx.helper.make_node
    nodes = [
        make("QuantizeLinear", ["frame", "scale", "zero"], ["q"], name="vae_encoder/Q_0"),
        make("DequantizeLinear", ["q", "scale", "zero"], ["dq"], name="vae_encoder/DQ_0"),
        make("Conv", ["dq", "k"], ["c"], name="vae_encoder/Conv_0", group=2),
        make("ConvTranspose", ["c", "t"], ["d"], name="vae_decoder/ConvTranspose_0", strides=[2, 2]),
        make("Mish", ["d"], ["y"], name="image_out/Mish_0"),
    ]
    weights = [
        onnx.helper.make_tensor("scale", 1, [], [0.1]),
        onnx.helper.make_tensor("zero", 3, [], [0]),
        onnx.helper.make_tensor("k", 1, (6, 2, 1, 1), [0.5] * 12),
        onnx.helper.make_tensor("t", 1, (6, 5, 2, 2), [0.5] * 120),
    ]
    model = onnx.helper.make_model(
        onnx.helper.make_graph(
            nodes,
            "g",
            [onnx.helper.make_tensor_value_info("frame", 1, (2, 4, 3, 3))],
            [onnx.helper.make_tensor_value_info("y", 1, (2, 5, 6, 6))],
            weights,
        ),
        opset_imports=[onnx.helper.make_opsetid("", 20)],
        ir_version=10,
    )
    path = tmp_path / "mixed.onnx"
    onnx.save(onnx.shape_inference.infer_shapes(model, strict_mode=True), path)
    costs = cost_table(path)
    conv, up = entry(costs, "vae_encoder/Conv_0"), entry(costs, "vae_decoder/ConvTranspose_0")
    assert (costs.batch, costs.height, costs.width) == (2, 3, 3)
    assert (conv.dtype, conv.flops) == ("int8", Growth(0, 2 * (2 * 6 * 9) * 2))
    assert (up.dtype, up.flops) == ("float32", Growth(0, 2 * (2 * 6 * 9) * 5 * 4))
    unknown = entry(costs, "image_out/Mish_0")
    assert (unknown.kind, unknown.flops, unknown.read) == ("other", Growth(), Growth(0, 2 * 5 * 36 * 4))


@pytest.mark.parametrize(
    ("rename", "says"),
    [({"vae_encoder/Conv_0": "elsewhere/Conv_0"}, "no convolution"), ({"unet/scores": "nowhere"}, "no stage")],
)
def test_a_graph_that_is_no_generator_is_refused(graph, tmp_path, rename, says):
    model = graph(ATTENTION, WEIGHTS, output=(onnx.TensorProto.UINT8, (1, 8, 11)))
    for node in model.graph:
        node.name = rename.get(node.name, node.name)
    ir.save(model, tmp_path / "g.onnx")
    with pytest.raises(BundleError, match=says):
        cost_table(tmp_path / "g.onnx")


def test_what_is_no_graph_is_refused(tmp_path):
    with pytest.raises(BundleError, match="cannot read the graph"):
        cost_table(tmp_path / "missing.onnx")
    (tmp_path / "text.onnx").write_text("no graph")
    with pytest.raises(BundleError):
        cost_table(tmp_path / "text.onnx")
