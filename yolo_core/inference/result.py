"""What a detector found in an image."""

import importlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np

from yolo_core.atomic import replaced
from yolo_core.boxes import xyxy_to_xywh
from yolo_core.drawing import draw_boxes
from yolo_core.errors import UserError
from yolo_core.evaluate.detections import CocoResult


class Detection(NamedTuple):
    """One object."""

    label: str
    """Class name."""
    score: float
    """Objectness x class probability, 0 to 1."""
    xyxy: tuple[float, float, float, float]
    """Left, top, right, bottom in px of the image."""
    class_id: int
    """Class index."""


@dataclass(frozen=True, eq=False)
class Result:
    """The N detections of one image, best first; iterating yields each as a `Detection`.

    >>> image = np.zeros((80, 60, 3), np.uint8)
    >>> boxes, scores, numbers = np.array([[5.0, 10, 25, 40], [0, 0, 9, 9]]), np.array([0.9, 0.4]), np.array([1, 0])
    >>> result = Result(image, boxes, scores, numbers, classes=("cat", "dog"))
    >>> result
    <Result image 60x80 px: 1 cat, 1 dog>
    >>> [(found.label, found.xyxy) for found in result.where(result.score > 0.5)]
    [('dog', (5.0, 10.0, 25.0, 40.0))]
    """

    image: np.ndarray
    """The image: RGB (H, W, 3) uint8."""
    xyxy: np.ndarray
    """(N, 4) float64: left, top, right, bottom in px of the image."""
    score: np.ndarray
    """(N,) float64: objectness x class probability, 0 to 1."""
    class_id: np.ndarray
    """(N,) int64: class index."""
    classes: tuple[str, ...]
    """Names of all classes."""
    name: str = ""
    """Where the image comes from, such as its path; "" if unknown."""

    def __len__(self) -> int:
        return len(self.score)

    def __iter__(self) -> Iterator[Detection]:
        for box, score, k in zip(self.xyxy.tolist(), self.score.tolist(), self.class_id.tolist(), strict=True):
            yield Detection(self.classes[k], score, tuple(box), k)

    def __repr__(self) -> str:
        height, width = self.image.shape[:2]
        counts = ", ".join(f"{count} {name}" for name, count in self.counts().items())
        return f"<Result {self.name or 'image'} {width}x{height} px: {counts or 'nothing found'}>"

    @property
    def labels(self) -> list[str]:
        """Class name of each detection."""
        return [self.classes[k] for k in self.class_id.tolist()]

    def counts(self) -> dict[str, int]:
        """How many objects of each class were found, in the order of the classes."""
        numbers, counts = np.unique(self.class_id, return_counts=True)
        return {self.classes[k]: count for k, count in zip(numbers.tolist(), counts.tolist(), strict=True)}

    def where(self, chosen: np.ndarray) -> "Result":
        """The detections that a mask (N,) or indices choose."""
        return Result(self.image, self.xyxy[chosen], self.score[chosen], self.class_id[chosen], self.classes, self.name)

    def draw(self, image: np.ndarray | None = None) -> np.ndarray:
        """A copy of the image, or of another RGB one of its size, with boxes and labels: (H, W, 3) uint8."""
        canvas = self.image if image is None else image
        return draw_boxes(canvas, self.xyxy, self.score, self.class_id, self.classes)

    def save(self, path: Path | str) -> None:
        """Write the image with boxes and labels; the suffix says in which format."""
        path = Path(path)
        done, data = cv2.imencode(path.suffix, cv2.cvtColor(self.draw(), cv2.COLOR_RGB2BGR))
        if not done:
            raise UserError(f"{path}: the image cannot be written in this format; use .jpg or .png")
        with replaced(path) as temporary:
            temporary.write_bytes(data.tobytes())

    def to_coco(self, image_id: int = 0, category_ids: Sequence[int] | None = None) -> list[CocoResult]:
        """COCO result records; boxes are x, y, w, h px.

        category_ids: the id of each class; None numbers the classes from 1.
        """
        ids = range(1, len(self.classes) + 1) if category_ids is None else category_ids
        columns = (self.class_id.tolist(), xyxy_to_xywh(self.xyxy).round(3).tolist(), self.score.round(6).tolist())
        return [
            {"image_id": image_id, "category_id": ids[k], "bbox": box, "score": score}
            for k, box, score in zip(*columns, strict=True)
        ]

    def to_supervision(self) -> Any:
        """The detections as `supervision.Detections`. Raises UserError unless the package supervision is installed."""
        try:
            supervision = importlib.import_module("supervision")
        except ImportError:
            raise UserError("supervision: not installed; pip install supervision") from None
        return supervision.Detections(
            xyxy=self.xyxy.astype(np.float32),
            confidence=self.score.astype(np.float32),
            class_id=self.class_id.astype(int),
            data={"class_name": np.array(self.labels, dtype=str)},
        )
