from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from edgeturbo import Translator
from edgeturbo.engines.errors import ImageError, OutputExistsError, UsageError
from edgeturbo.runtime.image import load_frame, save_image
from edgeturbo.runtime.pictures import PictureFailure, PictureRequest, PictureResult, plan_files, translate_files
from PIL import Image


@pytest.fixture
def translator(make_bundle):
    with Translator(make_bundle().root) as opened:
        yield opened


@pytest.fixture
def folder(tmp_path, make_frame):
    """Three pictures of three formats and sizes, and what is not a picture."""
    root = tmp_path / "in"
    for i, name in enumerate(("c.png", "a.bmp", "b.TIF")):
        save_image(make_frame(40 + i, 50 + i, seed=i), root / name)
    (root / "notes.txt").write_text("not a picture")
    (root / "deeper.png").mkdir()
    return root


def names(path: Path) -> list[str]:
    return sorted(entry.name for entry in path.iterdir())


def test_one_picture_to_a_file(translator, folder, tmp_path):
    summary = translate_files(translator, PictureRequest(folder / "c.png", tmp_path / "out/x.bmp"))
    (result,) = summary.results
    assert (result.source, result.target) == (folder / "c.png", tmp_path / "out/x.bmp")
    assert result.frame_size == result.image_size == (50, 40)
    assert min(result.decode_ms, result.translate_ms, result.encode_ms) > 0
    assert result.note is None
    np.testing.assert_array_equal(load_frame(result.target), translator(load_frame(folder / "c.png")))


def test_without_an_output_it_goes_beside_the_input(translator, folder):
    (result,) = translate_files(translator, PictureRequest(str(folder / "c.png"))).results
    assert result.target == folder / "c.edgeturbo.png"


@pytest.mark.parametrize("output", ["out", "out/", "out.d/"])
def test_one_picture_to_a_folder(translator, folder, tmp_path, output):
    (result,) = translate_files(translator, PictureRequest(folder / "a.bmp", f"{tmp_path}/{output}")).results
    assert result.target == tmp_path / output / "a.png"
    assert result.target.is_file()


def test_an_existing_folder_may_have_a_pictures_suffix(translator, folder, tmp_path):
    (tmp_path / "out.png").mkdir()
    (result,) = translate_files(translator, PictureRequest(folder / "a.bmp", tmp_path / "out.png")).results
    assert result.target == tmp_path / "out.png/a.png"


def test_a_folder_is_done_in_order_and_not_its_folders(translator, folder, tmp_path):
    heard = []
    summary = translate_files(translator, PictureRequest(folder, tmp_path / "run.v2"), heard.append)
    assert [result.source.name for result in summary.results] == ["a.bmp", "b.TIF", "c.png"]
    assert heard == list(summary.results)
    assert names(tmp_path / "run.v2") == ["a.png", "b.png", "c.png"]


def test_outputs_of_an_earlier_run_are_not_inputs(translator, folder):
    translate_files(translator, PictureRequest(folder))
    again = [job.source.name for job in plan_files(PictureRequest(folder, force=True))]
    assert again == ["a.bmp", "b.TIF", "c.png"]
    by_pattern = [job.source.name for job in plan_files(PictureRequest(f"{folder}/*.png", force=True))]
    assert by_pattern == ["c.png"]


def test_a_pattern(translator, folder, tmp_path):
    summary = translate_files(translator, PictureRequest(f"{folder}/[ab].*", tmp_path / "out"))
    assert [result.target.name for result in summary.results] == ["a.png", "b.png"]


def test_a_file_whose_name_looks_like_a_pattern_is_taken_literally(translator, folder, make_frame):
    save_image(make_frame(), folder / "a[1].png")
    (result,) = translate_files(translator, PictureRequest(folder / "a[1].png")).results
    assert result.target == folder / "a[1].edgeturbo.png"


@pytest.mark.parametrize("force", [False, True])
def test_outputs_are_checked_before_the_first_frame(make_bundle, folder, tmp_path, force):
    out = tmp_path / "out"
    out.mkdir()
    (out / "c.png").write_text("earlier")
    translator = Translator(make_bundle().root)
    if force:
        translate_files(translator, PictureRequest(folder, out, force=True))
        assert load_frame(out / "c.png").shape == (40, 50, 3)
    else:
        with pytest.raises(OutputExistsError, match=r"c\.png exists") as caught:
            translate_files(translator, PictureRequest(folder, out))
        assert names(out) == ["c.png"]
        assert "--force" in caught.value.hint
        assert (out / "c.png").read_text() == "earlier"


def test_many_existing_outputs_are_counted(folder, make_frame, tmp_path):
    for i in range(5):
        save_image(make_frame(), folder / f"more{i}.png")
        save_image(make_frame(), tmp_path / f"out/more{i}.png")
    with pytest.raises(OutputExistsError, match="and 2 more exist"):
        plan_files(PictureRequest(folder, tmp_path / "out"))


def test_two_inputs_for_one_output_are_named(folder, make_frame, tmp_path):
    save_image(make_frame(), folder / "a.jpg")
    with pytest.raises(UsageError, match=r"a\.bmp and .*a\.jpg would both be written to"):
        plan_files(PictureRequest(folder, tmp_path / "out", force=True))
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("output", ["blocker", "blocker/x.png", "blocker/deeper/x.png"])
def test_a_file_in_the_outputs_way_is_refused(folder, tmp_path, output):
    (tmp_path / "blocker").write_text("a file")
    source = folder if output == "blocker" else folder / "c.png"
    with pytest.raises(UsageError, match="is not a folder"):
        plan_files(PictureRequest(source, tmp_path / output, force=True))
    assert (tmp_path / "blocker").read_text() == "a file"


def test_a_folder_where_a_picture_should_go_is_refused(folder, tmp_path):
    (tmp_path / "out/c.png").mkdir(parents=True)
    with pytest.raises(UsageError, match="is a folder"):
        plan_files(PictureRequest(folder, tmp_path / "out", force=True))


@pytest.mark.parametrize("how", ["file", "folder", "link", "other input"])
def test_inputs_are_never_overwritten(folder, tmp_path, how):
    request = {
        "file": (folder / "c.png", folder / "../in/c.png"),
        "folder": (folder, folder),
        "link": (folder / "c.png", tmp_path / "link.png"),
        "other input": (f"{folder}/*", folder),
    }[how]
    (tmp_path / "link.png").symlink_to(folder / "c.png")
    before = (folder / "c.png").read_bytes()
    with pytest.raises(UsageError, match="never overwritten"):
        plan_files(PictureRequest(*request, force=True))
    assert (folder / "c.png").read_bytes() == before


def test_several_pictures_do_not_go_to_one_file(folder, tmp_path):
    with pytest.raises(UsageError, match="3 pictures cannot go to one file"):
        plan_files(PictureRequest(folder, tmp_path / "x.png"))


def test_an_unknown_suffix_is_refused_before_the_work(folder, tmp_path):
    with pytest.raises(UsageError, match="picture format"):
        plan_files(PictureRequest(folder / "c.png", tmp_path / "x.heic"))


def test_nothing_to_do_is_said(tmp_path, folder):
    (tmp_path / "empty").mkdir()
    for source in (tmp_path / "empty", f"{folder}/*.webp"):
        with pytest.raises(UsageError, match="there are no pictures"):
            plan_files(PictureRequest(source))
    with pytest.raises(ImageError, match="does not exist"):
        plan_files(PictureRequest(folder / "z.png"))


@pytest.mark.parametrize("batch", [1, 2, 3])
def test_one_bad_picture_does_not_stop_the_others(make_bundle, folder, tmp_path, batch):
    (folder / "b.TIF").write_bytes((folder / "b.TIF").read_bytes()[:1000])
    heard = []
    translator = Translator(make_bundle(batch=batch).root)
    summary = translate_files(translator, PictureRequest(folder, tmp_path / "out"), heard.append)
    assert names(tmp_path / "out") == ["a.png", "c.png"]
    (failure,) = summary.failures
    assert failure.source == folder / "b.TIF"
    assert isinstance(failure.error, ImageError)
    assert sorted(type(outcome) is PictureResult for outcome in heard) == [False, True, True]
    for result in summary.results:
        np.testing.assert_array_equal(load_frame(result.target), translator(load_frame(result.source)))


def test_a_folder_of_one_bad_picture_is_a_summary_of_one_failure(translator, tmp_path):
    (tmp_path / "in").mkdir()
    (tmp_path / "in/a.png").touch()
    summary = translate_files(translator, PictureRequest(tmp_path / "in"))
    assert summary.results == ()
    assert isinstance(summary.failures[0], PictureFailure)


def test_the_one_picture_that_is_bad_is_raised(translator, tmp_path):
    (tmp_path / "a.png").touch()
    with pytest.raises(ImageError, match="is empty"):
        translate_files(translator, PictureRequest(tmp_path / "a.png"))


def test_a_note_says_that_a_frame_was_resized(make_bundle, folder):
    translator = Translator(make_bundle(rules=("raw", "floor8")).root)
    (result,) = translate_files(translator, PictureRequest(folder / "c.png")).results
    assert result.image_size == (64, 48)
    assert "48x40" in result.note


def test_a_rotated_picture_is_written_upright(translator, folder, make_frame):
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(make_frame(40, 50)).save(folder / "turned.png", exif=exif)
    (result,) = translate_files(translator, PictureRequest(folder / "turned.png")).results
    assert result.image_size == (40, 50)
    with Image.open(result.target) as written:
        assert written.size == (40, 50)
        assert 0x0112 not in written.getexif()
