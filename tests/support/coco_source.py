"""Small source datasets on disk for the tests of `prepare`, and the parameters that point to them."""

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from components.parameter_file import load
from components.params import Params

PROJECT = Path(__file__).parents[2]
CATEGORIES = [{"id": 7, "name": "cat"}, {"id": 3, "name": "dog"}]  # not contiguous, not sorted


def parameters(*overrides: str) -> Params:
    return load(PROJECT / "params.yaml", list(overrides))


def pixels(width: int = 64, height: int = 48, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def encoded(image: np.ndarray | Image.Image, kind: str = "JPEG", **options: Any) -> bytes:
    buffer = io.BytesIO()
    (Image.fromarray(image) if isinstance(image, np.ndarray) else image).save(buffer, kind, **options)
    return buffer.getvalue()


def box(box_id: Any, image_id: Any, xywh: Any = (10, 10, 20, 20), category_id: Any = 3, **more: Any) -> dict[str, Any]:
    return {"id": box_id, "image_id": image_id, "category_id": category_id, "bbox": xywh, **more}


def record(image_id: Any, file_name: str, width: Any = 64, height: Any = 48) -> dict[str, Any]:
    return {"id": image_id, "file_name": file_name, "width": width, "height": height}


class CocoFolder:
    """A COCO layout with 4 good training and 2 good validation images of 64x48 px, one box each, to be damaged."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.documents: dict[str, dict[str, Any]] = {}
        for split, count in (("train", 4), ("val", 2)):
            (root / "images" / split).mkdir(parents=True)
            ids = range(1, count + 1)
            self.documents[split] = {
                "images": [record(image_id, f"{image_id}.jpg") for image_id in ids],
                "annotations": [box(image_id, image_id) for image_id in ids],
                "categories": [dict(one) for one in CATEGORIES],
            }
            for image_id in ids:
                self.put(f"{image_id}.jpg", encoded(pixels(seed=image_id + 10 * len(self.documents))), split)

    def put(self, name: str, data: bytes, split: str = "train") -> None:
        path = self.root / "images" / split / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)

    @property
    def train(self) -> dict[str, Any]:
        return self.documents["train"]

    def add_image(self, name: str, data: bytes | None = None, *boxes: Any, width: Any = 64, height: Any = 48) -> None:
        """One more training image with id 9 and boxes with ids from 90."""
        self.train["images"].append(record(9, name, width, height))
        self.train["annotations"] += [box(90 + number, 9, xywh) for number, xywh in enumerate(boxes)]
        if data is not None:
            self.put(name, data)

    def save(self) -> Path:
        (self.root / "annotations").mkdir(exist_ok=True)
        for split, document in self.documents.items():
            path = self.root / "annotations" / f"instances_{split}.json"
            path.write_text(json.dumps(document), encoding="utf-8")
        return self.root


def content(folder: Path) -> dict[str, bytes]:
    """Every file below a folder and its bytes."""
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
