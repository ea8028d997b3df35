"""Checks one image file: is it complete, and what must change so that every reader sees the same 8-bit RGB pixels.

Truncation is detected twice: the end marker (JPEG EOI after the last scan, PNG IEND) must be present, and the decoder
must deliver every pixel, and for a JPEG must not run out of coded data (see `jpeg_check`). A PNG's chunks must be known
and their checksums correct: decoders other than Pillow's insist on that.
"""

import io
import threading
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import cv2
import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError, features

from components.datasets.jpeg_check import Scans, find_scans, is_cut, shrink
from yolo_core.data.image import MAX_PIXELS

EXIF_ORIENTATION = 0x0112
EXIF_MARKS = (b"\xff\xe1", b"eXIf")  # of the segment of a JPEG and the chunk of a PNG that hold it
TRANSPOSING = (5, 6, 7, 8)  # EXIF orientations that swap width and height
FORMATS = ("JPEG", "PNG", "BMP", "GIF", "WEBP", "TIFF", "PPM", *(("AVIF",) if features.check("avif") else ()))
HEIC_BRANDS = (b"heic", b"heix", b"hevc", b"heim", b"heis", b"mif1", b"msf1")  # at bytes 8 to 12, after "ftyp"
LFS_POINTER = b"version https://git-lfs.github.com/spec/"
POINTER_ADVICE = "a pointer of Git LFS; run git lfs pull"
PAGE_START_BYTES = 256
SUFFIXES = {"JPEG": (".jpg", ".jpeg"), "PNG": (".png",)}
JPEG_QUALITY = 95
MAX_SIDE = 65_500  # pixels; JPEG's limit, and about OpenCV's
MAX_BYTES = 8 * MAX_PIXELS  # of a file: four channels of 16 bits, uncompressed
BAND = 256  # rows converted at a time
WAIT_S = 600.0  # for memory to decode in; then it is decoded anyway
PNG_END = b"IEND\xaeB`\x82"
PNG_CHUNKS = (b"IHDR", b"PLTE", b"IDAT", b"IEND")  # that the pixels depend on; OpenCV refuses files with others
PNG_START_BYTES = 8  # of the signature before the first chunk
DEEP, NARROW = "16-bit", "16-bit-narrow"  # narrow: of FEW_SHADES in 8 bits, as 12 bits in a 16-bit file are
FEW_SHADES = 16
UNROTATED, TURNED = "labelled-unrotated", "exif-rotation"
CONVERSIONS = {"L": "greyscale", "LA": "greyscale", "1": "greyscale", "P": "palette", "PA": "palette"}
CONVERSIONS |= {"CMYK": "cmyk", "RGBA": "alpha", "RGBX": "alpha", "RGBa": "alpha", "La": "greyscale"}


class BadImage(Exception):
    """The file cannot be used; the message says why."""


@dataclass(frozen=True)
class CheckedImage:
    """An image that every reader decodes to the same pixels."""

    data: bytes
    """The content of the file to write."""
    suffixes: tuple[str, ...]
    """File name endings for it."""
    width: int
    """Width, px."""
    height: int
    """Height, px."""
    scale: tuple[float, float]
    """Factors (x, y) from recorded to actual pixels."""
    conversions: tuple[str, ...]
    """Conversions applied to the image."""


def check_image(data: bytes, recorded_px: tuple[float, float] | None = None) -> CheckedImage:
    """Check the content of an image file against its recorded (width, height) in px, if any.

    A plain 8-bit RGB JPEG or PNG is kept byte for byte; anything else is re-encoded (JPEG stays JPEG, the rest becomes
    PNG). Raises BadImage.
    """
    image, container, scans = _open(data)
    with _budget.reserved(image.width * image.height // (64 if scans and scans.count == 1 else 1)):
        return _checked(image, container, scans, data, recorded_px)


class _PixelBudget:
    """Limits the pixels that are decoded at the same time, over all threads."""

    def __init__(self, pixels: int) -> None:
        self._free = pixels
        self._changed = threading.Condition()

    @contextmanager
    def reserved(self, pixels: int) -> Iterator[None]:
        with self._changed:
            self._changed.wait_for(lambda: self._free >= pixels, WAIT_S)
            self._free -= pixels
        try:
            yield
        finally:
            with self._changed:
                self._free += pixels
                self._changed.notify_all()


_budget = _PixelBudget(MAX_PIXELS)


def _checked(
    image: Image.Image, container: str, scans: Scans | None, data: bytes, recorded_px: tuple[float, float] | None
) -> CheckedImage:
    conversion = _conversion(image, container)
    if container != "JPEG":
        _decode(image)  # before reading the EXIF, which decodes these formats too and hides what fails
    stored_px, orientation = image.size, _orientation(image)
    rotate, scale, corrected = _frame(stored_px, orientation, recorded_px)
    turned = rotate and orientation != 1
    unclear = orientation == 1 and not _opencv_sees_upright(data)
    plain = conversion is None and orientation == 1 and not unclear
    shrunk = plain and scans is not None and scans.count == 1
    if shrunk:
        shrink(image)
    _decode(image)
    if scans and is_cut(image, data, scans, shrunk=shrunk):
        raise BadImage("truncated: the data end before the picture does")
    narrow = None
    if not plain:
        container = "JPEG" if container == "JPEG" else "PNG"
        rgb = _to_rgb(ImageOps.exif_transpose(image) if turned else image)
        narrow = NARROW if conversion == DEEP and _has_few_shades(rgb) else None
        data = _encode(rgb, container)
    rotation = TURNED if turned else "exif-unclear" if unclear else None
    width, height = stored_px[::-1] if turned and orientation in TRANSPOSING else stored_px
    conversions = tuple(name for name in (conversion, narrow, rotation, corrected) if name)
    return CheckedImage(data, SUFFIXES[container], width, height, scale, conversions)


def _open(data: bytes) -> tuple[Image.Image, str, Scans | None]:
    """The image, not yet decoded, its format ("JPEG", "PNG" or another) and the scans of a JPEG."""
    if not data:
        raise BadImage("unreadable: empty file")
    try:
        image = Image.open(io.BytesIO(data), formats=FORMATS)
    except UnidentifiedImageError:
        raise BadImage(f"unreadable: {_named(data)}") from None
    except Exception as error:  # decoders raise all kinds of errors
        raise BadImage(f"unreadable: {error}") from None
    if image.width * image.height > MAX_PIXELS or max(image.size) > MAX_SIDE:
        raise BadImage(f"too large: {image.width}x{image.height} px; at most {MAX_PIXELS / 1e6:g} megapixels")
    container = "JPEG" if image.format in ("JPEG", "MPO") else str(image.format)
    scans = find_scans(data) if container == "JPEG" else None
    if (container == "JPEG" and scans is None) or (container == "PNG" and PNG_END not in data):
        raise BadImage("truncated: the end of the file is missing")
    if scans and not scans.are_complete:
        raise BadImage("truncated: the last scans are missing")
    if image.format == "PNG" and not png_chunks_hold(data):
        raise BadImage("unreadable: unknown chunk type, or wrong checksum")
    return image, container, scans


def _named(data: bytes) -> str:
    """What kind of file this is, as Pillow does not know it."""
    if data[4:8] == b"ftyp" and data[8:12] in HEIC_BRANDS:
        return "a HEIC image; convert it to JPEG"
    if data.startswith(LFS_POINTER):
        return POINTER_ADVICE
    if data[:PAGE_START_BYTES].lstrip().lower().startswith((b"<!doctype html", b"<html")):
        return "a web page, as servers send instead of an image"
    return "not an image of a known format"


def _decode(image: Image.Image) -> None:
    try:
        image.load()
    except Exception as error:  # decoders raise all kinds of errors
        truncated = "truncated" in str(error) or "unexpected end" in str(error).lower()
        raise BadImage(f"{'truncated' if truncated else 'unreadable'}: {error}") from None


def png_chunks_hold(data: bytes) -> bool:
    """Do the chunks of a PNG lead to its end, those that the pixels need being known and intact?"""
    view, position = memoryview(data), PNG_START_BYTES
    while position + 12 <= len(data):
        length, kind = int.from_bytes(view[position : position + 4], "big"), bytes(view[position + 4 : position + 8])
        end = position + 8 + length
        needed = not kind[0] & 0x20  # a lower-case first letter marks a chunk that readers may skip
        if not kind.isalpha() or (needed and kind not in PNG_CHUNKS):
            return False
        if needed and zlib.crc32(view[position + 4 : end]) != int.from_bytes(view[end : end + 4], "big"):
            return False
        if kind == b"IEND":
            return True
        position = end + 4
    return False


def _orientation(image: Image.Image) -> int:
    """The EXIF orientation; 1 (upright) if there is none or it is unreadable."""
    try:
        value = image.getexif().get(EXIF_ORIENTATION, 1)
    except Exception:  # malformed EXIF is ignored
        return 1
    return value if isinstance(value, int) and 1 <= value <= 8 else 1


def _opencv_sees_upright(data: bytes) -> bool:
    """Does OpenCV, which training reads with, leave the pixels as stored? Its EXIF reader accepts malformed tags.

    Compares at an eighth of each side, which is cheap.
    """
    if not any(mark in data for mark in EXIF_MARKS):
        return True
    coded, smallest = np.frombuffer(data, np.uint8), cv2.IMREAD_REDUCED_GRAYSCALE_8
    seen, stored = (cv2.imdecode(coded, smallest | flag) for flag in (0, cv2.IMREAD_IGNORE_ORIENTATION))
    return seen is not None and stored is not None and np.array_equal(seen, stored)


def _conversion(image: Image.Image, container: str) -> str | None:
    """The conversion that makes it plain 8-bit RGB in a JPEG or PNG, if one is needed."""
    if _is_16_bit(image):
        return DEEP
    if image.mode == "F":
        raise BadImage("unreadable: floating-point pixels have no known range")
    if image.mode != "RGB":
        return CONVERSIONS.get(image.mode, "colour-space")
    return None if container in SUFFIXES else "format"


def _is_16_bit(image: Image.Image) -> bool:
    """Pillow opens 16-bit RGB as 8-bit "RGB"; only the decoder's raw mode, its first argument, tells."""
    arguments = [tile[3] for tile in getattr(image, "tile", [])]
    raw_modes = [one[0] if isinstance(one, tuple) else one for one in arguments]
    return image.mode.startswith("I") or any("16" in str(mode) for mode in raw_modes)


def _has_few_shades(rgb: Image.Image) -> bool:
    return int(np.ptp(np.array(rgb.getextrema()))) < FEW_SHADES


def _frame(
    stored_px: tuple[int, int], orientation: int, recorded_px: tuple[float, float] | None
) -> tuple[bool, tuple[float, float], str | None]:
    """The orientation and size, px, that the recorded size, and so the boxes, refer to.

    Returns (whether to rotate upright, scale of the boxes, name of the correction). The size in a viewer that honours
    EXIF is tried first; the size as stored means that unrotated pixels were labelled, which then stay unrotated. A size
    of the same aspect ratio means that the image was resized after labelling.
    """
    upright_px = stored_px[::-1] if orientation in TRANSPOSING else stored_px
    if recorded_px is None:
        return True, (1.0, 1.0), None
    if recorded_px == upright_px:
        return True, (1.0, 1.0), None
    if recorded_px == stored_px:
        return False, (1.0, 1.0), UNROTATED
    for rotate, real_px in ((True, upright_px), (False, stored_px)):
        ratio = max(real_px) / max(recorded_px)
        off_px = max(abs(recorded * ratio - real) for recorded, real in zip(recorded_px, real_px, strict=True))
        if off_px <= max(1.0, ratio):  # one pixel of rounding in either image
            return rotate, (real_px[0] / recorded_px[0], real_px[1] / recorded_px[1]), "size-corrected"
    raise BadImage(
        f"recorded size {recorded_px[0]:g}x{recorded_px[1]:g} disagrees with the file's {upright_px[0]}x{upright_px[1]}"
    )


def _to_rgb(image: Image.Image) -> Image.Image:
    """Convert to 8-bit RGB; of 16-bit values the upper byte is kept, as image viewers do."""
    return (_upper_byte(image) if image.mode.startswith("I") else image).convert("RGB")


def _upper_byte(image: Image.Image) -> Image.Image:
    high = Image.new("L", image.size)
    for top in range(0, image.height, BAND):
        band = np.asarray(image.crop((0, top, image.width, min(top + BAND, image.height))))
        high.paste(Image.fromarray((np.clip(band, 0, 65535) >> 8).astype(np.uint8)), (0, top))
    return high


def _encode(image: Image.Image, container: str) -> bytes:
    buffer = io.BytesIO()
    clean = Image.new("RGB", image.size)  # leaves EXIF, profile and transparency behind
    clean.paste(image)
    if container == "JPEG":
        clean.save(buffer, "JPEG", quality=JPEG_QUALITY, subsampling=0)
    else:
        clean.save(buffer, "PNG", compress_level=3)
    return buffer.getvalue()
