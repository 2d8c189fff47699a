"""The guard over pictures of a real network that breaks, through the Translator and picture files."""

from __future__ import annotations

import logging
from collections.abc import Callable

import numpy as np
import pytest
from breaking import breaking, bright, dark
from edgeturbo import Translator
from edgeturbo.benchmarks.guard import measure
from edgeturbo.engines.errors import BadFrameError, UsageError
from edgeturbo.engines.manifest import FrameLayout
from edgeturbo.runtime import guard
from edgeturbo.runtime.guard import fault_of, is_constant
from edgeturbo.runtime.image import load_frame, save_image
from edgeturbo.runtime.pictures import PictureFailure, PictureRequest, translate_files
from terminal import Turbo, terminal


@pytest.fixture
def turbo(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Turbo:
    return terminal(monkeypatch, capfd)


@pytest.fixture
def broken(make_bundle) -> Callable[..., Translator]:
    """A Translator of the network that breaks on dark frames."""
    opened = []

    def make(on_bad_frame="error", *, value="nan", **options) -> Translator:
        bundle = breaking(make_bundle(**options), value=value)
        opened.append(Translator(bundle.root, engine="onnxruntime", on_bad_frame=on_bad_frame))
        return opened[-1]

    yield make
    for translator in opened:
        translator.close()


# What is constant


@pytest.mark.parametrize("shape", [(48, 64, 3), (37, 53, 3), (1, 1, 3), (3, 5, 4), (720, 1280, 3)])
def test_a_picture_of_one_colour_is_constant_and_one_of_two_is_not(shape):
    colour = np.arange(shape[2], dtype=np.uint8) * 50
    picture = np.broadcast_to(colour, shape).copy()
    assert is_constant(picture)
    for place in ((0, 0), (shape[0] - 1, shape[1] - 1), (shape[0] // 2, shape[1] // 3), (shape[0] * 5 // 7, 1)):
        if shape[:2] == (1, 1) or place[1] >= shape[1]:
            continue
        for channel in range(shape[2]):
            other = picture.copy()
            other[(*place, channel)] ^= 1
            assert not is_constant(other), (place, channel)


def test_channels_of_other_levels_are_one_colour_and_a_shifted_one_is_not():
    stripes = np.zeros((48, 64, 3), np.uint8)
    stripes[1::2] = 1  # the rows that the grid does not look at
    assert not is_constant(stripes)
    assert is_constant(stripes[::2]), "not contiguous"


@pytest.mark.parametrize("kind", ["nv12", "yuyv", "rgba", "bgr"])
def test_a_cameras_formats_are_constant_where_their_colour_is(kind):
    shape = {"nv12": (72, 64), "yuyv": (48, 64, 2), "rgba": (48, 64, 4), "bgr": (48, 64, 3)}[kind]
    picture = np.full(shape, 16, np.uint8)
    if kind == "nv12":
        picture[48:, ::2], picture[48:, 1::2] = 128, 90
    elif kind == "yuyv":
        picture[:, ::2, 1], picture[:, 1::2, 1] = 128, 90
    elif kind == "rgba":
        picture[..., 3] = 255
    assert is_constant(picture, kind)
    for index in ((5, 9), (shape[0] - 1, 63)):
        other = picture.copy()
        other[index] = 77
        assert not is_constant(other, kind)


def test_what_was_given_is_looked_at_for_a_constant_picture_alone():
    def never() -> np.ndarray:
        raise AssertionError

    assert fault_of(bright(), never) is None
    flat = np.zeros((48, 64, 3), np.uint8)
    assert fault_of(flat, bright) == guard.CONSTANT
    assert fault_of(flat, lambda: flat + 9) is None, "one colour for one colour"


# Through the Translator


@pytest.mark.parametrize(("value", "level"), [("nan", 0), ("inf", 255)])
def test_what_is_not_finite_in_the_network_is_one_colour_outside(broken, value, level):
    translate = broken("pass", value=value)
    assert (translate(dark()) == level).all()
    np.testing.assert_array_equal(translate(bright()), 255 - bright())
    assert translate.guard.bad_frames == {"constant": 1}


def test_a_bad_picture_raises_and_the_next_good_one_comes(broken):
    translate = broken()
    with pytest.raises(BadFrameError, match="constant") as caught:
        translate(dark())
    assert (caught.value.exit_code, "--on-bad-frame" in caught.value.hint) == (5, True)
    np.testing.assert_array_equal(translate(bright()), 255 - bright())
    assert translate.guard.bad_frames == {"constant": 1}


def test_the_last_good_picture_is_repeated_at_the_frames_own_size(broken, caplog):
    translate = broken("last")
    with pytest.raises(BadFrameError):
        translate(dark())
    good = translate(bright())
    kept = good.copy()
    good[:] = 7  # the caller's own
    translate(dark())[:] = 9
    np.testing.assert_array_equal(translate(dark(1)), kept)
    assert translate(dark(size=(80, 60))).shape == (60, 80, 3)
    np.testing.assert_array_equal(translate(bright(2)), 255 - bright(2))
    assert translate.guard.bad_frames == {"constant": 4}
    said = [record.message for record in caplog.records if record.levelno == logging.WARNING]
    assert len(said) == 4, said
    assert "after 3 bad ones" in said[-1]


def test_in_a_batch_each_picture_is_judged_by_its_own_frame(broken):
    frames = np.stack([bright(0), dark(), bright(1), dark(1), dark(2)])
    images = broken("last", batch=3)(frames)
    for image, source in zip(images, (0, 0, 1, 1, 1), strict=True):
        np.testing.assert_array_equal(image, 255 - bright(source))


def test_a_frame_of_one_colour_may_give_a_picture_of_one_colour(broken):
    translate = broken()
    for level in (10, 200):
        assert is_constant(translate(np.full((48, 64, 3), level, np.uint8)))
    assert not translate.guard.bad_frames


def test_what_counts_as_the_frame_is_what_the_network_was_given(broken):
    """Black lines on white, faint: under ``sketch`` the network sees black alone, so black alone may come of it."""
    translate = broken(rules=("sketch", "squash"))
    faint = bright() // 4 + 180
    assert not is_constant(faint)
    assert is_constant(translate(faint))


def test_a_cameras_own_frames_are_judged_too(make_bundle):
    native = breaking(make_bundle(), layout=FrameLayout(64, 48, "bgr", "bgr", "bt601", "limited"))
    with Translator(native.root, engine="onnxruntime") as translate, pytest.raises(BadFrameError):
        translate.translate_native(dark())
    with Translator(native.root, engine="onnxruntime", on_bad_frame="last") as translate:
        translate(bright(1))  # not the one that a native frame's is replaced with
        good = translate.translate_native(bright())
        np.testing.assert_array_equal(translate.translate_native(dark()), good)
        np.testing.assert_array_equal(translate.translate_native(dark()[None]), good[None])
        with Translator(native.root, engine="onnxruntime", on_bad_frame="pass") as careless:
            assert not careless.translate_native(dark()).any()


def test_an_unknown_policy_is_refused(make_bundle):
    with pytest.raises(UsageError, match="--on-bad-frame"):
        Translator(make_bundle().root, on_bad_frame="black")


def test_the_benchmark_of_its_cost_runs(tmp_path):
    found = measure(tmp_path, (64, 48))
    assert found["size"] == "64x48"
    assert set(found["look_us"]) == {"textured", "constant", "last byte differs"}
    assert found["share"] > 0


# Picture files


@pytest.fixture
def folder(tmp_path):
    for name, frame in (("a", bright()), ("b", dark()), ("c", bright(1)), ("d", dark(1))):
        save_image(frame, tmp_path / "in" / f"{name}.png")
    return tmp_path / "in"


@pytest.mark.parametrize("batch", [1, 3])
def test_of_several_pictures_the_good_ones_are_written(broken, folder, tmp_path, batch):
    translate = broken(batch=batch)
    summary = translate_files(translate, PictureRequest(folder, tmp_path / "out"))
    assert [result.source.name for result in summary.results] == ["a.png", "c.png"]
    assert [failure.source.name for failure in summary.failures] == ["b.png", "d.png"]
    assert all(isinstance(failure, PictureFailure) for failure in summary.failures)
    assert sorted(path.name[0] for path in (tmp_path / "out").iterdir()) == ["a", "c"]
    with pytest.raises(BadFrameError):
        translate_files(translate, PictureRequest(folder / "b.png", tmp_path / "b.png"))
    assert not (tmp_path / "b.png").exists()


def test_pictures_are_passed_on_if_asked_and_never_replaced_by_others(broken, folder, tmp_path):
    summary = translate_files(broken(), PictureRequest(folder, tmp_path / "out", on_bad_frame="pass"))
    assert [result.fault for result in summary.results] == [None, "constant", None, "constant"]
    assert not load_frame(summary.results[1].target).any()
    with pytest.raises(UsageError, match="last means nothing for pictures"):
        PictureRequest(folder, tmp_path / "out", on_bad_frame="last")


def test_the_command_ends_with_the_gates_code(turbo, broken, folder, tmp_path):
    bundle = broken().bundle.root
    ort = ("--engine", "onnxruntime")
    ended = turbo("turbo-run", bundle, folder, f"{tmp_path}/out/", *ort)
    assert (ended.code, ended.err.count("bad picture")) == (5, 2), ended.err
    assert len(list((tmp_path / "out").iterdir())) == 2
    ended = turbo("turbo-run", bundle, folder, f"{tmp_path}/out2/", *ort, "--on-bad-frame", "pass")
    assert (ended.code, ended.err.count("is a bad picture")) == (0, 2), ended.err
    # In order, as a stream: the numbered pictures keep their places.
    ended = turbo("turbo-run", bundle, folder, f"{tmp_path}/out3/", *ort, "--on-bad-frame", "last")
    assert (ended.code, "bad frames: constant 2" in ended.out) == (0, True), ended.err
    shown = [load_frame(path) for path in sorted((tmp_path / "out3").iterdir())]
    for image, seed in zip(shown, (0, 0, 1, 1), strict=True):
        np.testing.assert_array_equal(image, 255 - bright(seed))
