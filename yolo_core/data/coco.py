"""One split of a prepared dataset folder in memory: images, boxes and classes, read from COCO annotations."""

import dataclasses
import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from yolo_core.data.cache import CacheSettings, ImageCache, disk_cache, ram_cache
from yolo_core.data.image import fitted, load_image, resize
from yolo_core.data.sampling import Repeats, repeats_by_class
from yolo_core.errors import BadFile, advised
from yolo_core.progress import Progress, silent

__all__ = ["CacheSettings", "DetectionDataset", "ImageRecord", "load_image", "load_split"]

PIXELS_VERSION = 1  # of decoding and resizing; pixels cached by another version are stale
IN_MEMORY = CacheSettings()


@dataclass(frozen=True)
class ImageRecord:
    """One image: its COCO id, its file, and its size in px after EXIF rotation."""

    id: int
    path: Path
    width: int
    height: int


@dataclass
class DetectionDataset:
    """One split."""

    images: list[ImageRecord]
    """One record per image."""

    labels: list[np.ndarray]
    """Per image (N, 5) float32: class index, x1, y1, x2, y2 in px of the image; without crowd boxes."""

    category_ids: list[int]
    """COCO category id by class index, ascending."""

    classes: list[str]
    """Name by class index."""

    annotation_path: Path
    """The COCO instances file, with crowd boxes."""

    cache: CacheSettings = IN_MEMORY
    """How decoded images are cached."""

    advice: str = ""
    """How to fix bad files; appended to errors about them."""

    repeats: Repeats | None = None
    """How often training draws each image; None: all equally often."""

    _held: tuple[int, ImageCache | None] | None = dataclasses.field(default=None, init=False, repr=False, compare=False)

    def __len__(self) -> int:
        return len(self.images)

    def subset(self, which: int | Sequence[int]) -> "DetectionDataset":
        """The first `which` images, or those at the given indices; classes and annotation file are unchanged."""
        indices = range(min(which, len(self))) if isinstance(which, int) else which
        images, labels = [self.images[i] for i in indices], [self.labels[i] for i in indices]
        return dataclasses.replace(self, images=images, labels=labels, repeats=None)

    def repeated(self, threshold: float) -> "DetectionDataset":
        """The same images, drawn more often where they hold a class that fewer than `threshold` of them hold; shares
        an open cache."""
        copy = dataclasses.replace(self, repeats=repeats_by_class(self.labels, threshold))
        copy._held = self._held
        return copy

    def others(self, rng: np.random.Generator, count: int) -> list[int]:
        """`count` random images to train on beside another one."""
        if self.repeats:
            return self.repeats.others(rng, count).tolist()
        return rng.integers(len(self), size=count).tolist()

    def spread(self, count: int) -> "DetectionDataset":
        """Up to `count` images, evenly spaced over the dataset."""
        places = np.linspace(0, len(self) - 1, min(count, len(self)))
        return self.subset(np.unique(places.round().astype(int)).tolist())

    def load(self, index: int) -> np.ndarray:
        """Decode image `index`: RGB (H, W, 3) uint8 at its original size.

        Raises BadFile when the file cannot be decoded or its size is not the annotated one.
        """
        record = self.images[index]
        with advised(self.advice):
            image = load_image(record.path)
            height, width = image.shape[:2]
            if (height, width) != (record.height, record.width):
                raise BadFile(f"{record.path}: is {width}x{height} px, annotated as {record.width}x{record.height}")
        return image

    def image(self, index: int, size: int) -> np.ndarray:
        """Image `index` with its longer side resized to `size` px: RGB (H, W, 3) uint8, not to be modified."""
        if self._held is None or (self._held[0] != size and self.cache.kind == "ram"):
            self.open_cache(size)
        cache = self._held[1] if self._held and self._held[0] == size else None
        image = cache.get(index) if cache else None
        if image is None:
            image = self._decoded(index, size)
            if cache:
                cache.put(index, image)
        return image

    def open_cache(self, size: int, progress: Progress = silent) -> ImageCache | None:
        """The cache for images of `size` px, created if needed, or None; one size is cached at a time.

        Loader processes share a cache that was opened before they were forked.
        """
        if self._held is None or self._held[0] != size:
            self._held = size, self._new_cache(size, progress)
        return self._held[1]

    def _new_cache(self, size: int, progress: Progress) -> ImageCache | None:
        settings, sizes = self.cache, [fitted(r.width, r.height, size) for r in self.images]
        shapes = [(h, w, 3) for w, h in sizes]
        if settings.kind == "ram":
            return ram_cache(shapes, settings.limit)
        if settings.kind == "none" or settings.folder is None:
            return None

        def decode(index: int) -> np.ndarray:
            return self._decoded(index, size)

        return disk_cache(settings.folder, self._digest(size), shapes, decode, settings.limit, progress)

    def _decoded(self, index: int, size: int) -> np.ndarray:
        record = self.images[index]
        return resize(self.load(index), *fitted(record.width, record.height, size))

    def _digest(self, size: int) -> str:
        """Hex digest of everything that determines the pixels of images of `size` px."""
        files = [(r.path.name, r.width, r.height) for r in self.images]
        state = self.cache.content or [_state(r.path) for r in self.images]
        what = [PIXELS_VERSION, cv2.__version__, size, self.annotation_path.name, state, files]
        return hashlib.sha256(json.dumps(what).encode()).hexdigest()

    def __getstate__(self) -> dict[str, object]:
        """Without cached images: a pickled copy starts with an empty cache."""
        return {**self.__dict__, "_held": None}


def _state(path: Path) -> tuple[int, int] | None:
    """Size and modification time, to notice a rewritten file; None for a missing one, which decoding reports."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_size, found.st_mtime_ns


def load_split(
    data_dir: Path | str,
    split: str,
    cache: CacheSettings = IN_MEMORY,
    advice: str = "",
) -> DetectionDataset:
    """Read `annotations/instances_<split>.json` of a prepared dataset folder.

    Boxes are clipped to their image and dropped if no area is left. Class indices follow ascending category id.
    advice: how to fix bad files; appended to errors about them.
    Raises BadFile when the file is missing, is not a COCO instances file, or refers to unknown images or categories.
    """
    path = Path(data_dir) / "annotations" / f"instances_{split}.json"
    with advised(advice):
        images, labels, categories = _parse(path, Path(data_dir) / "images" / split)
    return DetectionDataset(images, labels, [c for c, _ in categories], [n for _, n in categories], path, cache, advice)


def _parse(path: Path, folder: Path) -> tuple[list[ImageRecord], list[np.ndarray], list[tuple[int, str]]]:
    """Images, labels per image, and categories (id, name) by ascending id; `folder` holds the image files."""
    content = _read(path)
    try:
        images = [ImageRecord(i["id"], folder / i["file_name"], i["width"], i["height"]) for i in content["images"]]
        categories = sorted((c["id"], c["name"]) for c in content["categories"])
        labels = _labels(path, content["annotations"], images, [c for c, _ in categories])
    except (KeyError, TypeError, AttributeError, ValueError, OverflowError) as error:
        raise BadFile(f"{path}: not a COCO instances file ({type(error).__name__}: {error})") from None
    return images, labels, categories


def _read(path: Path) -> dict[str, Any]:
    try:
        with path.open(encoding="utf-8") as file:
            return json.load(file)
    except FileNotFoundError:
        raise BadFile(f"{path}: no such annotation file") from None
    except (OSError, ValueError, RecursionError) as error:
        raise BadFile(f"{path}: cannot be read ({error})") from None


def _labels(
    path: Path, annotations: list[dict[str, Any]], images: list[ImageRecord], category_ids: list[int]
) -> list[np.ndarray]:
    """Per image (N, 5) float32: class index and clipped x1, y1, x2, y2 px, in file order."""
    kept = [a for a in annotations if not a.get("iscrowd", 0)]
    owner = _positions(path, "image_id", [a["image_id"] for a in kept], [r.id for r in images])
    classes = _positions(path, "category_id", [a["category_id"] for a in kept], category_ids)
    xywh = np.array([a["bbox"] for a in kept], np.float64).reshape(-1, 4)
    limits = np.array([(r.width, r.height) for r in images], np.float64).reshape(-1, 2)[owner]
    corners = np.concatenate([xywh[:, :2], xywh[:, :2] + xywh[:, 2:]], axis=1)
    corners = np.clip(corners, 0, np.tile(limits, 2))
    rows = np.concatenate([classes[:, None], corners], axis=1).astype(np.float32)
    solid = np.flatnonzero((rows[:, 3] > rows[:, 1]) & (rows[:, 4] > rows[:, 2]))
    solid = solid[np.argsort(owner[solid], kind="stable")]
    starts = np.searchsorted(owner[solid], np.arange(1, len(images)))
    return np.split(rows[solid], starts) if images else []


def _positions(path: Path, key: str, values: list[int], known: list[int]) -> np.ndarray:
    """Index of each value in `known`, (N,) int64."""
    position = {value: i for i, value in enumerate(known)}
    try:
        return np.array([position[v] for v in values], np.int64)
    except KeyError as error:
        raise BadFile(f"{path}: an annotation has unknown {key} {error}") from None
