"""A small dataset and hand-made results of the earlier stages, for the tests of register and promote."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch

from components import made_of
from components import parameter_file as parameters
from components.datasets import manifest
from components.datasets.box_check import CheckedBoxes
from components.datasets.split_check import CheckedSplit
from components.files import MANIFEST
from components.params import Params
from yolo_core.models import build_model
from yolo_core.models.weights import save_detector

MODEL = "yolov4-tiny"
PARAMS = Path(__file__).parents[2] / "params.yaml"
FIXED = ["promote.bootstrap_samples=200", "train.device=cpu", "train.epochs=30", "prepare.digits.image_size=320"]
IMAGES, SIZE_PX = 12, 64
CLASSES = ["circle", "square"]
SUPPRESSION = {"conf": 0.001, "iou": 0.65, "max_detections": 300}
# A search of which no trial was adopted.
DECISION = "trial 2 scored 0.2500, the starting point 0.2000; ... within the spread"
SEARCH = {
    "fitness": 0.25,
    "start_fitness": 0.2,
    "confirmed": {"winner": [0.2, 0.3], "start": [0.2, 0.25], "gain": 0.025, "spread": 0.0354, "holds": False},
    "decision": DECISION,
}


def load_params(*overrides: str) -> Params:
    return parameters.load(PARAMS, [*FIXED, *overrides])


def make_dataset(folder: Path, seed: int = 0, classes: Sequence[str] = CLASSES, objects: bool = True) -> Path:
    """A validation split of squares on noise, one per image, with a manifest.

    objects: False for a ground truth without the squares.
    """
    rng = np.random.default_rng(seed)
    images_folder = folder / "images" / "val"
    images_folder.mkdir(parents=True)
    (folder / "annotations").mkdir()
    images, boxes = [], []
    for number in range(1, IMAGES + 1):
        pixels = rng.integers(0, 80, (48, SIZE_PX, 3), np.uint8)
        x, y, side = (int(value) for value in rng.integers((2, 2, 14), (30, 20, 24)))
        pixels[y : y + side, x : x + side] = 230
        cv2.imwrite(str(images_folder / f"{number:03}.png"), pixels)
        images.append({"id": number, "file_name": f"{number:03}.png", "width": SIZE_PX, "height": 48})
        box = {"bbox": [x, y, side, side], "area": side * side, "iscrowd": 0, "category_id": 1 + number % 2}
        boxes.append({"id": number, "image_id": number, **box})
    boxes = boxes if objects else []
    categories = [{"id": index, "name": name} for index, name in enumerate(classes, 1)]
    truth = {"images": images, "annotations": boxes, "categories": categories}
    (folder / "annotations" / "instances_val.json").write_text(json.dumps(truth))
    files = {str(path.relative_to(folder)): _sha256(path) for path in sorted(folder.rglob("*.*")) if path.is_file()}
    splits = {"train": CheckedSplit(), "val": CheckedSplit(images=images, boxes=CheckedBoxes(annotations=boxes))}
    (folder / MANIFEST).write_text(json.dumps(manifest.build({"kind": "made up"}, categories, splits, files)))
    return folder


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def detections(data: Path, right: int) -> list[dict[str, Any]]:
    """COCO results that find exactly the objects of the first `right` images."""
    truth = json.loads((data / "annotations" / "instances_val.json").read_text())
    return [
        {"image_id": box["image_id"], "category_id": box["category_id"], "bbox": box["bbox"], "score": 0.9}
        for box in truth["annotations"]
        if box["image_id"] <= right
    ]


@dataclass(frozen=True)
class Outputs:
    """The stages' results below one folder; `paths` are register's arguments."""

    folder: Path
    data: Path

    @property
    def paths(self) -> dict[str, Any]:
        stages = {name: self.folder / name / MODEL for name in ("train", "evaluate", "export", "benchmark")}
        files = {"anchors": self.folder / "anchors" / f"{MODEL}.json", "hyp": self.folder / "evolve" / "hyp.yaml"}
        return {"data": self.data, **files, **stages, "out": self.registered}

    @property
    def registered(self) -> Path:
        return self.folder / "register" / f"{MODEL}.json"

    @property
    def promoted(self) -> Path:
        return self.folder / "promote" / f"{MODEL}.json"


def make_outputs(
    folder: Path,
    data: Path,
    *,
    right: int = IMAGES,
    latency_ms: float = 10.0,
    seed: int = 0,
    device: str = "cpu",
    classes: Sequence[str] = CLASSES,
    suppression: Mapping[str, float] = SUPPRESSION,
    measured: bool = True,
    evolved: bool = True,
) -> Outputs:
    """Results of a detector that finds `right` of the objects and takes `latency_ms` per image.

    measured: False where the validation images have no objects, so that there is no AP.
    evolved: False without a search, whose results are optional.
    """
    outputs = Outputs(folder, data)
    paths = outputs.paths
    torch.manual_seed(seed)
    detector = build_model(MODEL, num_classes=len(classes), width=0.25)
    for name in ("train", "evaluate", "export", "benchmark"):
        paths[name].mkdir(parents=True)
    save_detector(paths["train"] / "model.safetensors", detector.eval(), classes=list(classes), size=SIZE_PX)
    header = "epoch,step,lr,box,obj,cls,loss,AP,AP50\n"
    (paths["train"] / "curves.csv").write_text(f"{header}1,5,0.1,1,2,3,6,,\n2,10,0.05,0.5,1,2,3.5,0.3,0.6\n")
    ap = right / IMAGES if measured else None
    figures = {"AP": ap, "AP50": ap, "AP75": ap, "AP_large": None}
    metrics = {"model": MODEL, "size": SIZE_PX, "images": IMAGES, "plain": figures, "tta": figures, "per_class": []}
    _write(paths["evaluate"] / "metrics.json", {**metrics, "suppression": suppression})
    _write(paths["evaluate"] / "detections.json", detections(data, right))
    _write(paths["export"] / "export.json", {"model": MODEL, "largest_error": 1e-5})
    (paths["export"] / "model.onnx").write_bytes(b"onnx")
    row = {"backend": "PyTorch", "precision": "fp32", "batch": 1, "ap": ap, "total_ms": {"p50": latency_ms}}
    speed = {"model": MODEL, "device": {"name": device, "threads": 1}, "latency_ms_b1": latency_ms, "rows": [row]}
    _write(paths["benchmark"] / "benchmark.json", speed)
    _write(paths["anchors"], {"model": MODEL, "size": SIZE_PX, "chosen": "default"})
    if evolved:
        _write(paths["hyp"], {"model": MODEL, "trials": 4, **SEARCH, "hyp": {}})
        (paths["hyp"].parent / "ledger.jsonl").write_text('{"trial": 0}\n')
    _write(paths["train"] / "train.json", {"model": MODEL, "epochs": 10, "images_per_second": 2.0})
    inputs = {"manifest": data / MANIFEST, "weights": paths["train"] / "model.safetensors"}
    trained_with = {"manifest": data / MANIFEST, "anchors": paths["anchors"], "hyp": paths["hyp"]}
    made_of.record(paths["train"] / "train.json", **trained_with)
    for report in (
        paths["evaluate"] / "metrics.json",
        paths["export"] / "export.json",
        paths["benchmark"] / "benchmark.json",
    ):
        made_of.record(report, **inputs)
    return outputs


def _write(path: Path, content: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))
