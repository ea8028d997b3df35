"""Where the label files of YOLO datasets lie, and which of them belong to no image.

The label of `images/train/0.jpg` is `labels/train/0.txt`, or `0.txt` beside the image. Only folders below the
dataset's root are replaced, so that it does not matter where the dataset lies. File names may differ in spelling.
"""

import os
import unicodedata
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote

from components.datasets.sources import image_files, text_file

IMAGES, LABELS = ("images", "jpegimages"), "labels"  # in any case; Pascal VOC's folder is treated so by Darknet
OTHER_TEXTS = frozenset(("classes.txt", "labels.txt", "notes.txt", "train.txt", "val.txt", "test.txt"))


class LabelFiles:
    """The label files of a dataset; remembers what its folders hold."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._names: dict[Path, frozenset[str]] = {}
        self._folders: dict[Path, list[Path]] = {}
        self._alike: dict[Path, dict[str, list[str]]] = {}

    def find(self, image: Path) -> list[Path]:
        """The label files of an image, the one in a folder of labels first; none for a background image."""
        folders = [*self.folders(image.parent), image.parent]
        candidates = (folder / f"{image.stem}{ending}" for folder in folders for ending in (".txt", ".TXT"))
        exact = [path for path in candidates if path.name in self._listing(path.parent)]
        return exact or [path for folder in folders for path in self._nearly(image, folder)]

    def _nearly(self, image: Path, folder: Path) -> list[Path]:
        """The label file whose name differs only in spelling, see `_plain`, if no other file or image comes close."""
        images = self._by_name(image.parent)
        found: set[str] = set()
        for name in (image.stem, image.name):
            labels = [label for label in self._by_name(folder).get(_plain(name), []) if label.lower().endswith(".txt")]
            others = [other for other in images.get(_plain(name), []) if _is_image(other) and other != image.name]
            if labels and not others:
                found.update(labels)
        return [folder / name for name in found] if len(found) == 1 else []

    def _by_name(self, folder: Path) -> dict[str, list[str]]:
        """The files of a folder by stem, spelled as by `_plain`."""
        if folder not in self._alike:
            alike: dict[str, list[str]] = {}
            for name in self._listing(folder):
                alike.setdefault(_plain(Path(name).stem), []).append(name)
            self._alike[folder] = alike
        return self._alike[folder]

    def folders(self, images: Path) -> list[Path]:
        """The folders of labels for a folder of images, apart from itself; the most likely first."""
        if images not in self._folders:
            self._folders[images] = [folder for folder in self._candidates(images) if self._listing(folder)]
        return self._folders[images]

    def searched(self, images: list[Path]) -> list[Path]:
        """The folders in which the labels of these images were looked for, whether they exist or not."""
        folders = sorted({image.parent for image in images})
        candidates = [[*list(self._candidates(folder))[:1], folder] for folder in folders]
        return list(dict.fromkeys(place for places in candidates for place in places))

    def _candidates(self, images: Path) -> Iterator[Path]:
        outside, inside = self._split(images)
        for position in range(len(inside) - 1, -1, -1):
            if inside[position].lower() in IMAGES:
                above = Path(*outside, *inside[:position])
                spelled = [name for name in sorted(self._listing(above)) if name.lower() == LABELS]
                for name in spelled or [LABELS]:
                    yield above.joinpath(name, *inside[position + 1 :])

    def _split(self, folder: Path) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """The parts of a path down to the root and below it; all are below for a folder outside."""
        for root, path in ((self.root, folder), (self.root.absolute(), folder.absolute())):
            if path.is_relative_to(root):
                return root.parts, path.relative_to(root).parts
        return (), folder.parts

    def _listing(self, folder: Path) -> frozenset[str]:
        if folder not in self._names:
            try:
                self._names[folder] = frozenset(os.listdir(folder))  # noqa: PTH208
            except (OSError, ValueError):  # ValueError: an impossible name
                self._names[folder] = frozenset()
        return self._names[folder]

    def without_image(self, places: list[Path], images: list[Path], used: set[Path]) -> Iterator[Path]:
        """Label files without an image, in the image folders and their folders of labels.

        used: the label files of the images of all splits; those found are added.
        """
        lists = {place for place in places if not place.is_dir()}
        of_images = {image.parent for image in images}
        for folder, names in self._searched_for_labels(places, of_images):
            of_labels = folder not in of_images and LABELS in map(str.lower, self._split(folder)[1])
            for name in names:
                path = folder / name
                if path in used or path in lists or not name.lower().endswith(".txt") or name.lower() in OTHER_TEXTS:
                    continue
                if of_labels or _holds_labels(path):
                    used.add(path)
                    yield path

    def _searched_for_labels(self, places: list[Path], of_images: set[Path]) -> Iterator[tuple[Path, list[str]]]:
        for place in places:
            if place.is_dir():
                for root in (place, *self.folders(place)):
                    yield from image_files.walk(root)
            else:
                for images in sorted(of_images):
                    for folder in self.folders(images):
                        yield folder, sorted(self._listing(folder))

    def image_beside(self, label: Path) -> Path | None:
        """A file that has the name of the label file's image, but was not read."""
        folders = [images for images, labels in self._folders.items() if label.parent in labels] + [label.parent]
        for folder in folders:
            for name in sorted(self._listing(folder)):
                if Path(name).stem == label.stem and Path(name).suffix.lower() not in ("", ".txt", ".xml", ".json"):
                    return folder / name
        return None


def _plain(name: str) -> str:
    """A file name without what tools and file systems change: case, %20 for a space, composed letters."""
    return unicodedata.normalize("NFC", unquote(name)).casefold()


def _is_image(name: str) -> bool:
    return Path(name).suffix.lower() in image_files.READ | image_files.NOT_READ


def _holds_labels(path: Path) -> bool:
    """Does the first line look like a label: a class or its name, then numbers?"""
    try:
        text = text_file.decoded(path.read_bytes())
    except (OSError, UnicodeDecodeError, text_file.Pointer):
        return False
    words = next((line.split() for line in text.split("\n") if line.strip()), [])
    return len(words) >= 5 and all(map(_is_number, words[-4:]))


def _is_number(word: str) -> bool:
    try:
        float(word)
    except ValueError:
        return False
    return True
