"""ultralytics' smallest detector, trained from random weights for a number of minutes with its own defaults."""

import importlib
import time
from collections.abc import Sequence
from pathlib import Path
from tempfile import mkdtemp
from typing import Protocol

import torch
from torch import Tensor

from benchmarks.contender import Figures, Round
from benchmarks.peers import torchvision_stand_in
from yolo_core.data.coco import DetectionDataset, load_split
from yolo_core.evaluate.coco_metrics import score
from yolo_core.evaluate.detections import CocoResult, Detections

MODEL = "yolo11n.yaml"
BATCH = 16
SCORED = {"conf": 0.001, "iou": 0.65, "max_det": 300}  # as we score


class Boxes(Protocol):
    xyxy: Tensor
    conf: Tensor
    cls: Tensor


def ultralytics(data: str, size: int, minutes: float, flips: bool) -> Round:
    torchvision_stand_in.install()
    package = importlib.import_module("ultralytics")
    package.settings.update({"sync": False, "tensorboard": False, "mlflow": False, "wandb": False})
    torch.set_num_threads(2)
    folder = Path(mkdtemp(prefix="small-data-"))
    val_set = load_split(Path(data), "val")
    for split in ("train", "val"):
        write_yolo(load_split(Path(data), split), folder, split)
    classes = "".join(f"  {index}: {name!r}\n" for index, name in enumerate(val_set.classes))
    (folder / "data.yaml").write_text(f"path: {folder}\ntrain: images/train\nval: images/val\nnames:\n{classes}")

    def once() -> Figures:
        began = time.monotonic()
        package.YOLO(MODEL).train(
            data=str(folder / "data.yaml"), imgsz=size, time=minutes / 60, batch=BATCH, workers=0, device="cpu",
            pretrained=False, amp=False, val=False, plots=False, verbose=False, project=str(folder), name="run",
            exist_ok=True, **({} if flips else {"fliplr": 0.0}),
        )  # fmt: skip
        took = (time.monotonic() - began) / 60
        epochs = len((folder / "run/results.csv").read_text().splitlines()) - 1
        found = detections(package.YOLO(folder / "run/weights/last.pt"), val_set, size)
        figures = score(val_set.annotation_path, found).figures
        return {"AP": figures["AP"] or 0.0, "AP50": figures["AP50"] or 0.0, "epochs": epochs, "minutes": took}

    return once


def write_yolo(split: DetectionDataset, folder: Path, name: str) -> None:
    """The split in the layout of YOLO: links to its images, and a text file of fractions for each."""
    for number, (image, labels) in enumerate(zip(split.images, split.labels, strict=True)):
        link = folder / "images" / name / f"{number}{image.path.suffix}"
        text = folder / "labels" / name / f"{number}.txt"
        for path in (link, text):
            path.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(image.path.resolve())
        rows = [_row(label, image.width, image.height) for label in labels.tolist()]
        text.write_text("\n".join(rows))


def _row(label: Sequence[float], width: int, height: int) -> str:
    class_index, x1, y1, x2, y2 = label
    centre = (x1 + x2) / 2 / width, (y1 + y2) / 2 / height
    return " ".join(map(str, (int(class_index), *centre, (x2 - x1) / width, (y2 - y1) / height)))


def detections(model, val_set: DetectionDataset, size: int) -> Detections:
    found: list[CocoResult] = []
    for image in val_set.images:
        boxes: Boxes = model.predict(str(image.path), imgsz=size, device="cpu", verbose=False, **SCORED)[0].boxes
        for box, label, confidence in zip(boxes.xyxy.tolist(), boxes.cls.tolist(), boxes.conf.tolist(), strict=True):
            found.append(
                {
                    "image_id": image.id,
                    "category_id": val_set.category_ids[int(label)],
                    "bbox": _xywh(box),
                    "score": confidence,
                }
            )
    return Detections.of(found)


def _xywh(box: Sequence[float]) -> list[float]:
    x1, y1, x2, y2 = box
    return [x1, y1, x2 - x1, y2 - y1]
