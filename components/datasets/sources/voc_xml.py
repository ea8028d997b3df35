"""Parses an annotation file of Pascal VOC.

VOC's development kit counts pixels from 1 and includes both corners: a box over the whole of a 100x50 px image is
1, 1, 100, 50. Tools that export the format mean the edges of a box instead, which the database in `source` tells.
"""

import re
from dataclasses import dataclass, field
from xml.etree import ElementTree

from components.datasets.sources.rotated import around_rotated

# Subtracted from the left and top, and from the right and bottom corner, by the start of `source/database`.
OF_THE_KIT = (1, 0)
OF_TOOLS = {
    "Unknown": (0, 0),  # CVAT, Datumaro, LabelImg: edges from 0
    "MyDatabase": (0, 0),  # Label Studio
    "roboflow": (1, 1),  # edges from 1: the right one may be the image's width plus 1
}
NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", re.ASCII)
MAX_BYTES = 32_000_000


class BadXml(Exception):
    """The file cannot be used; the message says why."""


@dataclass(frozen=True, slots=True)
class VocObject:
    """A readable object."""

    number: int
    """Number of the object in the file, from 1."""
    name: str
    xywh: tuple[float, float, float, float]
    """Left, top, width, height, px."""
    difficult: bool


@dataclass
class VocFile:
    """An annotation file."""

    filename: str
    """Name of the image file, without folders; empty if it is not given."""
    size_px: tuple[float, float] | None
    """Recorded (width, height); None if it is missing or 0."""
    objects: list[VocObject] = field(default_factory=list)
    bad: list[tuple[int, str]] = field(default_factory=list)
    """Number and problem of the other objects."""


def parse(data: bytes) -> VocFile:
    """Parse a file. Raises BadXml."""
    root = _root(data)
    given = _text(root, "filename").replace("\\", "/").rsplit("/", 1)[-1]
    width, height = (_number(_text(root, f"size/{side}")) for side in ("width", "height"))
    file = VocFile(given, (width, height) if width and height and min(width, height) > 0 else None)
    database = _text(root, "source/database")
    offsets = next((value for start, value in OF_TOOLS.items() if database.startswith(start)), OF_THE_KIT)
    for number, element in enumerate(root.iterfind("object"), 1):
        for found in _objects(number, element, offsets):
            if isinstance(found, str):
                file.bad.append((number, found))
            else:
                file.objects.append(found)
    return file


class _WithoutDoctype(ElementTree.TreeBuilder):
    """Refuses a document type: its entities could expand to more than any memory."""

    def doctype(self, name: str, pubid: str | None, system: str | None) -> None:
        raise BadXml("has a DOCTYPE, which no annotation needs; remove it")


def _root(data: bytes) -> ElementTree.Element:
    if len(data) > MAX_BYTES:
        raise BadXml(f"too large: {len(data) / 1e6:.0f} MB")
    parser = ElementTree.XMLParser(target=_WithoutDoctype())
    try:
        parser.feed(data)
        root = parser.close()
    except (ElementTree.ParseError, ValueError, LookupError) as error:  # LookupError: an unknown encoding
        raise BadXml(f"not valid XML ({error})") from None
    if root.tag != "annotation":
        raise BadXml(f"its root is <{root.tag}>, not <annotation>")
    return root


def _objects(number: int, element: ElementTree.Element, offsets: tuple[int, int]) -> list[VocObject | str]:
    """The objects of an element, or their problems: some tools write several boxes into one."""
    name = _text(element, "name")
    if not name:
        return ["no name of a class"]
    boxes = element.findall("bndbox")
    return [_object(number, name, element, box, offsets) for box in boxes] or ["no bndbox"]


def _object(
    number: int, name: str, element: ElementTree.Element, box: ElementTree.Element, offsets: tuple[int, int]
) -> VocObject | str:
    """An object, or its problem."""
    texts = [_text(box, side) for side in ("xmin", "ymin", "xmax", "ymax")]
    corners = [_number(text) for text in texts]
    left, top, right, bottom = corners
    if left is None or top is None or right is None or bottom is None:
        return f"bndbox {texts!r:.80} is not four numbers"
    first, last = offsets
    xywh = (left - first, top - first, right - left + first - last, bottom - top + first - last)
    rotation = _rotation(element)
    if rotation is None:
        return "its rotation is not a number"
    if rotation:
        xywh = around_rotated(xywh, rotation)
    return VocObject(number, name, xywh, difficult=_text(element, "difficult").lower() in ("1", "true"))


def _rotation(element: ElementTree.Element) -> float | None:
    """Degrees by which CVAT has the box turned, an attribute; None for what is no number."""
    attributes = element.iterfind("attributes/attribute")
    found = next((_text(one, "value") for one in attributes if _text(one, "name") == "rotation"), "0")
    return _number(found)


def _text(element: ElementTree.Element, path: str) -> str:
    return (element.findtext(path) or "").strip()


def _number(text: str) -> float | None:
    """A plain number, as an integer where it is one."""
    if not NUMBER.fullmatch(text) or len(text) > 300:
        return None
    value = float(text)
    return int(value) if value.is_integer() else value
