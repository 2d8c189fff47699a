"""RGB and YUV on the host: against colour bars as published, and against the formulas in float64."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from edgeturbo.engines.errors import UsageError
from edgeturbo.engines.frame_layout import tensor_shape
from edgeturbo.runtime.colour import FRACTION_BITS, from_rgb, to_rgb, yuv_coding

KINDS = ["rgb", "bgr", "rgba", "nv12", "yuyv"]
CODINGS = list(itertools.product(["bt601", "bt709"], ["limited", "full"]))
WHITE, BLACK, RED, GREEN, BLUE = (255, 255, 255), (0, 0, 0), (255, 0, 0), (0, 255, 0), (0, 0, 255)
YELLOW, CYAN, MAGENTA = (255, 255, 0), (0, 255, 255), (255, 0, 255)

# 100 % colour bars in 8 bits. Y, Cb, Cr.
BARS = {
    ("bt601", "limited"): {
        WHITE: (235, 128, 128), BLACK: (16, 128, 128), RED: (81, 90, 240), GREEN: (145, 54, 34), BLUE: (41, 240, 110),
        YELLOW: (210, 16, 146), CYAN: (170, 166, 16), MAGENTA: (106, 202, 222),
    },
    ("bt709", "limited"): {
        WHITE: (235, 128, 128), BLACK: (16, 128, 128), RED: (63, 102, 240), GREEN: (173, 42, 26), BLUE: (32, 240, 118),
        YELLOW: (219, 16, 138), CYAN: (188, 154, 16), MAGENTA: (78, 214, 230),
    },
    ("bt601", "full"): {
        WHITE: (255, 128, 128), BLACK: (0, 128, 128), RED: (76, 85, 255), GREEN: (150, 44, 21), BLUE: (29, 255, 107),
    },
    ("bt709", "full"): {WHITE: (255, 128, 128), BLACK: (0, 128, 128)},
}  # fmt: skip


@pytest.fixture(params=CODINGS, ids="-".join)
def coding(request):
    return request.param


def noise(height: int = 8, width: int = 12, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def flat(colour: tuple[int, ...], height: int = 2, width: int = 2) -> np.ndarray:
    return np.broadcast_to(np.uint8(colour), (height, width, 3)).copy()


def test_colour_bars_are_encoded_as_published(coding):
    for rgb, yuv in BARS[coding].items():
        y, uv = np.split(from_rgb(flat(rgb), "nv12", yuv_coding(*coding)), [2])
        assert (y == yuv[0]).all(), rgb
        assert uv.tolist() == [[yuv[1], yuv[2]]], rgb


def test_colour_bars_are_decoded_within_the_rounding_of_their_codes(coding):
    for rgb, yuv in BARS[coding].items():
        frame = np.uint8([[yuv[0]] * 2, [yuv[0]] * 2, yuv[1:]])
        difference = to_rgb(frame, "nv12", yuv_coding(*coding)).astype(int) - rgb
        assert np.abs(difference).max() <= 2, (rgb, difference[0, 0])


def expected_yuv(rgb: np.ndarray, matrix: str, range_: str) -> np.ndarray:
    """The Recommendations' formulas, unrounded, in float64: [..., 3] of R'G'B' in 0 to 255 to Y, Cb, Cr."""
    red, green, blue = {"bt601": (0.299, 0.587, 0.114), "bt709": (0.2126, 0.7152, 0.0722)}[matrix]
    r, g, b = np.moveaxis(rgb / 255.0, -1, 0)
    y = red * r + green * g + blue * b
    cb, cr = (b - y) / {"bt601": 1.772, "bt709": 1.8556}[matrix], (r - y) / {"bt601": 1.402, "bt709": 1.5748}[matrix]
    low, luma, chroma = {"limited": (16, 219, 224), "full": (0, 255, 255)}[range_]
    return np.stack([luma * y + low, chroma * cb + 128, chroma * cr + 128], axis=-1)


def test_encoding_is_the_formula_rounded(coding):
    rgb = noise(64, 256)
    frame = from_rgb(rgb, "yuyv", yuv_coding(*coding))
    y = expected_yuv(rgb, *coding)[..., 0]
    pairs = expected_yuv(rgb.reshape(64, 128, 2, 3).mean(axis=2), *coding)[..., 1:]
    for got, exact in ((frame[..., 0], y), (frame[..., 1].reshape(64, 128, 2), pairs)):
        # Half a level of rounding, and what 14 bits of a coefficient leave.
        assert np.abs(got - exact.clip(0, 255)).max() <= 0.5 + 0.03


def test_decoding_is_the_inverse_of_the_formula_rounded(coding):
    yuv = noise(64, 256, seed=1)
    low = {"limited": 16, "full": 0}[coding[1]]
    forward = expected_yuv(np.eye(3) * 255, *coding).T - np.array([low, 128, 128])[:, None]
    exact = (yuv - np.array([low, 128, 128])) @ np.linalg.inv(forward).T * 255
    frame = np.stack([yuv[..., 0].repeat(2, axis=1), yuv[..., 1:].reshape(64, 512)], axis=-1)
    got = to_rgb(frame, "yuyv", yuv_coding(*coding))
    assert np.abs(got[:, ::2] - exact.clip(0, 255)).max() <= 0.5 + 0.03
    np.testing.assert_array_equal(got[:, ::2], got[:, 1::2])


def test_grey_stays_grey(coding):
    ramp = np.repeat(np.arange(256, dtype=np.uint8), 2)[None, :, None].repeat(2, axis=0).repeat(3, axis=2)
    frame = from_rgb(ramp, "nv12", yuv_coding(*coding))
    assert (frame[2:] == 128).all()
    back = to_rgb(frame, "nv12", yuv_coding(*coding)).astype(int)
    assert (back == back[..., :1]).all()
    assert np.abs(back - ramp).max() <= (coding[1] == "limited")


def test_a_nv12_frame_is_the_rows_of_y_and_below_them_those_of_u_and_v():
    picture = np.concatenate([flat(RED), flat(BLUE)], axis=1)
    frame = from_rgb(picture, "nv12", yuv_coding("bt601", "limited"))
    assert frame.tobytes() == bytes([81, 81, 41, 41, 81, 81, 41, 41, 90, 240, 240, 110])


def test_a_yuyv_frame_is_y_u_y_v():
    picture = np.concatenate([flat(RED, 1), flat(BLUE, 1)], axis=1)
    frame = from_rgb(picture, "yuyv", yuv_coding("bt601", "limited"))
    assert frame.tobytes() == bytes([81, 90, 81, 240, 41, 240, 41, 110])


@pytest.mark.parametrize("kind", ["nv12", "yuyv"])
def test_chroma_is_the_mean_of_its_block_and_stands_for_all_of_it(kind):
    coding = yuv_coding("bt601", "full")
    picture = flat(BLACK, 2, 4)
    picture[0, 0] = (200, 0, 0)
    frame = from_rgb(picture, kind, coding)
    pixels = {"nv12": 4, "yuyv": 2}[kind]
    v = frame[2, 1] if kind == "nv12" else frame[0, 1, 1]
    assert v == np.floor(128 + 200 / pixels * 0.5 + 0.5)
    rgb = to_rgb(frame, kind, coding).astype(int)
    tinted = rgb[..., 0] - rgb[..., 2] > 0
    assert tinted[:, 2:].sum() == 0
    assert tinted[:, :2].sum() == pixels


def test_rgb_formats_lose_nothing():
    rgb, coding = noise(), yuv_coding("bt601", "limited")
    assert from_rgb(rgb, "rgb", coding) is rgb
    assert to_rgb(rgb, "rgb", coding) is rgb
    bgr = from_rgb(rgb, "bgr", coding)
    assert bgr[0, 0].tolist() == rgb[0, 0, ::-1].tolist()
    rgba = from_rgb(rgb, "rgba", coding)
    assert (rgba[..., 3] == 255).all()
    for kind, frame in (("bgr", bgr), ("rgba", rgba)):
        assert frame.flags.c_contiguous
        np.testing.assert_array_equal(to_rgb(frame, kind, coding), rgb)


def test_alpha_is_dropped_not_blended():
    rgba = np.dstack([noise(), np.zeros((8, 12), np.uint8)])
    np.testing.assert_array_equal(to_rgb(rgba, "rgba", yuv_coding("bt601", "limited")), noise())


@pytest.mark.parametrize("kind", KINDS)
def test_frames_have_their_tensors_shape(kind):
    assert from_rgb(noise(), kind, yuv_coding("bt709", "full")).shape == tensor_shape(kind, 12, 8)


def test_every_sum_fits_a_float32_exactly(coding):
    """24 bits: the graph computes in float32 what the host computes in integers, so no partial sum may need more."""
    made = yuv_coding(*coding)
    largest = made.luma * 255 + max(made.red_v, made.blue_u, abs(made.green_u) + abs(made.green_v)) * 128
    assert largest + (1 << FRACTION_BITS - 1) < 2**24
    for weights in (made.to_y, made.to_u, made.to_v):
        assert max(abs(weight) for weight in weights) * 255 * 4 < 2**24
        assert sum(weight for weight in weights if weight > 0) * 255 * 4 + (128 * 4 << FRACTION_BITS) < 2**25


@pytest.mark.parametrize(
    ("frame", "kind"),
    [
        (np.zeros((8, 8, 3), np.uint8), "rgba"),
        (np.zeros((8, 8, 4), np.uint8), "rgb"),
        (np.zeros((8, 8, 3), np.uint8), "nv12"),
        (np.zeros((11, 8), np.uint8), "nv12"),
        (np.zeros((12, 7), np.uint8), "nv12"),
        (np.zeros((10, 8), np.uint8), "nv12"),
        (np.zeros((8, 7, 2), np.uint8), "yuyv"),
        (np.zeros((8, 8), np.uint8), "yuyv"),
        (np.zeros((8, 8, 3)), "rgb"),
        (np.zeros((0, 8, 3), np.uint8), "bgr"),
        ([[0]], "nv12"),
    ],
    ids=str,
)
def test_what_is_no_such_frame_is_refused(frame, kind):
    with pytest.raises(UsageError, match=f"not a frame in {kind}") as caught:
        to_rgb(frame, kind, yuv_coding("bt601", "limited"))
    assert "uint8 [" in caught.value.expected


@pytest.mark.parametrize(("shape", "kind"), [((8, 7), "yuyv"), ((8, 7), "nv12"), ((7, 8), "nv12")])
def test_a_size_that_the_format_cannot_hold_is_refused(shape, kind):
    with pytest.raises(UsageError, match=f"cannot be {kind}"):
        from_rgb(noise(*shape), kind, yuv_coding("bt601", "limited"))
    assert from_rgb(noise(7, 8), "yuyv", yuv_coding("bt601", "limited")).shape == (7, 8, 2)
