"""Exports with ``--frame``: a camera's own frames in and out, held to the plain bundle with the host around it."""

from __future__ import annotations

from dataclasses import replace
from importlib.util import find_spec

import numpy as np
import onnx_ir as ir
import pytest
from edgeturbo import Translator
from edgeturbo.engines.bundle import ONNX, ONNX_DATA
from edgeturbo.engines.manifest import FrameLayout
from edgeturbo.engines.onnxruntime import OnnxRuntimeEngine
from edgeturbo.export.demo import demo_frames
from edgeturbo.export.native import Border
from edgeturbo.export.recipe import ExportOptions
from edgeturbo.export.session import ExportReport
from edgeturbo.export.stages import stage_of
from edgeturbo.runtime.colour import from_rgb, to_rgb, yuv_coding
from edgeturbo.runtime.goldens import read_goldens
from edgeturbo.runtime.image import load_frame, prepare, restore
from exports import export_once

SIZE = (160, 120)
CODING = yuv_coding("bt601", "limited")


@pytest.fixture(scope="module")
def framed(exported, tmp_path_factory) -> ExportReport:
    """The bundle of ``exported``, FP32 at 64x64, for a camera that gives NV12 at 160x120 and shows YUYV."""
    camera = {"frame": SIZE, "frame_format": "nv12", "output_format": "yuyv"}
    return export_once(tmp_path_factory, "framed", lambda out: replace(exported.options, out=out, **camera)).report


@pytest.fixture(scope="module")
def sketched(tiny, tmp_path_factory) -> ExportReport:
    """A stochastic paired model in FP16 that is shown sketches of YUYV frames, with a plan where one can be built."""
    has_rtx = find_spec("tensorrt_rtx") is not None
    options = ExportOptions(
        tiny.pix2pix(stochastic=True), None, str(tiny.base), "a fish", width=64, height=48, precision="fp16",
        input_prep="sketch", parity_frames=2, frame=(98, 70), frame_format="yuyv", output_format="rgba",
        engine="tensorrt-rtx" if has_rtx else "onnx", targets=("sm_89",),
    )  # fmt: skip
    return export_once(tmp_path_factory, "sketched", lambda out: replace(options, out=out)).report


@pytest.fixture
def frame() -> np.ndarray:
    return from_rgb(prepare(load_frame(demo_frames()[0]), *SIZE, "raw"), "nv12", CODING)


def test_a_native_frame_gives_what_the_host_would_make_of_it_with_the_plain_bundle(framed, exported, frame):
    with Translator(exported.root) as plain, Translator(framed.bundle.root) as native:
        image = native.translate_native(frame)
        expected = from_rgb(plain(to_rgb(frame, "nv12", CODING)), "yuyv", CODING)
    difference = np.abs(image.astype(int) - expected)
    assert image.shape == (120, 160, 2)
    assert (difference <= 1).mean() >= 0.999
    # The networks' own sums may fall on the other side of a level where the kernels differ.
    assert (difference == 0).mean() >= 0.999


def test_an_rgb_picture_takes_the_same_way_with_the_hosts_help(framed, frame):
    picture = load_frame(demo_frames()[0])
    with Translator(framed.bundle.root) as translate:
        native = translate.translate_native(frame)
        image = translate(picture)
    expected = restore(to_rgb(native, "yuyv", CODING), picture.shape[1], picture.shape[0], "squash")
    np.testing.assert_array_equal(image, expected)


def test_the_gates_figures_are_those_of_the_cameras_frames(framed, sketched):
    parity = framed.bundle.manifest.parity
    assert 0 < parity.max_abs <= 1e-4
    assert parity.psnr_db is None or parity.psnr_db > 60
    assert 20 < parity.bf16_psnr_db < 80
    assert sketched.bundle.manifest.parity.psnr_db > 40


def test_the_manifest_says_whose_frames_these_are(framed, sketched, exported):
    manifest = framed.bundle.manifest
    assert manifest.frame_layout == FrameLayout(160, 120, "nv12", "yuyv", "bt601", "limited")
    assert (manifest.model.width, manifest.model.height) == (64, 64)
    assert [(spec.name, spec.dtype, spec.shape) for spec in (*manifest.inputs, *manifest.outputs)] == [
        ("frame", "uint8", (1, 180, 160)),
        ("image", "uint8", (1, 120, 160, 2)),
    ]
    noise = sketched.bundle.manifest.inputs[1]
    assert (noise.name, noise.shape) == ("noise", (1, 4, 6, 8))
    assert sketched.bundle.manifest.frame_rules.input_prep == "sketch"
    assert Border.of(manifest) == Border(manifest.frame_layout, 64, 64, sketch=False)
    assert Border.of(sketched.bundle.manifest).sketch
    assert Border.of(exported.report.bundle.manifest) is None


@pytest.mark.parametrize("name", ["framed", "sketched"])
def test_the_goldens_are_native_pairs_that_the_engine_takes_as_they_are(name, request):
    bundle = request.getfixturevalue(name).bundle
    read = read_goldens(bundle)
    assert len(read.pairs) == 2
    with OnnxRuntimeEngine(bundle.root / ONNX) as engine:
        for frame, image in read.pairs:
            got = engine.run({"frame": frame[None], **read.noises})["image"][0]
            difference = np.abs(got.astype(int) - image)
            # In FP16 ONNX Runtime rounds elsewhere when it rewrites the graph, which the gate's session does not.
            assert (difference <= (1 if name == "framed" else 4)).mean() >= 0.999


def test_the_tensor_before_quantisation_keeps_the_models_size(framed):
    model = ir.load(framed.bundle.root / ONNX)
    (value,) = (v for node in model.graph for v in node.outputs if v.name == "image_unquantised")
    assert (value.dtype, list(value.shape)) == (ir.DataType.FLOAT, [1, 3, 64, 64])


def test_what_stands_around_the_networks_computes_in_fp32(sketched):
    model = ir.load(sketched.bundle.root / ONNX)
    border = [node for node in model.graph if stage_of(node.name) in ("frame_in", "image_out")]
    products = [node.name for node in border if node.op_type == "MatMul"]
    assert len(products) == 4
    assert {*products} <= {*sketched.bundle.manifest.fp32_islands}
    for node in border:
        kinds = {value.dtype for value in (*node.inputs, *node.outputs) if value is not None}
        # One cast at the border to the networks and one from them.
        assert ir.DataType.FLOAT16 not in kinds or node.op_type == "Cast", node.name
    assert all(isinstance(size, int) for node in model.graph for output in node.outputs for size in output.shape)


def test_the_sketch_is_drawn_in_the_graph(sketched):
    """A frame of light greys is all paper: were it thresholded nowhere, its grey would show."""
    with Translator(sketched.bundle.root, engine="onnxruntime") as translate:
        light = np.full((70, 98, 2), 128, np.uint8)
        lighter = light.copy()
        light[..., 0], lighter[..., 0] = 190, 230
        images = [translate.translate_native(frame) for frame in (light, lighter)]
        dark = light.copy()
        dark[..., 0] = 60
        images.append(translate.translate_native(dark))
    np.testing.assert_array_equal(images[0], images[1])
    assert (images[0] != images[2]).any()
    assert images[0].shape == (70, 98, 4)
    assert (images[0][..., 3] == 255).all()


@pytest.mark.skipif(find_spec("tensorrt_rtx") is None, reason="TensorRT for RTX is not installed")
def test_a_plan_builds(sketched):
    (entry,) = sketched.bundle.manifest.engines
    assert (entry.backend, entry.targets) == ("tensorrt-rtx", ("sm_89",))
    assert sketched.bundle.verified(entry.plan).stat().st_size > 100_000


def test_the_weights_are_the_plain_ones_and_the_matrices(framed, exported):
    matrices = 2 * 4 * 2 * 64 * (SIZE[0] + SIZE[1])  # there and back, two parts of 4 bytes
    plain, native = ((root / ONNX_DATA).stat().st_size for root in (exported.root, framed.bundle.root))
    assert matrices <= native - plain <= matrices + 16_384
