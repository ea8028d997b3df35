"""Copies and frames across the splits are found, different pictures are not."""

from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from coco_source import encoded

from components.project.near_duplicates import find
from yolo_core.data.coco import DetectionDataset, ImageRecord
from yolo_core.progress import silent


def picture(seed: int, side: int = 320) -> np.ndarray:
    """Soft blobs, as different from one seed to another as photographs are."""
    rng = np.random.default_rng(seed)
    small = rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)
    return cv2.resize(small, (side, side), interpolation=cv2.INTER_CUBIC)


def split(folder: Path, *pictures: np.ndarray) -> DetectionDataset:
    folder.mkdir()
    records = []
    for number, pixels in enumerate(pictures):
        path = folder / f"{number}.jpg"
        path.write_bytes(encoded(pixels))
        records.append(ImageRecord(number, path, pixels.shape[1], pixels.shape[0]))
    labels = [np.zeros((0, 5), np.float32) for _ in records]
    return DetectionDataset(records, labels, [1], ["one"], folder / "none.json")


def brighter(pixels: np.ndarray) -> np.ndarray:
    return cv2.convertScaleAbs(pixels, alpha=1.1)


def cut(pixels: np.ndarray) -> np.ndarray:
    """Without a hundredth at each side, as the next frame of a video."""
    edge = len(pixels) // 100
    return pixels[edge:-edge, edge:-edge]


def halved(pixels: np.ndarray) -> np.ndarray:
    return cv2.resize(pixels, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA)


@pytest.mark.parametrize("change", [brighter, cut, halved])
def test_a_changed_copy_is_found(tmp_path: Path, change: Callable[[np.ndarray], np.ndarray]) -> None:
    train = split(tmp_path / "train", *(picture(seed) for seed in range(20)))
    val = split(tmp_path / "val", picture(100), change(picture(7)))
    (pair,) = find(train, val, silent)
    assert (pair.val.name, pair.train.name) == ("1.jpg", "7.jpg")


def test_different_pictures_are_not(tmp_path: Path) -> None:
    train = split(tmp_path / "train", *(picture(seed) for seed in range(100)))
    val = split(tmp_path / "val", *(picture(seed) for seed in range(100, 200)))
    assert find(train, val, silent) == []


def test_many_images_are_sampled_evenly(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("components.project.near_duplicates.MOST_TRAIN", 5)
    train = split(tmp_path / "train", *(picture(seed) for seed in range(10)))
    val = split(tmp_path / "val", *(picture(seed) for seed in range(10)))
    assert [pair.val.name for pair in find(train, val, silent)] == ["0.jpg", "2.jpg", "4.jpg", "6.jpg", "8.jpg"]
