"""A small untrained detector with matching data: the ground truth is what it finds."""

import dataclasses
import json
from pathlib import Path

import cv2
import numpy as np
import torch

from components.parameter_file import load
from components.params import Params
from yolo_core.data.coco import load_split
from yolo_core.evaluate.predict import predict
from yolo_core.evaluate.suppression import Suppression
from yolo_core.evaluate.tta import Plain
from yolo_core.models import build_model
from yolo_core.models.weights import save_detector

ROOT = Path(__file__).parents[2]
MODEL, SIZE, IMAGES = "yolov4-tiny", 96, 6


@dataclasses.dataclass(frozen=True)
class Project:
    data: Path
    weights: Path
    params: Params


def write(folder: Path) -> Project:
    """Images of coloured circles, weights, and as ground truth the detector's best 8 boxes per image.

    Validation and training use the same images.
    """
    data, weights = folder / "data", folder / "model.safetensors"
    content = {
        "images": [{"id": i, "file_name": f"{i}.png", "width": SIZE, "height": SIZE} for i in range(1, IMAGES + 1)],
        "categories": [{"id": 2, "name": "one"}, {"id": 4, "name": "two"}],
        "annotations": [],
    }
    (data / "images/val").mkdir(parents=True)
    (data / "annotations").mkdir()
    rng = np.random.default_rng(0)
    for record in content["images"]:
        picture = np.full((SIZE, SIZE, 3), 90, np.uint8)
        for _ in range(12):
            centre, colour = rng.integers(0, SIZE, 2).tolist(), rng.integers(0, 256, 3).tolist()
            cv2.circle(picture, centre, int(rng.integers(3, 25)), colour, -1)
        cv2.imwrite(str(data / "images/val" / record["file_name"]), picture)
    annotations = data / "annotations/instances_val.json"
    annotations.write_text(json.dumps(content))

    detector = _detector()
    save_detector(weights, detector, classes=["one", "two"], size=SIZE)
    suppression = Suppression(conf=0.01, iou=0.65, max_detections=8)
    found = predict(Plain(detector), load_split(data, "val"), size=SIZE, batch=6, suppression=suppression, rect=False)
    content["annotations"] = [
        {**one, "id": n, "area": one["bbox"][2] * one["bbox"][3], "iscrowd": 0}
        for n, one in enumerate(found.records(), start=1)
    ]
    annotations.write_text(json.dumps(content))
    annotations.with_name("instances_train.json").write_text(json.dumps(content))
    (data / "images/train").symlink_to("val")
    overrides = ["export.check_images=4", "benchmark.warmup=1", "benchmark.runs=3", "benchmark.threads=1"]
    return Project(data, weights, load(ROOT / "params.yaml", overrides))


def _detector() -> torch.nn.Module:
    torch.manual_seed(0)
    model = build_model(MODEL, 2, width=0.125).train()
    with torch.no_grad():
        for _ in range(20):
            model(torch.rand(4, 3, SIZE, SIZE))
        for level in model.head.levels:
            level.weight.mul_(60)
            level.bias.zero_()
    return model.eval()
