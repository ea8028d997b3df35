"""JPEGs that were cut but end in an end marker: they are found, and no whole one is taken for one of them."""

import io
from typing import Any

import cv2
import numpy as np
import pytest
from coco_source import CocoFolder, encoded, parameters, pixels
from hypothesis import assume, given
from hypothesis import strategies as st
from PIL import Image, ImageChops

from components.datasets import manifest
from components.datasets.image_check import BadImage, check_image
from components.stages import prepare

END = b"\xff\xd9"
MCU = 16  # px; the largest square that is coded at once at the samplings below
SMOOTH = cv2.resize(pixels(8, 6), (160, 120), interpolation=cv2.INTER_CUBIC)
RGB_OPTIONS = st.fixed_dictionaries(
    {"quality": st.integers(5, 98), "subsampling": st.sampled_from([0, 1, 2])},
    optional={
        "progressive": st.just(True),
        "optimize": st.just(True),
        "restart_marker_blocks": st.integers(1, 9),
        "restart_marker_rows": st.integers(1, 3),
    },
)


@st.composite
def jpegs(draw: st.DrawFn) -> bytes:
    """Whole files: photographs, noise and flat colours, mid-grey among them, in every way that Pillow can write."""
    width, height = draw(st.integers(1, 90)), draw(st.integers(1, 70))
    kind = draw(st.sampled_from(["smooth", "noise", "flat", "grey corner"]))
    image = {
        "smooth": cv2.resize(SMOOTH, (width, height), interpolation=cv2.INTER_AREA),
        "noise": pixels(width, height, draw(st.integers(0, 9))),
        "flat": np.full((height, width, 3), draw(st.sampled_from([0, 40, 128, 255])), np.uint8),
    }.get(kind)
    if image is None:  # letterboxed in the very grey that decoders fill up with
        image = pixels(width, height)
        image[height // 2 :] = 128
    mode = draw(st.sampled_from(["RGB", "RGB", "RGB", "L", "CMYK"]))
    return encoded(Image.fromarray(image).convert(mode), **draw(RGB_OPTIONS))


def decoded(data: bytes) -> Image.Image:
    image = Image.open(io.BytesIO(data))
    image.load()
    return image


def scan_starts(data: bytes) -> int:
    return data.index(b"\xff\xda") + 14


@given(jpegs(), st.sampled_from([b"", b"\n", bytes(40), b"maker's trailer", END, encoded(SMOOTH)]))
def test_a_whole_jpeg_is_kept_whatever_follows_it(whole: bytes, trailer: bytes):
    check_image(whole + trailer)


@pytest.mark.parametrize(("width", "height", "seed"), [(33, 1, 0), (20, 6, 1), (18, 5, 2), (36, 6, 3), (25, 8, 4)])
def test_a_low_image_has_lost_its_last_blocks(width: int, height: int, seed: int):
    """Its colour is interpolated from block to block, so that what is missing is not quite grey."""
    whole = encoded(Image.fromarray(pixels(width, height, seed)), quality=60, subsampling=2)
    start = scan_starts(whole)
    for tenth in range(1, 6):
        with pytest.raises(BadImage, match=r"^truncated: "):
            check_image(whole[: start + tenth * (len(whole) - start) // 10].rstrip(b"\xff") + END)


@given(jpegs(), st.floats(0, 1))
def test_a_cut_jpeg_is_refused_if_more_than_its_corner_is_lost(whole: bytes, where: float):
    start = scan_starts(whole)
    cut = whole[: int(start + where * (len(whole) - 2 - start))].rstrip(b"\xff") + END
    try:
        before, after = decoded(whole), decoded(cut)
    except (OSError, SyntaxError):  # cut between the scans of a progressive file
        assume(False)
        return
    changed = ImageChops.difference(before, after).getbbox()
    left, top = ((side - 1) // MCU * MCU - 1 for side in before.size)  # chroma is blended over one pixel
    if changed is None or (changed[0] >= left and changed[1] >= top):
        return
    with pytest.raises(BadImage, match=r"^truncated: "):
        check_image(cut)


@pytest.mark.parametrize(
    "options",
    [{}, {"progressive": True}, {"restart_marker_blocks": 1}, {"restart_marker_rows": 1}, {"subsampling": 0}],
    ids=str,
)
@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
def test_a_cut_at_any_tenth_of_the_data_is_found(mode: str, options: dict[str, Any]):
    whole = encoded(Image.fromarray(SMOOTH).convert(mode), quality=90, **options)
    start = scan_starts(whole)
    for tenth in range(1, 10):
        with pytest.raises(BadImage, match=r"^truncated: "):
            check_image(whole[: start + tenth * (len(whole) - start) // 10] + END)


def test_scans_that_are_missing_altogether_are_found():
    whole = encoded(SMOOTH, progressive=True)
    last_scan = whole.rindex(b"\xff\xda")
    with pytest.raises(BadImage, match=r"^truncated: the last scans are missing"):
        check_image(whole[:last_scan] + END)


def test_a_multi_picture_file_and_an_embedded_thumbnail_are_whole():
    buffer = io.BytesIO()
    Image.fromarray(SMOOTH).save(buffer, "MPO", save_all=True, append_images=[Image.fromarray(SMOOTH[::-1])])
    check_image(buffer.getvalue())
    thumbnail, whole = b"Exif\0\0" + encoded(pixels(8, 8)), encoded(SMOOTH)
    check_image(whole[:2] + b"\xff\xe1" + (len(thumbnail) + 2).to_bytes(2, "big") + thumbnail + whole[2:])


def test_prepare_quarantines_it(tmp_path):
    source = CocoFolder(tmp_path / "source")
    whole = encoded(SMOOTH)
    source.add_image("cut.jpg", whole[: len(whole) // 2] + END, [1, 2, 3, 4], width=160, height=120)
    prepare.run(
        parameters("prepare.source=coco-dir", f"prepare.location={source.save()}", "prepare.max_bad_fraction=0.5"),
        out=tmp_path / "out",
    )
    (entry,) = manifest.read(tmp_path / "out/manifest.json")["quarantine"]
    assert (entry["item"], entry["reason"]) == ("cut.jpg", "truncated: the data end before the picture does")


@pytest.mark.parametrize(("width", "height"), [(1, 1), (7, 3), (3, 40)])
def test_a_jpeg_smaller_than_a_block_is_read(width: int, height: int):
    checked = check_image(encoded(pixels(width, height)))
    assert (checked.width, checked.height) == (width, height)
