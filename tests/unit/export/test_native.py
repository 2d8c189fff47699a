"""A camera's frames in the graph against the host's path: bit for bit, in PyTorch and in ONNX Runtime."""

from __future__ import annotations

import itertools
import warnings
from dataclasses import replace

import numpy as np
import onnx_ir as ir
import onnxruntime
import pytest
import torch
from edgeturbo.engines.manifest import FrameLayout
from edgeturbo.export.demo import demo_frames
from edgeturbo.export.generator import FrameIn, ImageOut
from edgeturbo.export.native import Border, frame_of, planes_of
from edgeturbo.export.passes.specialise import Specialise
from edgeturbo.runtime.colour import from_rgb, to_rgb
from edgeturbo.runtime.image import load_frame, prepare, restore

KINDS = ["rgb", "bgr", "rgba", "nv12", "yuyv"]
LAYOUT = FrameLayout(48, 32, "nv12", "nv12", "bt601", "limited")
BORDER = Border(LAYOUT, 16, 24, sketch=False)


def noise(layout: FrameLayout) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (layout.height, layout.width, 3), dtype=np.uint8)


def native(rgb: np.ndarray, border: Border) -> np.ndarray:
    layout = border.layout
    return from_rgb(prepare(rgb, layout.width, layout.height, "raw"), layout.format, border.coding)


def shown(frame: np.ndarray, border: Border) -> np.ndarray:
    """The host's path before the network."""
    prep = "sketch" if border.sketch else "raw"
    return prepare(to_rgb(frame, border.layout.format, border.coding), border.width, border.height, prep)


def bordered(image: np.ndarray, border: Border) -> np.ndarray:
    """The host's path behind it."""
    layout = border.layout
    return from_rgb(restore(image, layout.width, layout.height, "squash"), layout.output_format, border.coding)


@pytest.mark.parametrize(("matrix", "range_"), [*itertools.product(["bt601", "bt709"], ["limited", "full"])])
@pytest.mark.parametrize("kind", KINDS)
def test_the_colours_are_the_hosts(kind, matrix, range_):
    layout = replace(LAYOUT, format=kind, matrix=matrix, range=range_)
    coding = replace(BORDER, layout=layout).coding
    frames = np.stack([from_rgb(noise(layout), kind, coding)] * 2)
    # Every byte, so also those that no RGB picture encodes to.
    frames[1] = np.random.default_rng(1).integers(0, 256, frames.shape[1:], dtype=np.uint8)
    planes = planes_of(torch.from_numpy(frames), kind, coding)
    rgb = np.stack([to_rgb(frame, kind, coding) for frame in frames])
    np.testing.assert_array_equal(planes.permute(0, 2, 3, 1).numpy(), rgb)
    back = np.stack([from_rgb(picture, kind, coding) for picture in rgb])
    np.testing.assert_array_equal(frame_of(planes, kind, coding).numpy(), back)


@pytest.mark.parametrize("sketch", [False, True])
@pytest.mark.parametrize("signed", [False, True])
def test_the_network_is_shown_what_the_host_would_prepare(signed, sketch):
    border = replace(BORDER, sketch=sketch)
    frame = native(noise(LAYOUT), border)
    got = FrameIn(signed=signed, border=border)(torch.from_numpy(frame)[None])
    expected = FrameIn(signed=signed)(torch.from_numpy(shown(frame, border))[None])
    assert got.shape == (1, 3, 24, 16)
    assert torch.equal(got, expected)
    assert len(got.unique()) == 2 or not sketch


@pytest.mark.parametrize("output", KINDS)
def test_the_image_leaves_truncated_resized_and_converted(output):
    border = replace(BORDER, layout=replace(LAYOUT, output_format=output))
    decoded = torch.randn(2, 3, 24, 16, generator=torch.Generator().manual_seed(0))
    plain, plain_unquantised = ImageOut()(decoded)
    image, unquantised = ImageOut(border)(decoded)
    assert torch.equal(unquantised, plain_unquantised)
    expected = np.stack([bordered(picture, border) for picture in plain.numpy()])
    np.testing.assert_array_equal(image.numpy(), expected)
    assert image.dtype == torch.uint8


def test_a_frame_of_the_models_size_is_not_resized():
    border = Border(LAYOUT, LAYOUT.width, LAYOUT.height, sketch=False)
    assert list(FrameIn(signed=True, border=border).buffers()) == []
    assert list(ImageOut(border).buffers()) == []
    frame = native(noise(LAYOUT), border)
    seen = FrameIn(signed=True, border=border)(torch.from_numpy(frame)[None])
    assert torch.equal(seen, FrameIn(signed=True)(torch.from_numpy(shown(frame, border))[None]))
    np.testing.assert_array_equal(ImageOut(border)(seen)[0][0], bordered(ImageOut()(seen)[0][0].numpy(), border))


# Half a level of [-1, 1]: no value may lie where the truncation tips, which any two engines do differently.
HALF_A_LEVEL = 1 / 255


class Passages(torch.nn.Module):
    """Frames of several formats, in and straight out again: all that stands around the networks."""

    def __init__(self, borders: dict[str, Border | None]) -> None:
        super().__init__()
        self.frame_in = torch.nn.ModuleDict({name: FrameIn(signed=True, border=it) for name, it in borders.items()})
        self.image_out = torch.nn.ModuleDict({name: ImageOut(it) for name, it in borders.items()})

    def forward(self, *frames: torch.Tensor) -> tuple[torch.Tensor, ...]:
        named = zip(self.frame_in, frames, strict=True)
        return tuple(self.image_out[name](self.frame_in[name](frame) + HALF_A_LEVEL)[0] for name, frame in named)


def model_of(borders: dict[str, Border | None], frames: dict[str, np.ndarray]) -> ir.Model:
    with warnings.catch_warnings(), torch.inference_mode():
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            Passages(borders).eval(), tuple(torch.from_numpy(frame)[None] for frame in frames.values()),
            input_names=list(frames), output_names=[f"{name}_image" for name in frames],
            opset_version=20, dynamo=True, optimize=False, verbose=False,
        )  # fmt: skip
    Specialise()(program.model)
    return program.model


@pytest.mark.parametrize("size", [(1280, 720), (640, 480)], ids=str)
def test_onnx_runtime_computes_the_hosts_path_there_and_back(size):
    """The ask is one level on 99.9 % of the values; it is every value, exactly."""
    layouts = {kind: FrameLayout(*size, kind, kind, "bt601", "limited") for kind in ("rgb", "nv12", "yuyv")}
    borders = {kind: Border(layout, 512, 512, sketch=False) for kind, layout in layouts.items()}
    photograph = load_frame(demo_frames()[0])
    frames = {kind: native(photograph, border) for kind, border in borders.items()}
    model = model_of(borders, frames)
    session = onnxruntime.InferenceSession(ir.to_proto(model).SerializeToString())
    images = session.run(None, {kind: frame[None] for kind, frame in frames.items()})
    for (kind, border), image in zip(borders.items(), images, strict=True):
        prepared = torch.from_numpy(shown(frames[kind], border))[None]
        seen = FrameIn(signed=True)(prepared) + HALF_A_LEVEL
        expected = bordered(ImageOut()(seen)[0][0].numpy(), border)
        np.testing.assert_array_equal(image[0], expected, err_msg=kind)
    for node in model.graph:
        if any(value in model.graph.inputs for value in node.inputs):
            assert node.op_type == "Cast", "TensorRT for RTX slices no uint8"
        if node.outputs[0].is_graph_output():
            assert (node.op_type, node.inputs[0].producer().op_type) == ("Cast", "Floor")
    largest = max(value.const_value.nbytes for value in model.graph.initializers.values())
    assert largest == max(2 * 512 * size[0], 2 * 512 * size[1]) * 4
