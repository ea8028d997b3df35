"""The folder that the stage `prepare` makes, as other stages read it."""

from pathlib import Path

from components.files import MANIFEST, read_json, require
from yolo_core.data.coco import IN_MEMORY, CacheSettings, DetectionDataset, load_split
from yolo_core.errors import UserError

ADVICE = "run `scaled-yolov4 prepare` again"


def load_prepared(data: Path, split: str, cache: CacheSettings = IN_MEMORY) -> DetectionDataset:
    """`load_split`; errors about its files, now or when images are read, say which command makes them again."""
    return load_split(data, split, cache, ADVICE)


def class_names(data: Path) -> list[str]:
    """The names of the classes by index, from the manifest. Raises UserError where there is none, or it is damaged."""
    path = require(data / MANIFEST, "prepare")
    try:
        return [category["name"] for category in read_json(path)["categories"]]
    except (KeyError, TypeError):
        raise UserError(f"{path}: not the manifest of a dataset; {ADVICE}") from None
