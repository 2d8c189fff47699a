from __future__ import annotations

import numpy as np
import pytest
from edgeturbo.benchmarks.error_map import FULL_SCALES, colour_table, error_map
from edgeturbo.engines.errors import UsageError


def test_the_colours_run_from_black_to_white_ever_brighter():
    table = colour_table()
    assert (table.dtype, table.shape) == (np.uint8, (256, 3))
    assert table[0].tolist() == [0, 0, 0]
    assert table[255].tolist() == [255, 255, 255]
    assert table[128].tolist() == [161, 121, 74]  # the default scheme as others draw it: 0.632, 0.475, 0.291
    # The scheme's own weights (NTSC luma, Green 2011, section 2); half a level of rounding in each colour.
    brightness = table @ np.array([0.30, 0.59, 0.11])
    assert (np.diff(brightness) > 0).all()
    assert np.abs(brightness - np.arange(256)).max() < 1.5
    assert len(np.unique(table, axis=0)) == 256


def pair(difference: int, channel: int = 1) -> tuple[np.ndarray, np.ndarray]:
    reference = np.full((40, 200, 3), 100, np.uint8)
    got = reference.copy()
    got[3, 5, channel] -= difference
    return reference, got


@pytest.mark.parametrize("channel", range(3))
def test_a_difference_in_any_channel_and_of_either_sign_shows_where_it_is(channel):
    reference, got = pair(3, channel)
    for one, other in ((reference, got), (got, reference)):
        made = error_map(one, other)
        assert made.full_scale == 4
        assert made.amplification == 255 / 4
        assert made.picture[3, 5].tolist() == colour_table()[round(3 * 255 / 4)].tolist()
        assert np.count_nonzero(made.picture.any(axis=2)) == 1


@pytest.mark.parametrize(("difference", "scale"), [(0, 1), (1, 1), (2, 2), (9, 16), (64, 64), (65, 128)])
def test_the_scale_is_the_least_that_holds_the_largest_difference(difference, scale):
    assert error_map(*pair(difference)).full_scale == scale
    assert scale in FULL_SCALES


def test_the_largest_difference_of_all_is_white_and_does_not_wrap():
    black, white = np.zeros((4, 4, 3), np.uint8), np.full((4, 4, 3), 255, np.uint8)
    made = error_map(black, white)
    assert made.full_scale == 255
    assert (made.picture == 255).all()


def test_a_given_scale_is_kept_and_what_exceeds_it_is_white():
    made = error_map(*pair(50), full_scale=10)
    assert made.full_scale == 10
    assert made.picture[3, 5].tolist() == [255, 255, 255]


@pytest.mark.parametrize(
    "bad", [np.zeros((4, 4, 3), np.float32), np.zeros((4, 5, 3), np.uint8), np.zeros((4, 4), "u1")]
)
def test_other_arrays_are_refused(bad):
    with pytest.raises(UsageError, match="one size"):
        error_map(np.zeros((4, 4, 3), np.uint8), bad)
    with pytest.raises(UsageError, match="scale"):
        error_map(*pair(1), full_scale=0)
