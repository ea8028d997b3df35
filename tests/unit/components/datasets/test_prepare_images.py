"""Images in every state: intact, truncated, rotated, in other colour spaces and depths, of another size."""

import io
import json
import zlib

import cv2
import numpy as np
import pytest
from coco_source import CocoFolder, encoded, parameters, pixels
from PIL import Image

from components.datasets.image_check import BadImage, check_image
from components.stages import prepare

SMOOTH = cv2.resize(pixels(8, 6), (160, 120), interpolation=cv2.INTER_CUBIC)
ROTATED_RIGHT = 6  # EXIF orientation: turn the stored pixels by 90 degrees clockwise to see them upright


def exif(orientation: int) -> Image.Exif:
    tags = Image.Exif()
    tags[0x0112] = orientation
    return tags


def as_loader_sees(data: bytes) -> np.ndarray:
    return cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)[..., ::-1]


def quarantine(tmp_path, name: str, data: bytes | None, **size) -> list[dict]:
    source = CocoFolder(tmp_path / "source")
    source.add_image(name, data, [1, 2, 3, 4], **size)
    options = ["prepare.source=coco-dir", f"prepare.location={source.save()}", "prepare.max_bad_fraction=0.5"]
    prepare.run(parameters(*options), out=tmp_path / "out")
    manifest = (tmp_path / "out" / "manifest.json").read_text()
    return json.loads(manifest)["quarantine"]


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (None, "missing file"),
        (b"", "unreadable: empty file"),
        (b"these are words, not pixels", "unreadable: not an image of a known format"),
        (
            b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n",
            "unreadable: a pointer of Git LFS; run git lfs pull",
        ),
        (b"\n<!DOCTYPE html><html>404</html>", "unreadable: a web page, as servers send instead of an image"),
        (encoded(SMOOTH)[:2000], "truncated: the end of the file is missing"),
        (encoded(SMOOTH, "PNG")[:2000], "truncated: the end of the file is missing"),
        (encoded(Image.new("F", (64, 48)), "TIFF"), "unreadable: floating-point pixels have no known range"),
    ],
)
def test_a_bad_file_is_quarantined_with_its_reason(tmp_path, data, reason):
    (entry,) = quarantine(tmp_path, "bad.jpg", data)
    assert (entry["split"], entry["kind"], entry["item"]) == ("train", "image", "bad.jpg")
    assert entry["reason"].startswith(reason)


def test_a_folder_with_the_name_of_an_image_is_quarantined(tmp_path):
    source = CocoFolder(tmp_path / "source")
    (tmp_path / "source/images/train/bad.jpg").mkdir()
    source.add_image("bad.jpg", None)
    options = ["prepare.source=coco-dir", f"prepare.location={source.save()}", "prepare.max_bad_fraction=0.5"]
    prepare.run(parameters(*options), out=tmp_path / "out")
    (entry,) = json.loads((tmp_path / "out/manifest.json").read_text())["quarantine"]
    assert (entry["item"], entry["reason"]) == ("bad.jpg", "unreadable: Is a directory")


@pytest.mark.parametrize("kind", [b"AbCd", b"abC1"])
def test_a_png_with_a_chunk_that_only_some_readers_skip_is_quarantined(tmp_path, kind):
    data, header = encoded(SMOOTH, "PNG"), 33  # bytes of the signature and the first chunk
    chunk = bytes(4) + kind + zlib.crc32(kind).to_bytes(4, "big")
    (entry,) = quarantine(tmp_path, "odd.png", data[:header] + chunk + data[header:])
    assert entry["reason"].startswith("unreadable: unknown chunk type")


def test_a_size_that_disagrees_with_the_file_is_quarantined(tmp_path):
    (entry,) = quarantine(tmp_path, "odd.jpg", encoded(pixels(64, 48)), width=60, height=60)
    assert entry["reason"] == "recorded size 60x60 disagrees with the file's 64x48"


@pytest.mark.parametrize("progressive", [False, True])
@pytest.mark.parametrize("thumbnail", [False, True])
def test_a_jpeg_cut_off_anywhere_is_found(progressive, thumbnail):
    whole = encoded(SMOOTH, quality=90, progressive=progressive)
    if thumbnail:  # an embedded JPEG has its own end marker
        small = b"Exif\0\0" + encoded(pixels(8, 8))
        whole = whole[:2] + b"\xff\xe1" + (len(small) + 2).to_bytes(2, "big") + small + whole[2:]
    assert check_image(whole).data == whole
    for cut in [*range(1, len(whole) - 1, 97), len(whole) - 2, len(whole) - 1]:
        with pytest.raises(BadImage):
            check_image(whole[:cut])
        with pytest.raises(BadImage):
            check_image(whole[:cut] + bytes(len(whole) - cut))  # the hole a broken download leaves


@pytest.mark.parametrize("kind", ["PNG", "BMP", "GIF", "WEBP", "TIFF"])
def test_other_formats_cut_off_are_found(kind):
    whole = encoded(SMOOTH, kind)
    check_image(whole)
    for fraction in (0.1, 0.5, 0.9):
        with pytest.raises(BadImage):
            check_image(whole[: int(fraction * len(whole))])


def test_a_png_with_a_hole_is_found():
    whole = encoded(SMOOTH, "PNG")
    middle = len(whole) // 2
    with pytest.raises(BadImage):
        check_image(whole[:middle] + bytes(50) + whole[middle + 50 :])


def test_bytes_after_the_end_of_a_jpeg_are_harmless():
    data = encoded(SMOOTH) + b"maker's trailer"
    assert check_image(data).data == data


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_plain_rgb_is_kept_byte_for_byte(kind):
    data = encoded(SMOOTH, kind)
    checked = check_image(data, (160, 120))
    assert checked.data == data
    assert (checked.width, checked.height, checked.scale, checked.conversions) == (160, 120, (1, 1), ())


@pytest.mark.parametrize(
    ("image", "kind", "conversion"),
    [
        (Image.fromarray(SMOOTH).convert("L"), "JPEG", "greyscale"),
        (Image.fromarray(SMOOTH).convert("L"), "PNG", "greyscale"),
        (Image.fromarray(SMOOTH).convert("1"), "PNG", "greyscale"),
        (Image.fromarray(SMOOTH).convert("CMYK"), "JPEG", "cmyk"),
        (Image.fromarray(SMOOTH).convert("P"), "PNG", "palette"),
        (Image.fromarray(SMOOTH).convert("P"), "GIF", "palette"),
        (Image.fromarray(SMOOTH).convert("RGBA"), "PNG", "alpha"),
        (Image.fromarray(SMOOTH), "BMP", "format"),
        (Image.fromarray(SMOOTH), "TIFF", "format"),
    ],
)
def test_other_colours_become_plain_rgb(image, kind, conversion):
    checked = check_image(encoded(image, kind))
    assert checked.conversions == (conversion,)
    written = Image.open(io.BytesIO(checked.data))
    assert (written.mode, written.format) == ("RGB", "JPEG" if kind == "JPEG" else "PNG")
    assert checked.suffixes[0] == (".jpg" if kind == "JPEG" else ".png")
    difference = np.abs(np.asarray(written, int) - np.asarray(image.convert("RGB"), int)).mean()
    assert difference < (2 if kind == "JPEG" else 0.001)


def test_sixteen_bits_keep_their_upper_byte():
    grey = np.arange(64 * 48, dtype=np.uint16).reshape(48, 64) * 20  # 0 to 61420
    checked = check_image(encoded(Image.fromarray(grey), "PNG"))
    assert checked.conversions == ("16-bit",)
    assert (as_loader_sees(checked.data) == (grey // 256)[..., None]).all()


@pytest.mark.parametrize(("brightest", "narrow"), [(4095, False), (4000, True)])  # 4095 / 256 = 15.99, 16 shades
def test_twelve_bits_in_a_file_of_sixteen_are_noted(brightest, narrow):
    grey = np.linspace(0, brightest + (0 if narrow else 1), 64 * 48).astype(np.uint16).reshape(48, 64)
    conversions = check_image(encoded(Image.fromarray(grey), "PNG")).conversions
    assert conversions == (("16-bit", "16-bit-narrow") if narrow else ("16-bit",))


@pytest.mark.parametrize("width", [160, 1616])
def test_a_width_with_16_in_it_is_no_depth(width):
    checked = check_image(encoded(Image.fromarray(pixels(width, 4)).convert("P"), "BMP"))
    assert checked.conversions == ("palette",)


def test_sixteen_bit_colour_is_found_too():
    colour = np.random.default_rng(0).integers(0, 65536, (48, 64, 3), dtype=np.uint16)
    checked = check_image(cv2.imencode(".png", colour[..., ::-1])[1].tobytes())
    assert checked.conversions == ("16-bit",)
    assert np.abs(as_loader_sees(checked.data).astype(int) - colour // 256).max() <= 1


@pytest.mark.parametrize("orientation", range(2, 9))
def test_exif_rotation_is_applied_to_the_pixels(orientation):
    data = encoded(SMOOTH, exif=exif(orientation), quality=95)
    checked = check_image(data)
    assert checked.conversions == ("exif-rotation",)
    written = as_loader_sees(checked.data)
    assert written.shape == (checked.height, checked.width, 3)
    assert (checked.width, checked.height) == ((120, 160) if orientation >= 5 else (160, 120))
    assert np.abs(written.astype(int) - as_loader_sees(data)).mean() < 2  # OpenCV honours EXIF itself
    assert Image.open(io.BytesIO(checked.data)).getexif().get(0x0112) is None


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_an_orientation_that_only_some_readers_heed_is_removed(kind):
    malformed = exif(ROTATED_RIGHT).tobytes().replace(b"\x01\x12\x00\x03", b"\x01\x12\x01\x03")  # an invalid type
    data = encoded(SMOOTH, kind, exif=malformed)
    assert as_loader_sees(data).shape == (160, 120, 3)
    assert Image.open(io.BytesIO(data)).getexif().get(0x0112) is None
    checked = check_image(data, (160, 120))
    assert checked.conversions == ("exif-unclear",)
    written = as_loader_sees(checked.data)
    assert written.shape == (checked.height, checked.width, 3) == (120, 160, 3)
    assert np.abs(written.astype(int) - SMOOTH).mean() < 3


def test_labels_made_on_unrotated_pixels_keep_them_unrotated():
    data = encoded(SMOOTH, exif=exif(ROTATED_RIGHT))  # stored 160x120, seen 120x160
    checked = check_image(data, (160, 120))
    assert checked.conversions == ("labelled-unrotated",)
    assert np.abs(as_loader_sees(checked.data).astype(int) - SMOOTH).mean() < 3


def test_a_size_that_is_not_recorded_is_taken_from_the_file():
    assert check_image(encoded(pixels(64, 48)), None).width == 64


def test_an_image_resized_after_labelling_scales_its_boxes(tmp_path):
    source = CocoFolder(tmp_path / "source")
    source.add_image("half.jpg", encoded(pixels(64, 48)), [20, 10, 40, 30], width=128, height=96)
    prepare.run(parameters("prepare.source=coco-dir", f"prepare.location={source.save()}"), out=tmp_path / "out")
    document = json.loads((tmp_path / "out/annotations/instances_train.json").read_text())
    image, annotation = document["images"][-1], document["annotations"][-1]
    assert (image["width"], image["height"]) == (64, 48)
    assert annotation["bbox"] == [10, 5, 20, 15]
    assert annotation["area"] == 300  # 20 * 15


def test_a_wrong_file_extension_is_corrected(tmp_path):
    source = CocoFolder(tmp_path / "source")
    source.add_image("grey.bmp", encoded(Image.new("L", (64, 48), 90), "BMP"))
    prepare.run(parameters("prepare.source=coco-dir", f"prepare.location={source.save()}"), out=tmp_path / "out")
    assert as_loader_sees((tmp_path / "out/images/train/grey.bmp.png").read_bytes())[0, 0].tolist() == [90, 90, 90]
