"""The frames that an export is checked on, when they are a camera's own."""

from __future__ import annotations

import numpy as np
import pytest
from edgeturbo.engines.manifest import FrameLayout
from edgeturbo.export.goldens import write_goldens
from edgeturbo.export.samples import samples
from edgeturbo.export.trace import GraphShape
from edgeturbo.runtime.colour import to_rgb, yuv_coding
from edgeturbo.runtime.image import prepare


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
