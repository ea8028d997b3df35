"""Checks that a JPEG holds all its coded data, also if an end marker was put behind a cut.

Decoders fill what is missing with grey, or leave it blurred in a progressive file, and only warn; Pillow passes no
warnings on. Two things tell: the headers of the scans must add up to every coefficient at full precision, and noise
put behind the last scan must not change the picture, because a decoder that has everything does not read that far.
"""

import io
import random
import re
from collections.abc import Iterator
from dataclasses import dataclass, field

from PIL import Image, ImageChops

COEFFICIENTS = 64  # of a block
GREY, NEARLY = 128, 2  # what a block without data decodes to, and how far rounding and colour inversion take it
NOISES = 4
SMALL = 8  # px of a side, as decoded: below 8 px in the file, images are not shrunk by eight, which is without blending
NOISE_BYTES = 64  # before and after each restart marker: some blocks
_MARKER = re.compile(rb"\xff[^\x00\xff]")
_WITHOUT_LENGTH = frozenset([0x01, *range(0xD0, 0xD9)])
_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_PROGRESSIVE = frozenset([0xC2, 0xC6, 0xCA, 0xCE])
_START_OF_SCAN, _END_OF_IMAGE = 0xDA, 0xD9
# In scan data 0xFF is followed by 0x00 or a restart marker D0 to D7 (or is fill); anything else ends the scan.
_SCAN_END = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]")


@dataclass
class Scans:
    """The scans of a JPEG that reaches its end marker."""

    end: int = 0
    """Offset at which the coded data of the last scan end."""
    count: int = 0
    progressive: bool = False
    missing_bits: dict[int, list[int]] = field(default_factory=dict)
    """Per component and coefficient: how many of the lower bits no scan holds; COEFFICIENTS if none holds any."""

    @property
    def are_complete(self) -> bool:
        return all(not any(bits) for bits in self.missing_bits.values())


def find_scans(data: bytes) -> Scans | None:
    """The scans, or None unless the marker segments lead from the start to an end marker after a scan."""
    scans = Scans()
    try:
        for marker, segment, end in _segments(data):
            if marker == _END_OF_IMAGE:
                return scans if scans.count else None
            if marker in _FRAMES:
                scans.progressive = marker in _PROGRESSIVE
                scans.missing_bits |= {segment[6 + 3 * k]: [COEFFICIENTS] * COEFFICIENTS for k in range(segment[5])}
            elif marker == _START_OF_SCAN:
                _read_scan(segment, scans)
                scans.count, scans.end = scans.count + 1, end
    except IndexError:  # a segment that is too short
        pass
    return None


def _segments(data: bytes) -> Iterator[tuple[int, bytes, int]]:
    """(marker, its content, offset behind it and any coded data) of each segment after the start of the image."""
    position = 2
    while (found := _MARKER.search(data, position)) is not None:  # decoders skip stray bytes before a marker, too
        position, marker = found.start() + 2, data[found.start() + 1]
        segment = b""
        if marker not in _WITHOUT_LENGTH and marker != _END_OF_IMAGE:
            length = int.from_bytes(data[position : position + 2], "big")
            if length < 2:
                return
            segment, position = data[position + 2 : position + length], position + length
        if marker == _START_OF_SCAN:
            end = _SCAN_END.search(data, position)
            if end is None:
                return
            position = end.start()
        yield marker, segment, position


def _read_scan(segment: bytes, scans: Scans) -> None:
    """Note which coefficients of which components a scan holds, and down to which bit."""
    count = segment[0]
    first, last, bits = segment[1 + 2 * count], segment[2 + 2 * count], segment[3 + 2 * count] & 0x0F
    if not scans.progressive:  # decoders take no notice of what stands there
        first, last, bits = 0, COEFFICIENTS - 1, 0
    for component in segment[1 : 1 + 2 * count : 2]:
        known = scans.missing_bits.get(component, [])
        known[first : last + 1] = [bits] * len(known[first : last + 1])


def shrink(image: Image.Image) -> None:
    """Have an RGB image decoded at an eighth of each side: reads all the data but computes fewer pixels."""
    image.draft("RGB", (max(image.width // 8, 1), max(image.height // 8, 1)))


def is_cut(image: Image.Image, data: bytes, scans: Scans, *, shrunk: bool) -> bool:
    """Does the last scan end early? image: `data`, decoded; shrunk: see `shrink`, for a single scan only.

    Decodes again only if there are several scans, if the last block is grey, or for a small image, whose last block may
    take colour from the one before it.
    """
    if scans.count == 1 and min(image.size) >= SMALL and not _ends_grey(image):
        return False
    noises = _NOISES if scans.count == 1 else _NOISES[:1]  # several scans take long to decode
    return any(_is_changed(image, data[: scans.end] + noise + b"\xff\xd9", shrunk) for noise in noises)


def _is_changed(image: Image.Image, data: bytes, shrunk: bool) -> bool:
    """Does the noise in `data` make another picture of it?"""
    other = Image.open(io.BytesIO(data), formats=("JPEG",))
    if shrunk:
        shrink(other)
    try:
        other.load()
    except Exception:  # the noise was read; decoders raise all kinds of errors
        return True
    return ImageChops.difference(image, other).getbbox() is not None


def _ends_grey(image: Image.Image) -> bool:
    corner = image.getpixel((image.width - 1, image.height - 1))
    values = corner if isinstance(corner, tuple) else (corner,)
    return all(value is not None and abs(value - GREY) <= NEARLY for value in values)


def _noise(seed: int) -> bytes:
    """Coded data at random, with each restart marker in between: a decoder may wait for any of them."""
    draw = random.Random(seed)
    pieces = [bytes(draw.randrange(0xFF) for _ in range(NOISE_BYTES)) for _ in range(9)]
    return pieces[0] + b"".join(bytes((0xFF, 0xD0 + k)) + piece for k, piece in enumerate(pieces[1:]))


# Several, because the first numbers of one may decode to the very block that is missing, within rounding.
_NOISES = [_noise(seed) for seed in range(NOISES)]
