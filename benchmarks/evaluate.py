"""Evaluation from image files to COCO figures: decoding, letterbox, inference, NMS, scoring; two threads.

Both sides run yolov7-tiny at 416 px with the same weights, batch and thresholds, each fused as its own evaluation does.
The weights are random, set so that about as many rows and classes pass the lowest score as in a trained detector.
Rounding changes what a detector finds in noise, so the numbers of detections agree nearly, not exactly.
"""

import os
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from types import ModuleType
from typing import Annotated

import torch
import typer
from torch import nn

from benchmarks import peers
from benchmarks.contender import Contender, Figures, Round
from benchmarks.race import race
from benchmarks.report import Goal, publish
from yolo_core.data.cache import CacheSettings
from yolo_core.data.coco import DetectionDataset, load_split
from yolo_core.data.loader import val_batches
from yolo_core.models.zoo import build_model

MODEL, SIZE, BATCH, CONF, IOU, MAX_DETECTIONS = "yolov7-tiny", 416, 16, 0.001, 0.65, 300
THREADS = 2
SPLIT = "val2017"
PHOTOGRAPHS = Path(os.environ.get("COCO128", Path(__file__).parents[2] / "shared" / "data" / "coco128"))
OBJECTNESS, CLASSES, SPREAD = -8.7, -3.3, 1.5  # logits of the random heads: means and standard deviation

Data = Annotated[Path, typer.Option(help=f"folder with images/{SPLIT} and annotations of COCO")]


def main(data: Data = PHOTOGRAPHS, rounds: int = 2) -> None:
    with TemporaryDirectory(prefix="evaluate-") as folder:
        dataset = lay_out(data, Path(folder))
        torch.save(random_weights(dataset), Path(folder) / "weights.pt")
        options = {"folder": folder}
        results = race(
            [
                Contender("ours", "benchmarks.evaluate:ours", options, threads=THREADS),
                Contender(
                    "yolov7 (test.py)", "benchmarks.peers.evaluation:yolov7", options, peers.path("yolov7"), THREADS
                ),
            ],
            rounds,
        )
    goal = Goal("images_per_second", "images/s", "more", ratio=1)
    publish("evaluate", results, [goal], model=MODEL, size=SIZE, batch=BATCH, images=len(dataset), threads=THREADS)


def lay_out(data: Path, folder: Path) -> DetectionDataset:
    """The photographs as a prepared folder, with labels in YOLO's format as well."""
    source = data / "annotations" / f"instances_{SPLIT}.json"
    if not source.is_file():
        raise typer.BadParameter(f"{source}: missing; give a folder of COCO photographs", param_hint="--data")
    for part in ("images/val", "labels/val", "annotations"):
        (folder / part).mkdir(parents=True)
    (folder / "annotations/instances_val.json").symlink_to(source)
    for file in (data / "images" / SPLIT).iterdir():
        (folder / "images/val" / file.name).symlink_to(file)
    dataset = load_split(folder, "val")
    for record, labels in zip(dataset.images, dataset.labels, strict=True):
        sides = (record.width, record.height)
        lines = [
            (int(k), (x1 + x2) / 2 / sides[0], (y1 + y2) / 2 / sides[1], (x2 - x1) / sides[0], (y2 - y1) / sides[1])
            for k, x1, y1, x2, y2 in labels.tolist()
        ]
        text = "".join(" ".join(map(str, line)) + "\n" for line in lines)
        (folder / "labels/val" / f"{record.path.stem}.txt").write_text(text)
    return dataset


@torch.no_grad()
def random_weights(dataset: DetectionDataset) -> dict[str, torch.Tensor]:
    """Weights normalised on the first batch, with heads whose logits have the chosen mean and spread."""
    torch.manual_seed(0)
    model = build_model(MODEL, 80).train()
    for part in model.modules():
        if isinstance(part, nn.BatchNorm2d):
            part.momentum = 1  # so that evaluation uses the statistics of this batch
    images = next(iter(val_batches(dataset, size=SIZE, batch=BATCH))).images / 255
    model(images)
    maps = model.eval()(images)
    for conv, raw in zip(model.head.levels, maps, strict=True):
        assert isinstance(conv, nn.Conv2d)
        assert conv.bias is not None
        bias = conv.bias.view(model.head.anchors_per_level, -1)
        conv.weight *= SPREAD / (raw[..., 5:] - bias[0, 5]).std()
        bias[:, :4], bias[:, 4], bias[:, 5:] = 0, OBJECTNESS, CLASSES
    return model.state_dict()


def ours(folder: str) -> Round:
    from yolo_core.evaluate import predict
    from yolo_core.evaluate.coco_metrics import score
    from yolo_core.evaluate.suppression import Suppression
    from yolo_core.evaluate.tta import Plain
    from yolo_core.models.fuse import for_inference

    torch.set_num_threads(THREADS)
    model = build_model(MODEL, 80).eval()
    model.load_state_dict(torch.load(Path(folder) / "weights.pt"))
    predictor = Plain(for_inference(model))
    suppression = Suppression(CONF, IOU, MAX_DETECTIONS)
    dataset, kept = load_split(folder, "val", CacheSettings("none")), counted(predict, "nms")

    def once() -> Figures:
        kept.clear()
        began = time.perf_counter()
        found = predict.predict(predictor, dataset, size=SIZE, batch=BATCH, suppression=suppression)
        score(dataset.annotation_path, found)
        return {"images_per_second": len(dataset) / (time.perf_counter() - began), "detections": sum(kept)}

    return once


def counted(module: ModuleType, suppress: str) -> list[int]:
    """The number of detections kept per image, recorded during the evaluation."""
    counts: list[int] = []
    plain = getattr(module, suppress)

    def counting(*arguments: object, **options: object) -> object:
        found = plain(*arguments, **options)
        counts.extend(map(len, found))
        return found

    setattr(module, suppress, counting)
    return counts


if __name__ == "__main__":
    typer.run(main)
