"""The folder that the stage `prepare` makes, as other stages read it."""

from pathlib import Path

from yolo_core.data.coco import IN_MEMORY, CacheSettings, DetectionDataset, load_split

ADVICE = "run `scaled-yolov4 prepare` again"


def load_prepared(data: Path, split: str, cache: CacheSettings = IN_MEMORY) -> DetectionDataset:
    """`load_split`; errors about its files, now or when images are read, say which command makes them again."""
    return load_split(data, split, cache, ADVICE)
