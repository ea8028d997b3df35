"""What an export holds, whatever the tool: images of different content with their boxes, and how tools spell it."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import TypeVar

from coco_source import encoded, pixels
from hypothesis import strategies as st

T = TypeVar("T")
Box = tuple[int, float, float, float, float]
"""Class index, left, top, width, height; px, in quarters."""
SIZES = ((100, 50), (64, 48), (37, 61), (320, 200), (9, 1))
SPLITS = ("train", "val", "test")


@dataclass(frozen=True)
class Picture:
    """An image of an export."""

    number: int
    """Decides its size and content."""
    folder: str
    stem: str
    ending: str
    boxes: tuple[Box, ...]

    @property
    def size(self) -> tuple[int, int]:
        return SIZES[self.number % len(SIZES)]

    @property
    def data(self) -> bytes:
        return content(self.number, "PNG" if self.ending.lower() == ".png" else "JPEG")

    @property
    def name(self) -> str:
        """Path below the folder of images, without the ending."""
        return f"{self.folder}{self.stem}"

    @property
    def file(self) -> str:
        return self.name + self.ending


@cache
def content(number: int, kind: str) -> bytes:
    return encoded(pixels(*SIZES[number % len(SIZES)], number), kind)


@dataclass
class Export:
    """A folder that a tool writes."""

    root: Path
    classes: list[str]
    subsets: dict[str, list[Picture]]
    """By split; the only key is "" if the tool was not told of subsets."""
    draw: st.DrawFn

    def pick(self, options: Sequence[T]) -> T:
        """One of the ways in which this tool, or a version of it, writes."""
        return self.draw(st.sampled_from(options))

    def put(self, path: str, data: bytes | str) -> None:
        target = self.root / path
        target.parent.mkdir(parents=True, exist_ok=True)
        assert not target.exists(), path
        target.write_bytes(data if isinstance(data, bytes) else data.encode())

    def in_one_folder(self) -> list[Picture]:
        """All pictures; a folder of them called train would make a subset."""
        pictures = self.subsets[""]
        return [replace(picture, folder=picture.folder.replace("train", "street")) for picture in pictures]

    def shuffled(self, items: Sequence[T]) -> list[T]:
        return self.draw(st.permutations(items))


names = st.sampled_from(["cat", "traffic light", "no", "010", "1:30", "null", "猫", "T-shirt", "a & b", "~", "person"])
folders = st.sampled_from(["", "", "cam 1/", "a/b/", "a/", "images/", "train/"])
# Names that come close to each other, and any.
stems = st.sampled_from(["0", "a", "A", "b_0", "a b", "a%20b", "0001", "x.png"]) | st.text(
    "abzAZ019 ._-é猫%&+#'", min_size=1, max_size=8
).filter(lambda text: text.strip(". ") == text)
endings = st.sampled_from([".jpg", ".jpg", ".jpeg", ".JPG", ".png", ".PNG"])


@st.composite
def boxes(draw: st.DrawFn, number: int, classes: int) -> tuple[Box, ...]:
    width, height = SIZES[number % len(SIZES)]

    def side(length: int) -> tuple[float, float]:
        start = draw(st.integers(0, 4 * length - 1))
        return start / 4, draw(st.integers(1, 4 * length - start)) / 4

    found = set()
    for _ in range(draw(st.integers(0, 3))):
        (x, w), (y, h) = side(width), side(height)
        found.add((draw(st.integers(0, classes - 1)), x, y, w, h))
    return tuple(draw(st.permutations(sorted(found))))


@st.composite
def data_sets(draw: st.DrawFn, divided: bool) -> tuple[list[str], dict[str, list[Picture]]]:
    """Class names and pictures by split; the first training picture has a box of each class."""
    classes = draw(st.lists(names, min_size=1, max_size=3, unique=True))
    splits = draw(st.sampled_from([SPLITS, SPLITS[:2]])) if divided else ("",)
    places = st.tuples(st.sampled_from(splits), folders, stems, endings)
    others = draw(st.lists(places, min_size=1, max_size=5))
    first = [(split, "", f"first{number}", ".jpg") for number, split in enumerate(splits)]
    taken: set[tuple[str, str]] = set()
    subsets: dict[str, list[Picture]] = {split: [] for split in splits}
    for number, (split, folder, stem, ending) in enumerate([*first, *others]):
        key = (folder, stem.casefold())  # one label file each, also where case does not matter
        if key in taken:
            continue
        taken.add(key)
        width, height = SIZES[number % len(SIZES)]
        every = [(index, 0, 0, width, height) for index in range(len(classes))] if number == 0 else []
        found = tuple(every) or draw(boxes(number, len(classes)))
        subsets[split].append(Picture(number, folder, stem, ending, found))
    return classes, subsets
