"""The frames that an export is checked on, when they are a camera's own."""

from __future__ import annotations

from itertools import islice

import numpy as np
import pytest
from edgeturbo.engines.errors import UsageError
from edgeturbo.engines.manifest import FrameLayout
from edgeturbo.export.calibration import EXTREMES, MOST_PICTURES, calibration
from edgeturbo.export.goldens import write_goldens
from edgeturbo.export.samples import samples
from edgeturbo.export.trace import GraphShape
from edgeturbo.runtime.colour import to_rgb, yuv_coding
from edgeturbo.runtime.image import prepare, save_image


def shape(kind: str, size: tuple[int, int] = (96, 80)) -> GraphShape:
    layout = FrameLayout(*size, kind, "rgb", "bt709", "full")
    return GraphShape(64, 48, 1, noise=True, posterior_noise=False, layout=layout)


@pytest.mark.parametrize("prep", ["raw", "sketch"])
@pytest.mark.parametrize("kind", ["rgb", "bgr", "rgba", "nv12", "yuyv"])
def test_the_network_is_shown_what_the_host_makes_of_the_native_frame(kind, prep):
    taken = samples(shape(kind), prep, 3)
    for sample in taken:
        assert sample.frame.shape == shape(kind).inputs[0].shape[1:]
        expected = prepare(to_rgb(sample.frame, kind, yuv_coding("bt709", "full")), 64, 48, prep)
        np.testing.assert_array_equal(sample.shown, expected)
        assert sample.noises["noise"].shape == (1, 4, 6, 8)
    assert len({sample.frame.tobytes() for sample in taken}) == 3


def test_without_a_camera_the_network_is_shown_the_frame():
    (sample,) = samples(GraphShape(64, 48, 1, noise=False, posterior_noise=False), "raw", 1)
    assert sample.prepared is None
    assert sample.shown is sample.frame


def test_the_second_frame_is_smooth_so_that_a_pair_fits_whatever_the_size(tmp_path):
    taken = samples(shape("rgb", (1920, 1080)), "raw", 2)
    write_goldens(tmp_path / "goldens", taken, [sample.frame for sample in taken], 2_000_000)
    assert [path.name for path in sorted((tmp_path / "goldens").iterdir())] == ["0_frame.png", "0_image.png"]


def plain(width: int = 64, height: int = 48) -> GraphShape:
    return GraphShape(width, height, 1, noise=False, posterior_noise=False)


def test_calibration_shows_photographs_and_extremes_and_fewer_of_them_at_full_size():
    frames = calibration(plain(), "raw", None, full_size=False)
    assert frames.names == ("day.jpg", "palace.jpg", *EXTREMES)
    taken = {name: sample.frame for name, sample in zip(frames.names, frames.frames(), strict=True)}
    assert (taken["black"].max(), taken["white"].min()) == (0, 255)
    assert taken["one bright pixel"].sum() == 3 * 255
    assert len({tuple(pixel) for pixel in taken["saturated"].reshape(-1, 3)}) == 8
    assert np.array_equal(taken["checkerboard"][0, :2, 0], [0, 255])
    again = [sample.frame for sample in frames.frames()]
    assert all(np.array_equal(one, other) for one, other in zip(again, taken.values(), strict=True))
    assert calibration(plain(), "raw", None, full_size=True).names == ("day.jpg", "noise", "saturated")


def test_a_cameras_extremes_have_the_cameras_size():
    frames = calibration(shape("rgb"), "raw", None, full_size=False)
    pixel = dict(zip(frames.names, frames.frames(), strict=True))["one bright pixel"]
    assert pixel.frame.shape == (80, 96, 3)
    assert pixel.frame.sum() == 3 * 255


def test_a_folder_is_calibrated_on_evenly_up_to_a_limit(tmp_path):
    for number in range(130):
        save_image(np.full((8, 8, 3), number, np.uint8), tmp_path / f"{number:03}.png")
    frames = calibration(plain(), "raw", tmp_path, full_size=True)
    assert len(frames.names) == MOST_PICTURES
    assert frames.source.startswith("64 of 130 pictures in ")
    assert [int(sample.frame[0, 0, 0]) for sample in islice(frames.frames(), 3)] == [0, 2, 4]
    (tmp_path / "empty").mkdir()
    with pytest.raises(UsageError, match="no pictures"):
        calibration(plain(), "raw", tmp_path / "empty", full_size=False)
