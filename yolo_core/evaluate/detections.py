"""Detections of a dataset as columns, and as COCO's result format."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypedDict

import numpy as np

from yolo_core.atomic import write_text


class CocoResult(TypedDict):
    """A detection in COCO's result format."""

    image_id: int
    """As in the annotation file."""

    category_id: int
    """As in the annotation file."""

    bbox: list[float]
    """x, y, w, h px."""

    score: float
    """0 to 1."""


@dataclass(frozen=True, eq=False)
class Detections:
    """D detections, row by row.

    image_id, category_id: (D,) int64, as in the annotation file; xywh_px: (D, 4) float64; score: (D,) float64.
    """

    image_id: np.ndarray
    category_id: np.ndarray
    xywh_px: np.ndarray
    score: np.ndarray

    def __len__(self) -> int:
        return len(self.score)

    @classmethod
    def of(cls, records: Sequence[CocoResult]) -> "Detections":
        """Build from COCO result dicts: image_id, category_id, bbox (xywh px), score; KeyError where one is missing."""
        return cls(
            np.array([one["image_id"] for one in records], np.int64),
            np.array([one["category_id"] for one in records], np.int64),
            np.array([one["bbox"] for one in records], np.float64).reshape(-1, 4),
            np.array([one["score"] for one in records], np.float64),
        )

    @classmethod
    def joined(cls, parts: Iterable["Detections"]) -> "Detections":
        """All rows of several, in their order."""
        columns = zip(*((p.image_id, p.category_id, p.xywh_px, p.score) for p in (cls.of([]), *parts)), strict=True)
        return cls(*map(np.concatenate, columns))

    def by_image(self) -> "Callable[[int], Detections]":
        """A function from an image id to its rows, in their order."""
        order = np.argsort(self.image_id, kind="stable")
        ids = self.image_id[order]
        return lambda image: self.where(order[np.searchsorted(ids, image) : np.searchsorted(ids, image, "right")])

    def where(self, chosen: np.ndarray) -> "Detections":
        """The rows that a mask (D,) or indices choose."""
        return Detections(self.image_id[chosen], self.category_id[chosen], self.xywh_px[chosen], self.score[chosen])

    def records(self) -> list[CocoResult]:
        """The detections as COCO result dicts."""
        return [
            {"image_id": image_id, "category_id": category_id, "bbox": box, "score": score}
            for image_id, category_id, box, score in self._rows()
        ]

    def write(self, path: Path) -> None:
        """A JSON file of COCO results, one detection a line. Equal detections give equal bytes."""
        text = '{"image_id": %d, "category_id": %d, "bbox": %r, "score": %r}'  # a finite number's repr is its JSON
        write_text(path, "[\n" + ",\n".join([text % row for row in self._rows()]) + "\n]\n")

    def _rows(self) -> Iterable[tuple[int, int, list[float], float]]:
        columns = (self.image_id, self.category_id, self.xywh_px, self.score)
        return zip(*(column.tolist() for column in columns), strict=True)
