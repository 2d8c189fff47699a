from __future__ import annotations

import struct
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from edgeturbo.engines.errors import BundleError, ImageError, MissingComponentError, UsageError
from edgeturbo.engines.manifest import FrameLayout, FrameRules
from edgeturbo.runtime.image import (
    frame_note,
    load_frame,
    prepare,
    refuse_unknown_rules,
    restore,
    save_image,
    size_note,
)
from PIL import Image, ImageDraw

ORIENTATION = 0x0112


def png(width: int, height: int, depth: int, colour: int, rows: bytes) -> bytes:
    """A PNG by hand: Pillow cannot write 16-bit RGB."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def tiff(*tags: tuple[int, int, int, int], data: bytes) -> bytes:
    """A little-endian TIFF by hand: one directory, then ``data`` (8 bytes + 2 + 12 a tag + 4 into the file)."""
    directory = struct.pack("<H", len(tags)) + b"".join(struct.pack("<HHII", *tag) for tag in tags) + b"\0\0\0\0"
    return b"II*\0" + struct.pack("<I", 8) + directory + data


def saved(path: Path, picture: Image.Image, **options: object) -> Path:
    picture.save(path, **options)
    return path


@pytest.mark.parametrize("suffix", [".png", ".bmp", ".tif", ".tiff"])
def test_lossless_files_come_back_as_they_were(tmp_path, make_frame, suffix):
    frame = make_frame()
    save_image(frame, tmp_path / f"deeper/a{suffix}")
    loaded = load_frame(tmp_path / f"deeper/a{suffix}")
    assert (loaded.dtype, loaded.flags.c_contiguous, loaded.flags.writeable) == (np.uint8, True, True)
    np.testing.assert_array_equal(loaded, frame)


@pytest.mark.parametrize("suffix", [".jpg", ".jpeg", ".webp", ".JPG"])
def test_lossy_files_come_back_nearly_as_they_were(tmp_path, suffix):
    ramp = np.broadcast_to(np.arange(0, 128, 2, dtype=np.uint8)[None, :, None], (48, 64, 3)).copy()
    save_image(ramp, tmp_path / f"a{suffix}")
    assert np.abs(load_frame(tmp_path / f"a{suffix}").astype(int) - ramp).max() <= 8


def test_jpeg_is_written_with_quality_95(tmp_path, make_frame):
    save_image(make_frame(), tmp_path / "a.jpg")
    Image.fromarray(make_frame()).save(tmp_path / "b.jpg", quality=95)
    assert (tmp_path / "a.jpg").read_bytes() == (tmp_path / "b.jpg").read_bytes()


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGBA", "CMYK", "PA"])
def test_other_modes_become_rgb_as_pillow_converts_them(tmp_path, make_frame, mode):
    picture = Image.fromarray(make_frame()).convert("L" if mode == "LA" else "RGB").convert(mode.replace("PA", "P"))
    path = saved(tmp_path / ("a.tif" if mode == "CMYK" else "a.png"), picture)
    np.testing.assert_array_equal(load_frame(path), np.array(picture.convert("RGB")))


def test_alpha_is_dropped_and_not_blended(tmp_path, make_frame):
    frame = make_frame()
    alpha = np.zeros((48, 64, 1), np.uint8)
    path = saved(tmp_path / "a.png", Image.fromarray(np.concatenate([frame, alpha], axis=2)))
    np.testing.assert_array_equal(load_frame(path), frame)


def test_a_palette_with_transparency_loads_without_a_warning(tmp_path):
    picture = Image.new("P", (4, 4), 1)
    picture.putpalette([0, 0, 0, 10, 20, 30])
    assert load_frame(saved(tmp_path / "a.png", picture, transparency=b"\x00\x80"))[0, 0].tolist() == [10, 20, 30]
    assert load_frame(saved(tmp_path / "a.gif", picture, transparency=1))[0, 0].tolist() == [10, 20, 30]


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp", ".tif"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_rotated_pictures_are_turned_upright(tmp_path, suffix, orientation):
    upright = Image.new("RGB", (48, 32), "black")
    ImageDraw.Draw(upright).rectangle([0, 0, 23, 15], fill="white")
    ImageDraw.Draw(upright).rectangle([24, 0, 47, 15], fill="grey")
    # How a camera stores it, from the EXIF specification: which way row 0 and column 0 of the file face.
    stored = {
        1: lambda a: a,
        2: lambda a: a[:, ::-1],
        3: lambda a: a[::-1, ::-1],
        4: lambda a: a[::-1],
        5: lambda a: a.swapaxes(0, 1),
        6: lambda a: np.rot90(a, 1),
        7: lambda a: a[::-1, ::-1].swapaxes(0, 1),
        8: lambda a: np.rot90(a, -1),
    }
    pixels = np.ascontiguousarray(stored[orientation](np.asarray(upright)))
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    options = {"lossless": True} if suffix == ".webp" else {}
    path = saved(tmp_path / f"a{suffix}", Image.fromarray(pixels), exif=exif, **options)
    loaded = load_frame(path)
    assert loaded.shape == (32, 48, 3)
    assert np.abs(loaded.astype(int) - np.asarray(upright)).max() <= (8 if suffix == ".jpg" else 0)


def test_of_an_mpo_the_first_view_is_taken(tmp_path):
    views = [Image.new("RGB", (16, 16), colour) for colour in ("red", "blue")]
    path = saved(tmp_path / "a.jpg", views[0], format="MPO", save_all=True, append_images=views[1:])
    with Image.open(path) as picture:
        assert (picture.format, picture.n_frames) == ("MPO", 2)
    assert load_frame(path)[8, 8].tolist() == pytest.approx([255, 0, 0], abs=2)


def deep_tiff(planes: int) -> bytes:
    """8x4 RGB, 16 bits a channel, in one plane or three; the tags' longer values lie just before the pixels."""
    after = 8 + 2 + 12 * 10 + 4
    pixels, share = after + 6 + 24, 192 // planes
    where = [pixels + share * i for i in range(planes)]
    return tiff(
        (256, 3, 1, 8),
        (257, 3, 1, 4),
        (258, 3, 3, after),
        (259, 3, 1, 1),
        (262, 3, 1, 2),
        (273, 4, planes, after + 6 if planes > 1 else pixels),
        (277, 3, 1, 3),
        (278, 3, 1, 4),
        (279, 4, planes, after + 18 if planes > 1 else share),
        (284, 3, 1, 2 if planes > 1 else 1),
        data=struct.pack("<HHH", 16, 16, 16) + struct.pack("<6I", *(where * 3)[:3], *[share] * 3) + bytes(range(192)),
    )


DEEP = {
    "16-bit grey": png(4, 3, 16, 0, b"".join(b"\0" + bytes(8) for _ in range(3))),
    "16-bit grey with alpha": png(4, 3, 16, 4, b"".join(b"\0" + bytes(16) for _ in range(3))),
    "16-bit RGB": png(4, 3, 16, 2, b"".join(b"\0" + bytes(24) for _ in range(3))),
    "16-bit RGBA": png(4, 3, 16, 6, b"".join(b"\0" + bytes(32) for _ in range(3))),
    "16-bit RGB TIFF": deep_tiff(1),
    "16-bit RGB TIFF, separate planes": deep_tiff(3),
}


@pytest.mark.parametrize("data", DEEP.values(), ids=DEEP)
def test_more_than_8_bits_a_channel_is_refused(tmp_path, data):
    (tmp_path / "a.png").write_bytes(data)
    with Image.open(tmp_path / "a.png") as picture:
        picture.load()  # a valid file: what is refused is its depth
    with pytest.raises(ImageError, match="more than 8 bits a channel") as caught:
        load_frame(tmp_path / "a.png")
    assert "8-bit PNG" in caught.value.hint


@pytest.mark.parametrize("mode", ["I", "F", "I;16"])
def test_deep_grey_tiffs_are_refused(tmp_path, mode):
    path = saved(tmp_path / "a.tif", Image.new(mode, (8, 8)))
    with pytest.raises(ImageError, match="more than 8 bits a channel"):
        load_frame(path)


def test_a_16_bit_pixel_bmp_is_not_mistaken_for_16_bits_a_channel(tmp_path):
    header = struct.pack("<IiiHHIIiiII", 40, 2, 2, 1, 16, 3, 8, 0, 0, 0, 0) + struct.pack("<III", 0xF800, 0x07E0, 0x1F)
    data = struct.pack("<HHHH", 0xF800, 0x07E0, 0x001F, 0xFFFF)
    (tmp_path / "a.bmp").write_bytes(b"BM" + struct.pack("<IHHI", 14 + 52 + 8, 0, 0, 66) + header + data)
    assert load_frame(tmp_path / "a.bmp")[1].tolist() == [[255, 0, 0], [0, 255, 0]]


@pytest.mark.parametrize("suffix", [".gif", ".webp", ".png", ".tif"])
def test_animations_and_pages_are_refused(tmp_path, make_frame, suffix):
    frames = [Image.fromarray(make_frame(seed=seed)) for seed in range(3)]
    path = saved(tmp_path / f"a{suffix}", frames[0], save_all=True, append_images=frames[1:])
    with pytest.raises(ImageError, match="animated or has several pages") as caught:
        load_frame(path)
    assert caught.value.got == "3 frames"


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".webp", ".bmp", ".tif", ".gif"])
@pytest.mark.parametrize("kept", [0.5, 0.99])
def test_truncated_files_are_refused(tmp_path, make_frame, suffix, kept):
    path = saved(tmp_path / f"a{suffix}", Image.fromarray(make_frame()))
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * kept)])
    with pytest.raises(ImageError, match=r"damaged, cut short|not a picture") as caught:
        load_frame(path)
    assert str(path) in str(caught.value)


def test_a_damaged_png_is_refused(tmp_path, make_frame):
    path = saved(tmp_path / "a.png", Image.fromarray(make_frame()))
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    with pytest.raises(ImageError, match="damaged"):
        load_frame(path)


def test_what_pillows_parsers_raise_on_changed_bytes_becomes_an_image_error(tmp_path, make_frame):
    exif = Image.Exif()
    exif[ORIENTATION] = 6
    random = np.random.default_rng(0)
    for suffix in (".png", ".jpg", ".webp", ".bmp", ".tif", ".gif"):
        whole = saved(tmp_path / f"a{suffix}", Image.fromarray(make_frame(8, 8)), exif=exif).read_bytes()
        for _ in range(300):
            data = bytearray(whole)
            for place in random.integers(0, min(len(data), 200), 3):
                data[place] = random.integers(0, 256)
            (tmp_path / "b").write_bytes(data)
            try:
                load_frame(tmp_path / "b")
            except ImageError:
                continue


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda _: None, "does not exist"),
        (lambda path: path.mkdir(), "is not a file"),
        (lambda path: path.write_bytes(b""), "is empty"),
        (lambda path: path.write_bytes(b"\x89PNG\r\n\x1a\n\0\0\0\x01IHDR\0\0\0\0\0"), "damaged"),
        (lambda path: path.write_text("not a picture"), "not a picture this package reads"),
        (lambda path: path.write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n"), "not a picture"),
    ],
    ids=["missing", "folder", "empty", "short header", "text", "postscript"],
)
def test_what_is_no_picture_is_refused(tmp_path, make, message):
    make(tmp_path / "a.png")
    with pytest.raises(ImageError, match=message) as caught:
        load_frame(str(tmp_path / "a.png"))
    assert caught.value.exit_code == 3


@pytest.mark.filterwarnings("ignore")  # as where warnings are not errors
@pytest.mark.parametrize("limit", [1500, 3000], ids=["twice too many", "too many"])
def test_decompression_bombs_are_refused(tmp_path, make_frame, monkeypatch, limit):
    path = saved(tmp_path / "a.png", Image.fromarray(make_frame()))  # 3,072 pixels
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limit)
    with pytest.raises(ImageError, match="too many pixels") as caught:
        load_frame(path)
    assert f"{limit:,}" in caught.value.expected


@pytest.mark.parametrize("size", [(32, 24), (200, 40), (64, 96), (8, 8)])
def test_resizing_is_pillows_lanczos(make_frame, size):
    frame = make_frame()
    expected = np.array(Image.fromarray(frame).resize(size, Image.LANCZOS))
    np.testing.assert_array_equal(prepare(frame, *size, "raw"), expected)
    np.testing.assert_array_equal(restore(frame, *size, "squash"), expected)


def test_nothing_is_copied_when_there_is_nothing_to_do(make_frame):
    frame = make_frame()
    assert prepare(frame, 64, 48, "raw") is frame
    assert restore(frame, 64, 48, "squash") is frame
    assert restore(frame, 640, 480, "floor8") is frame


def test_a_view_of_a_frame_is_resized_as_its_copy(make_frame):
    frame = make_frame()[:, ::-1, ::-1]
    for prep in ("raw", "canny", "sketch"):
        for size in ((64, 48), (32, 24)):
            np.testing.assert_array_equal(prepare(frame, *size, prep), prepare(frame.copy(), *size, prep))


def soft_frame() -> np.ndarray:
    """Soft blobs: edges of every strength, so that each threshold decides over some."""
    blobs = np.random.default_rng(0).integers(100, 160, (24, 32, 3), dtype=np.uint8)
    return np.array(Image.fromarray(blobs).resize((128, 96), Image.BICUBIC))


def test_canny_is_the_published_one_after_the_resize():
    import cv2

    resized = np.array(Image.fromarray(soft_frame()).resize((64, 48), Image.LANCZOS))
    edges = cv2.Canny(resized, 100, 200)
    assert set(np.unique(edges)) == {0, 255}
    prepared = prepare(soft_frame(), 64, 48, "canny")
    np.testing.assert_array_equal(prepared, np.stack([edges] * 3, axis=2))


def test_canny_without_opencv_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "cv2", None)
    with pytest.raises(MissingComponentError) as caught:
        prepare(soft_frame(), 64, 48, "canny")
    assert caught.value.hint == 'pip install "edgeturbo[canny]"'


def test_sketch_is_the_published_threshold_on_every_value():
    values = np.arange(256, dtype=np.uint8).reshape(16, 16, 1).repeat(3, axis=2)
    values[..., 1] = 255 - values[..., 0]
    reference = (torch.from_numpy(values).permute(2, 0, 1).float().div(255) < 0.5).float()  # to_tensor(image) < 0.5
    prepared = prepare(values, 16, 16, "sketch")
    assert prepared.dtype == np.uint8
    np.testing.assert_array_equal(prepared / 255.0, reference.permute(1, 2, 0).numpy())


@pytest.mark.parametrize(
    ("frame", "model", "rule", "note"),
    [
        ((641, 487), (640, 480), "floor8", None),
        ((640, 480), (640, 480), "floor8", None),
        ((640, 480), (512, 512), "squash", None),
        ((648, 487), (640, 480), "floor8", "648x480"),
        ((1280, 720), (512, 512), "floor8", "1280x720"),
    ],
)
def test_the_caller_is_told_of_a_size_the_script_would_not_use(frame, model, rule, note):
    said = size_note(frame, model, rule)
    assert said is None if note is None else note in said and "x".join(map(str, model)) in said


@pytest.mark.parametrize("rules", [FrameRules("depth", "squash"), FrameRules("raw", "crop")])
def test_unknown_rules_are_refused(rules):
    with pytest.raises(BundleError, match="unknown"):
        refuse_unknown_rules(rules)


def test_an_unknown_suffix_is_refused_and_nothing_written(tmp_path, make_frame):
    with pytest.raises(UsageError) as caught:
        save_image(make_frame(), tmp_path / "a.xyz")
    assert ".png" in caught.value.expected
    assert ".webp" in caught.value.expected
    assert list(tmp_path.iterdir()) == []


def test_a_size_that_the_format_cannot_hold_leaves_the_earlier_file(tmp_path):
    (tmp_path / "a.webp").write_text("earlier")
    with pytest.raises(UsageError, match="cannot encode 17000x8"):
        save_image(np.zeros((8, 17000, 3), np.uint8), tmp_path / "a.webp")
    assert [path.read_text() for path in tmp_path.iterdir()] == ["earlier"]


@pytest.mark.parametrize(
    ("size", "kinds", "said"),
    [
        ((64, 48), ("rgb", "rgb"), None),
        ((60, 48), ("rgb", "rgb"), ["resized from 60x48"]),
        ((64, 48), ("nv12", "nv12"), ["converted from RGB (nv12)"]),
        ((64, 48), ("nv12", "rgb"), ["converted from RGB (nv12)"]),
        ((9, 9), ("yuyv", "nv12"), ["64x48 yuyv", "resized from 9x9 and converted from RGB (yuyv and nv12)"]),
    ],
)
def test_a_picture_that_is_no_frame_of_the_camera_is_noted(size, kinds, said):
    note = frame_note(size, FrameLayout(64, 48, *kinds, "bt601", "limited"))
    assert (note is None) == (said is None)
    assert all(words in note for words in said or ())
