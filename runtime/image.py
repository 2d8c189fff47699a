"""Pictures in and out of files, and to and from a model's size, exactly as the published scripts do it.

A frame is a uint8 array ``[height, width, 3]``, RGB, 0 to 255. Source of the rules: ``inference_paired.py``,
``inference_unpaired.py``, ``image_prep.py`` and ``my_utils/training_utils.py`` of GaParmar/img2img-turbo.
"""

from __future__ import annotations

import io
import struct
import warnings
import zlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from ..engines.errors import BundleError, ImageError, MissingComponentError, UsageError
from ..engines.files import replacing

if TYPE_CHECKING:
    from ..engines.manifest import FrameLayout, FrameRules

Frame = NDArray[np.uint8]

# Pillow reads many more; each further one is a parser fed with foreign bytes (EPS would start Ghostscript).
_READABLE = ("PNG", "JPEG", "WEBP", "BMP", "TIFF", "GIF")
READABLE_SUFFIXES = (".bmp", ".gif", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp")

_WRITABLE: dict[str, tuple[str, dict[str, Any]]] = {
    ".png": ("PNG", {}),
    ".jpg": ("JPEG", {"quality": 95}),
    ".jpeg": ("JPEG", {"quality": 95}),
    ".webp": ("WEBP", {"quality": 95}),
    ".bmp": ("BMP", {}),
    ".tif": ("TIFF", {}),
    ".tiff": ("TIFF", {}),
}
WRITABLE_SUFFIXES = tuple(_WRITABLE)

# What Pillow's parsers raise on damaged files, besides the OSError of a truncated one: found by changing bytes of files
# of every format above, and listed in ImageFile.ImageFile.__init__.
_DAMAGE = (
    OSError,
    EOFError,
    SyntaxError,
    ValueError,
    TypeError,
    LookupError,
    ArithmeticError,
    struct.error,
    zlib.error,
)

# The canny thresholds of the published scripts; gradients of RGB values.
_CANNY_LOW, _CANNY_HIGH = 100, 200
# As in RGB;16B. A BMP of 16 bits a pixel, 5 or 6 a channel, has BGR;16.
_PNG_16_BITS = ";16B"
_TIFF_BITS_PER_SAMPLE = 258

# EXIF 2.32, tag Orientation: what turns each stored picture upright. 1 is upright.
_EXIF_ORIENTATION = 0x0112
_UPRIGHT_BY = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}

INPUT_PREPS = ("raw", "canny", "sketch")
RESIZE_RULES = ("squash", "floor8")


def load_frame(path: Path | str) -> Frame:
    """Decode a picture file to a new uint8 ``[height, width, 3]`` RGB array.

    Grey, black-and-white, palette and CMYK pictures become RGB. As in the published scripts (``.convert("RGB")``) an
    alpha channel is dropped, not blended, and a colour profile is not applied. A picture that its EXIF data calls
    rotated is turned upright; the published scripts ignore EXIF. Of an MPO (two views) the first is taken.

    Raises ImageError for what cannot be decoded faithfully: missing, empty, truncated or unknown files, more than
    8 bits a channel, more than one frame, and more pixels than ``PIL.Image.MAX_IMAGE_PIXELS``.
    """
    path = Path(path)
    try:
        _refuse_no_file(path)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # of damaged metadata, or of an alpha that is dropped
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(path, formats=_READABLE) as picture:
                _refuse_unfaithful(path, picture)
                return _upright_rgb(picture)
    except (Image.DecompressionBombWarning, Image.DecompressionBombError) as error:
        raise ImageError(
            f"{path} has too many pixels",
            expected=f"at most {Image.MAX_IMAGE_PIXELS:,} pixels",
            got=str(error),
            hint="make it smaller; if you trust it, raise PIL.Image.MAX_IMAGE_PIXELS from Python",
        ) from error
    except UnidentifiedImageError as error:
        raise ImageError(
            f"{path} is not a picture this package reads", expected=", ".join(_READABLE), hint="convert it to PNG"
        ) from error
    except _DAMAGE as error:
        raise ImageError(
            f"{path} is damaged, cut short or cannot be read", got=str(error), hint="copy or save the picture again"
        ) from error


def _refuse_no_file(path: Path) -> None:
    if not path.exists():
        raise ImageError(f"{path} does not exist", expected="a picture file")
    if not path.is_file():
        raise ImageError(f"{path} is not a file", expected="a picture file", got="a folder" if path.is_dir() else None)
    if path.stat().st_size == 0:
        raise ImageError(f"{path} is empty", expected="a picture file", got="0 bytes", hint="copy the picture again")


def _refuse_unfaithful(path: Path, picture: Image.Image) -> None:
    if picture.format != "MPO" and getattr(picture, "n_frames", 1) > 1:
        raise ImageError(
            f"{path} is animated or has several pages",
            expected="one picture",
            got=f"{getattr(picture, 'n_frames', 1)} frames",
            hint="save the frame you mean as a PNG",
        )
    if _is_deep(picture):
        raise ImageError(
            f"{path} has more than 8 bits a channel, and which of them to show is not this package's to choose",
            expected="8 bits a channel",
            got=f"mode {picture.mode}, {_raw_modes(picture)}",
            hint="convert it to an 8-bit PNG",
        )


def _is_deep(picture: Image.Image) -> bool:
    """Whether more than 8 bits a channel are stored: the mode does not say.

    Pillow gives 16-bit RGB files the mode RGB. Of a PNG it drops the low bytes, which shows in the raw mode alone; of
    a TIFF with separate planes it even reads every byte as a pixel, which shows in the file's own tag alone.
    """
    bits = getattr(picture, "tag_v2", {}).get(_TIFF_BITS_PER_SAMPLE, 1)
    return max(bits if isinstance(bits, tuple) else (bits,)) > 8 or _PNG_16_BITS in _raw_modes(picture)


def _raw_modes(picture: Image.Image) -> str:
    return ", ".join(str(tile[3]) for tile in getattr(picture, "tile", []))


def _upright_rgb(picture: Image.Image) -> Frame:
    picture.load()  # a TIFF turns itself while it loads, and says afterwards that it is upright
    turn = _UPRIGHT_BY.get(picture.getexif().get(_EXIF_ORIENTATION, 1))
    rgb = picture.convert("RGB")
    return np.array(rgb if turn is None else rgb.transpose(turn))


def refuse_unknown_rules(rules: FrameRules) -> None:
    """Raise BundleError for frame rules that this version does not know."""
    for name, known in (("input_prep", INPUT_PREPS), ("resize", RESIZE_RULES)):
        value = getattr(rules, name)
        if value not in known:
            raise BundleError(
                f"the bundle's frame rules have an unknown {name}",
                expected=", ".join(known),
                got=value,
                hint="pip install --upgrade edgeturbo",
            )


def prepare(frame: Frame, width: int, height: int, input_prep: str) -> Frame:
    """The frame as the engine wants it: resized with PIL's LANCZOS, then ``raw``, ``canny`` or ``sketch``.

    Returns uint8 ``[height, width, 3]``; ``raw`` at the model's own size returns ``frame`` itself. ``canny`` gives
    three equal channels of 0 or 255, with the published thresholds 100 and 200. ``sketch`` gives 255 where a channel
    is below half of white, else 0. Raises MissingComponentError when ``canny`` lacks OpenCV.
    """
    resized = _resized(frame, width, height)
    if input_prep == "canny":
        return _canny(resized)
    if input_prep == "sketch":
        # The reference's to_tensor(image) < 0.5, value / 255 < 0.5: white lines, since the graph divides by 255.
        return np.where(resized < 128, np.uint8(255), np.uint8(0))
    return resized


def _canny(frame: Frame) -> Frame:
    try:
        import cv2
    except ImportError as error:
        raise MissingComponentError(
            "this model wants the edges of a frame, and OpenCV, which finds them, is not installed",
            hint='pip install "edgeturbo[canny]"',
        ) from error
    edges = cv2.Canny(frame, _CANNY_LOW, _CANNY_HIGH)
    return np.repeat(np.asarray(edges, dtype=np.uint8)[:, :, None], 3, axis=2)


def restore(image: Frame, width: int, height: int, resize: str) -> Frame:
    """The engine's image as the user wants it, for a frame of ``width`` x ``height``.

    ``squash`` resizes it back to the frame's size with PIL's LANCZOS; ``floor8`` leaves it, as the published scripts
    do. Returns uint8 RGB; ``image`` itself when there is nothing to do.
    """
    return _resized(image, width, height) if resize == "squash" else image


def size_note(frame_size: tuple[int, int], model_size: tuple[int, int], resize: str) -> str | None:
    """One sentence when a ``floor8`` frame is not at the size the published script would run it at, else None.

    Sizes are ``(width, height)`` in pixels. That script runs any frame at its own size, cut to multiples of 8; an
    engine has one size, so another frame changes its aspect or scale.
    """
    natural = (frame_size[0] // 8 * 8, frame_size[1] // 8 * 8)
    if resize != "floor8" or natural == model_size:
        return None
    size, own, model = ("{}x{}".format(*pair) for pair in (frame_size, natural, model_size))
    return f"the frame is {size} and the model {model}: it is resized, where the published script would run at {own}"


def frame_note(frame_size: tuple[int, int], layout: FrameLayout) -> str | None:
    """One sentence when a picture is not a frame as the camera of ``layout`` gives it, else None.

    Sizes are ``(width, height)`` in pixels. Such a picture is resized to the camera's frame and converted on the
    host, and the image back, which a camera's own frames are spared.
    """
    work = []
    if frame_size != (layout.width, layout.height):
        work.append(f"resized from {frame_size[0]}x{frame_size[1]}")
    formats = [kind for kind in dict.fromkeys((layout.format, layout.output_format)) if kind != "rgb"]
    if formats:
        work.append(f"converted from RGB ({' and '.join(formats)})")
    if not work:
        return None
    own = f"{layout.width}x{layout.height} {layout.format}"
    return f"the engine takes frames of {own}: on the host, the picture is {' and '.join(work)}, and its image back"


def save_image(image: Frame, path: Path | str) -> None:
    """Write uint8 ``[H, W, 3]`` RGB in the format that ``path``'s suffix names, atomically; folders are made.

    JPEG and WebP are written with quality 95, the others without loss. Raises UsageError for another suffix or a size
    the format cannot hold, DiskFullError when there is no space; what was at ``path`` is then unchanged.
    """
    path = Path(path)
    data = _encoded(image, path)
    with replacing(path) as temporary:
        temporary.write_bytes(data)


def refuse_unwritable_suffix(path: Path) -> None:
    """Raise UsageError unless ``save_image`` can write a file of this name. Cheap: call it before the long work."""
    if path.suffix.lower() not in _WRITABLE:
        raise UsageError(
            f"cannot tell the picture format of {path}",
            expected=", ".join(WRITABLE_SUFFIXES),
            got=path.suffix or "no suffix",
            hint=f"name it {path.stem}.png",
        )


def _encoded(image: Frame, path: Path) -> bytes:
    """Encoded in memory first: Pillow's own writing loses the reason when a disk is full."""
    refuse_unwritable_suffix(path)
    kind, options = _WRITABLE[path.suffix.lower()]
    stream = io.BytesIO()
    try:
        Image.fromarray(image).save(stream, kind, **options)
    except (OSError, ValueError) as error:
        size = f"{image.shape[1]}x{image.shape[0]}"
        raise UsageError(f"cannot encode {size} pixels as {kind}: {error}", hint="write a .png instead") from error
    return stream.getvalue()


def _resized(frame: Frame, width: int, height: int) -> Frame:
    if frame.shape[:2] == (height, width):
        return frame
    resized = Image.fromarray(frame).resize((width, height), Image.Resampling.LANCZOS)
    return np.array(resized)
