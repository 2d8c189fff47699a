from __future__ import annotations

import dataclasses
import shutil

import numpy as np
import pytest
import torch
from edgeturbo import Translator
from edgeturbo.engines.base import TensorSpec
from edgeturbo.engines.bundle import Bundle, staging
from edgeturbo.engines.errors import BundleError, UsageError
from edgeturbo.engines.manifest import FrameLayout
from edgeturbo.runtime.image import save_image
from edgeturbo.runtime.noise import randn
from edgeturbo.runtime.pictures import PictureRequest, translate_files
from PIL import Image


def lanczos(frame: np.ndarray, width: int, height: int) -> np.ndarray:
    return np.array(Image.fromarray(frame).resize((width, height), Image.LANCZOS))


def test_a_frame_of_the_models_size_is_inverted(make_bundle, make_frame):
    with Translator(make_bundle().root) as translate:
        image = translate(make_frame())
    assert image.dtype == np.uint8
    np.testing.assert_array_equal(image, 255 - make_frame())


def test_squash_resizes_there_and_back(make_bundle, make_frame):
    frame = make_frame(100, 90)
    with Translator(make_bundle().root) as translate:
        image = translate(frame)
    np.testing.assert_array_equal(image, lanczos(255 - lanczos(frame, 64, 48), 90, 100))


def test_floor8_stays_at_the_models_size(make_bundle, make_frame):
    frame = make_frame(51, 70)
    with Translator(make_bundle(rules=("raw", "floor8")).root) as translate:
        np.testing.assert_array_equal(translate(frame), 255 - lanczos(frame, 64, 48))


def test_the_frame_is_prepared_by_the_bundles_rule(make_bundle, make_frame):
    frame = make_frame()
    with Translator(make_bundle(rules=("sketch", "floor8")).root) as translate:
        np.testing.assert_array_equal(translate(frame), np.where(frame < 128, 0, 255))


@pytest.mark.parametrize("count", [1, 2, 3, 4, 7])
def test_batches_of_any_length_equal_single_runs(make_bundle, make_frame, count):
    noises = ("noise", "posterior_noise")
    single = Translator(make_bundle("one", noises=noises).root)
    batched = Translator(make_bundle("three", batch=3, noises=noises).root)
    frames = np.stack([make_frame(50, 60, seed=seed) for seed in range(count)])
    images = batched(frames)
    assert images.shape == frames.shape
    for frame, image in zip(frames, images, strict=True):
        np.testing.assert_array_equal(image, single(frame))
        np.testing.assert_array_equal(image, batched(frame))


def test_frames_of_several_sizes_go_through_in_one_batch(make_bundle, make_frame):
    frames = [make_frame(48 + 8 * i, 64 - 4 * i, seed=i) for i in range(5)]
    images = Translator(make_bundle(batch=2).root).translate_each(frames)
    for frame, image in zip(frames, images, strict=True):
        expected = lanczos(255 - lanczos(frame, 64, 48), frame.shape[1], frame.shape[0])
        np.testing.assert_array_equal(image, expected)


def shifted(frame: np.ndarray, *noises: np.ndarray) -> np.ndarray:
    shift = sum(50 * noise[0, :3].mean(axis=(1, 2)) for noise in noises)
    return np.clip(255.0 - frame + shift, 0, 255).astype(np.uint8)


def test_noise_is_what_torch_draws_for_the_seed(make_bundle, make_frame):
    frame = make_frame()
    torch.manual_seed(7)
    noise, posterior = torch.randn(1, 4, 6, 8).numpy(), torch.randn(1, 4, 6, 8).numpy()
    both = Translator(make_bundle("both", noises=("noise", "posterior_noise")).root, seed=7)
    assert np.abs(both(frame).astype(int) - shifted(frame, noise, posterior)).max() <= 1
    alone = Translator(make_bundle("alone", noises=("posterior_noise",)).root, seed=7)
    assert np.abs(alone(frame).astype(int) - shifted(frame, noise)).max() <= 1
    assert np.abs(shifted(frame, noise).astype(int) - shifted(frame, posterior)).max() > 1


def test_the_default_seed_is_42(make_bundle, make_frame):
    root = make_bundle(noises=("noise",)).root
    image = Translator(root)(make_frame())
    np.testing.assert_array_equal(image, Translator(root, seed=42)(make_frame()))
    assert (image != Translator(root, seed=43)(make_frame())).any()


@pytest.mark.parametrize("shape", [(1, 4, 6, 8), (4, 6, 8)])
def test_given_noise_replaces_the_drawn_one_and_only_that(make_bundle, make_frame, shape):
    root = make_bundle(batch=2, noises=("noise", "posterior_noise")).root
    drawn = randn((1, 4, 6, 8), 42).reshape(shape)
    frame = make_frame()
    np.testing.assert_array_equal(Translator(root, noise=drawn)(frame), Translator(root)(frame))
    assert (Translator(root, noise=drawn + 1)(frame) != Translator(root)(frame)).any()


@pytest.mark.parametrize(
    "noise",
    [
        np.zeros((1, 4, 6, 8)),
        np.zeros((1, 4, 8, 6), np.float32),
        np.zeros((2, 4, 6, 8), np.float32),
        [[0.0]],
    ],
    ids=["float64", "turned", "two", "list"],
)
def test_noise_that_does_not_fit_is_refused(make_bundle, noise):
    with pytest.raises(UsageError, match="noise does not fit"):
        Translator(make_bundle(noises=("noise",)).root, noise=noise)


def test_noise_for_a_bundle_without_is_refused(make_bundle):
    with pytest.raises(UsageError, match="takes no noise"):
        Translator(make_bundle().root, noise=np.zeros((1, 4, 6, 8), np.float32))


@pytest.mark.parametrize(
    "frame",
    [
        np.zeros((48, 64, 3), np.float32),
        np.zeros((48, 64), np.uint8),
        np.zeros((48, 64, 4), np.uint8),
        np.zeros((3, 48, 64), np.uint8),
        np.zeros((0, 64, 3), np.uint8),
        np.zeros((0, 48, 64, 3), np.uint8),
        np.zeros((1, 1, 48, 64, 3), np.uint8),
        [[[0, 0, 0]]],
        None,
    ],
    ids=["float", "grey", "rgba", "chw", "no rows", "no frames", "5d", "list", "None"],
)
def test_what_is_no_frame_is_refused(make_bundle, frame):
    with pytest.raises(UsageError, match="not a frame") as caught:
        Translator(make_bundle().root)(frame)
    assert "[H,W,3]" in caught.value.expected


def test_it_opens_by_itself_closes_and_opens_again(make_bundle, make_frame):
    translate = Translator(make_bundle().root)
    translate.close()
    first = translate(make_frame())
    engine = translate._engine
    translate.close()
    translate.close()
    with pytest.raises(UsageError, match="is closed"):
        engine.run({})
    np.testing.assert_array_equal(translate(make_frame()), first)


def test_images_are_the_callers_and_frames_are_not_changed(make_bundle, make_frame):
    translate, frame = Translator(make_bundle().root), make_frame()
    first = translate(frame)
    first[:] = 0
    np.testing.assert_array_equal(translate(frame), 255 - frame)
    np.testing.assert_array_equal(frame, make_frame())
    null = Translator(translate.bundle.root, engine="null")
    null(frame)[:] = 0
    np.testing.assert_array_equal(frame, make_frame())


def test_it_says_what_it_chose_and_why(make_bundle):
    translate = Translator(make_bundle().root, engine="onnxruntime")
    assert translate.choice.backend == "onnxruntime"
    assert translate.reason == "onnxruntime on the CPU: as asked"
    assert translate.bundle.manifest.model.width == 64


def test_a_changed_file_is_noticed_before_it_is_loaded(make_bundle, make_frame):
    bundle = make_bundle()
    data = bytearray((bundle.root / "generator.onnx.data").read_bytes())
    data[0] ^= 1
    (bundle.root / "generator.onnx.data").write_bytes(data)
    with pytest.raises(BundleError, match="was changed after the export"):
        Translator(bundle.root)(make_frame())


def resealed(bundle: Bundle, **changes: object) -> Bundle:
    """The same files under another manifest."""
    manifest = dataclasses.replace(bundle.manifest, **changes)
    out = bundle.root.with_name("resealed")
    with staging(out, force=False) as staged:
        for name in bundle.manifest.files:
            shutil.copy(bundle.root / name, staged.root / name)
        staged.seal(manifest)
    return Bundle.open(out)


@pytest.mark.parametrize(
    "extra",
    [
        TensorSpec("strength", "float32", (1,)),
        TensorSpec("noise", "float16", (1, 4, 6, 8)),
        TensorSpec("noise", "float32", (1, 4, 6)),
        TensorSpec("noise", "float32", (2, 4, 6, 8)),
    ],
    ids=str,
)
def test_inputs_of_a_later_version_are_refused(make_bundle, extra):
    bundle = make_bundle()
    newer = resealed(bundle, inputs=(*bundle.manifest.inputs, extra))
    with pytest.raises(BundleError, match="cannot feed"):
        Translator(newer.root)


def test_a_graph_that_is_not_the_manifests_is_refused(make_bundle, make_frame):
    noise = TensorSpec("noise", "float32", (1, 4, 6, 8))
    bundle = make_bundle()
    other = resealed(bundle, inputs=(*bundle.manifest.inputs, noise))
    with pytest.raises(BundleError, match="not the one its manifest describes"):
        Translator(other.root)(make_frame())


def test_unknown_frame_rules_are_refused(make_bundle):
    with pytest.raises(BundleError, match="unknown input_prep"):
        Translator(make_bundle(rules=("depth", "squash")).root)


def framed(bundle: Bundle, output: str = "bgr", **changes: object) -> Bundle:
    """The inverter as if it had been exported with ``--frame 64x48 --frame-format bgr``."""
    return resealed(bundle, frame_layout=FrameLayout(64, 48, "bgr", output, "bt601", "limited"), **changes)


def test_a_cameras_own_frame_goes_in_and_out_as_it_is(make_bundle, make_frame):
    native = make_frame()
    with Translator(framed(make_bundle(noises=("noise",))).root) as translate:
        image = translate.translate_native(native)
        batched = translate.translate_native(native[None])
    assert image.shape == (48, 64, 3)
    np.testing.assert_array_equal(batched, image[None])
    plain = Translator(make_bundle("plain", noises=("noise",)).root)
    np.testing.assert_array_equal(image, plain(native))
    image[:] = 0  # the caller's
    np.testing.assert_array_equal(native, make_frame())


def test_an_rgb_picture_is_converted_and_resized_to_the_cameras_frame_and_back(make_bundle, make_frame):
    frame = make_frame(100, 90)
    for output in ("bgr", "rgb"):
        with Translator(framed(make_bundle(output, rules=("raw", "floor8")), output).root) as translate:
            shown = lanczos(frame, 64, 48)
            inverted = 255 - (shown if output == "bgr" else shown[..., ::-1])
            np.testing.assert_array_equal(translate(frame), lanczos(inverted, 90, 100))
            shutil.rmtree(translate.bundle.root)


def test_what_the_graph_does_the_host_leaves(make_bundle, make_frame):
    """The sketch is part of a graph with a frame layout: were it made on the host, too, it would be one of a sketch."""
    with Translator(framed(make_bundle(rules=("sketch", "floor8"))).root) as translate:
        np.testing.assert_array_equal(translate(make_frame()), 255 - make_frame())


def test_native_frames_are_for_bundles_that_take_them(make_bundle, make_frame):
    with pytest.raises(UsageError, match="not a camera's own") as caught:
        Translator(make_bundle().root).translate_native(make_frame())
    assert "--frame" in caught.value.hint


@pytest.mark.parametrize("shape", [(48, 64), (48, 64, 4), (50, 64, 3), (2, 48, 64, 3), (1, 1, 48, 64, 3)])
def test_other_native_frames_are_refused(make_bundle, shape):
    translate = Translator(framed(make_bundle()).root)
    with pytest.raises(UsageError, match="not a frame of") as caught:
        translate.translate_native(np.zeros(shape, np.uint8))
    assert caught.value.expected == "a numpy array, uint8 [1, 48, 64, 3] or [48, 64, 3]"
    with pytest.raises(UsageError, match="does not fit"):
        translate.translate_native(np.zeros((48, 64, 3), np.float32))
    with pytest.raises(UsageError, match="not a frame of"):
        translate.translate_native(None)


def test_a_batch_of_native_frames_is_exactly_that(make_bundle, make_frame):
    translate = Translator(framed(make_bundle(batch=2)).root)
    frames = np.stack([make_frame(), make_frame(seed=1)])
    np.testing.assert_array_equal(translate.translate_native(frames), 255 - frames)
    with pytest.raises(UsageError, match="not a frame of"):
        translate.translate_native(make_frame())


@pytest.mark.parametrize("field", ["format", "output_format", "matrix", "range"])
def test_unknown_frame_layouts_are_refused(make_bundle, field):
    layout = dataclasses.replace(FrameLayout(64, 48, "bgr", "bgr", "bt601", "limited"), **{field: "p010"})
    with pytest.raises(BundleError, match=f"unknown {field}"):
        Translator(resealed(make_bundle(), frame_layout=layout).root)


@pytest.mark.parametrize(
    "layout",
    [FrameLayout(64, 48, kind, output, "bt601", "limited") for kind, output in (("nv12", "rgb"), ("rgb", "rgba"))]
    + [FrameLayout(64, 50, "rgb", "rgb", "bt601", "limited")],
    ids=str,
)
def test_tensors_that_are_not_the_layouts_are_refused(make_bundle, layout):
    with pytest.raises(BundleError, match="cannot feed"):
        Translator(resealed(make_bundle(), frame_layout=layout).root)


def test_pictures_through_a_cameras_bundle_are_noted_and_keep_their_size(make_bundle, make_frame, tmp_path):
    save_image(make_frame(50, 70), tmp_path / "a.png")
    save_image(make_frame(48, 64), tmp_path / "b.png")
    with Translator(framed(make_bundle(rules=("raw", "floor8"))).root) as translate:
        results = translate_files(translate, PictureRequest(str(tmp_path / "?.png"), tmp_path / "out")).results
    assert [result.image_size for result in results] == [(70, 50), (64, 48)]
    assert "64x48 bgr" in results[0].note
    assert "resized from 70x50 and converted" in results[0].note
    assert "resized" not in results[1].note
