"""Goldens written by an export and read back by the runtime: in every format, and within their limit."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from edgeturbo.engines.bundle import Bundle, staging
from edgeturbo.engines.errors import BundleError
from edgeturbo.engines.manifest import FrameLayout, FrameRules, Manifest, Model, Provenance
from edgeturbo.export.goldens import write_goldens
from edgeturbo.export.samples import Sample
from edgeturbo.export.trace import GraphShape
from edgeturbo.runtime.goldens import read_goldens
from edgeturbo.runtime.noise import TorchNormal
from PIL import Image

KINDS = ["rgb", "bgr", "rgba", "nv12", "yuyv"]


def noise(shape: tuple[int, ...], seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def bundle(folder: Path, shape: GraphShape, *, limit: int = 4_000_000, pairs: int = 2) -> tuple[Bundle, list[Sample]]:
    taken = [Sample(noise(shape.inputs[0].shape[1:], i), {}) for i in range(pairs)]
    images = [noise(shape.outputs[0].shape[1:], 10 + i) for i in range(pairs)]
    manifest = Manifest(
        "0.1.0", Model("pix2pix-turbo", None, "a prompt", 0.4, "mean", "fp32", 20, 16, 16, shape.batch),
        FrameRules("raw", "squash"), shape.inputs, shape.outputs,
        Provenance("x.pkl", "00", "base", "main", "turbo-export", {}), frame_layout=shape.layout,
    )  # fmt: skip
    with staging(folder / "bundle", force=False) as staged:
        if pairs:
            write_goldens(staged.root / "goldens", tuple(taken), images, limit)
        staged.seal(manifest)
    return Bundle.open(folder / "bundle"), taken


def plain(batch: int = 1, noise: bool = False) -> GraphShape:
    return GraphShape(16, 16, batch, noise=noise, posterior_noise=noise)


@pytest.mark.parametrize("output", KINDS)
@pytest.mark.parametrize("kind", KINDS)
def test_tensors_of_every_format_come_back_as_they_were(tmp_path, kind, output):
    layout = FrameLayout(20, 12, kind, output, "bt601", "limited")
    made, taken = bundle(tmp_path, GraphShape(16, 16, 1, noise=False, posterior_noise=False, layout=layout))
    read = read_goldens(made)
    assert len(read.pairs) == 2
    for i, (frame, image) in enumerate(read.pairs):
        np.testing.assert_array_equal(frame, taken[i].frame)
        np.testing.assert_array_equal(image, noise(made.manifest.outputs[0].shape[1:], 10 + i))
        assert frame.flags.writeable
    assert read.noises == {}


def test_the_noises_are_what_every_frame_was_fed(tmp_path):
    read = read_goldens(bundle(tmp_path, plain(batch=2, noise=True))[0])
    normal = TorchNormal(42)
    assert list(read.noises) == ["noise", "posterior_noise"]
    for values in read.noises.values():
        drawn = normal.randn((1, 4, 2, 2))
        np.testing.assert_array_equal(values, np.concatenate([drawn, drawn]))


def test_a_bundle_without_goldens_has_no_pairs(tmp_path):
    assert read_goldens(bundle(tmp_path, plain(), pairs=0)[0]).pairs == ()


def test_pairs_that_do_not_fit_are_left_out_and_smaller_ones_behind_them_kept(tmp_path):
    small, large = np.zeros((16, 16, 3), np.uint8), noise((16, 16, 3), 0)
    taken = [Sample(frame, {}) for frame in (large, small, small)]
    write_goldens(tmp_path / "goldens", tuple(taken), [large, small, small], 400)
    assert sorted(path.name for path in (tmp_path / "goldens").iterdir()) == [
        "0_frame.png", "0_image.png", "1_frame.png", "1_image.png",
    ]  # fmt: skip
    for path in (tmp_path / "goldens").iterdir():
        assert not np.asarray(Image.open(path)).any()


def test_where_none_fits_the_smallest_pair_stays_a_bundle_is_never_without(tmp_path):
    small, large = np.zeros((16, 16, 3), np.uint8), noise((16, 16, 3), 0)
    write_goldens(tmp_path / "goldens", (Sample(large, {}), Sample(small, {})), [large, small], 10)
    assert sorted(path.name for path in (tmp_path / "goldens").iterdir()) == ["0_frame.png", "0_image.png"]
    assert not np.asarray(Image.open(tmp_path / "goldens" / "0_image.png")).any()


def test_damaged_goldens_are_refused(tmp_path):
    made, _ = bundle(tmp_path, plain())
    path = made.root / "goldens" / "1_image.png"
    whole = path.read_bytes()
    path.write_bytes(whole[:-1] + b"?")
    with pytest.raises(BundleError, match="was changed after the export"):
        read_goldens(made)


@pytest.mark.parametrize("content", ["a JPEG", "another size", "16 bits"])
def test_goldens_that_do_not_fit_the_engine_are_refused(tmp_path, content):
    manifest = bundle(tmp_path, plain())[0].manifest
    with staging(tmp_path / "other", force=False) as staged:
        write_goldens(staged.root / "goldens", (Sample(noise((16, 16, 3), 0), {}),), [noise((16, 16, 3), 1)], 10_000)
        path = staged.root / "goldens" / "0_image.png"
        if content == "a JPEG":
            Image.fromarray(noise((16, 16, 3), 0)).save(path, "JPEG")
        elif content == "another size":
            Image.fromarray(noise((16, 24, 3), 0)).save(path)
        else:
            Image.fromarray(np.zeros((16, 16), np.uint16)).save(path)
        staged.seal(manifest)
    with pytest.raises(BundleError, match="is not a"):
        read_goldens(Bundle.open(tmp_path / "other"))
