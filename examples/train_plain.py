"""A training from the parts of `yolo_core`, to read and to change: no pipeline, no checkpoints, no EMA.

    python examples/train_plain.py data/prepared mine.safetensors --model yolov4-tiny --size 192 --epochs 10

The folder is one that `scaled-yolov4 prepare` wrote. `yolo_core.train.fit` is the training of the product: it adds
warm-up of the momentum, EMA, accumulation, mixed precision, several workers, and checkpoints that resume exactly.
"""

import argparse
import math
from pathlib import Path

import torch
from torch import nn

from yolo_core.anchors import FitSettings, choose
from yolo_core.data.coco import DetectionDataset, load_split
from yolo_core.data.loader import train_batches
from yolo_core.evaluate.coco_metrics import score
from yolo_core.evaluate.predict import predict, to_device
from yolo_core.evaluate.suppression import Suppression
from yolo_core.evaluate.tta import Plain
from yolo_core.losses import make_loss
from yolo_core.models import Detector, build_model, get_spec
from yolo_core.models.detector import TrainingGraph
from yolo_core.models.weights import save_detector

WARMUP_STEPS, CLIP_NORM = 100, 10.0
SUPPRESSION = Suppression(conf=0.001, iou=0.65, max_detections=300)


def main() -> None:
    given = arguments()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    train_set, val_set = load_split(given.data, "train"), load_split(given.data, "val")
    model = build(given.model, train_set, given.size, given.width).to(device)
    loss_of = make_loss(model, model.spec.hyp, size=given.size)
    optimizer = sgd(model)
    steps = given.epochs * len(batches(model, train_set, given, epoch=0))
    step = 0
    for epoch in range(given.epochs):
        model.train()
        for images, targets in batches(model, train_set, given, epoch):
            for group in optimizer.param_groups:
                group["lr"] = learning_rate(model, step, steps)
            loss, _ = loss_of(TrainingGraph(model)(to_device(images, device)), targets.to(device))
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), CLIP_NORM)
            optimizer.step()
            step += 1
        figures = evaluate(model, val_set, given.size, device)
        print(f"epoch {epoch + 1}/{given.epochs}: loss {loss.item():.3f}, AP {figures['AP']}, AP50 {figures['AP50']}")
    save_detector(given.out, model, classes=train_set.classes, size=given.size)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Train a detector with a plain loop.")
    parser.add_argument("data", type=Path, help="folder written by `scaled-yolov4 prepare`")
    parser.add_argument("out", type=Path, help="file to write: .safetensors")
    parser.add_argument("--model", default="yolov4-tiny", help="a name from `scaled-yolov4 models`")
    parser.add_argument("--size", type=int, default=192, help="side of the training square, px")
    parser.add_argument("--width", type=float, default=1.0, help="multiplier of the channels of every layer")
    parser.add_argument("--batch", type=int, default=16, help="images per step")
    parser.add_argument("--epochs", type=int, default=10)
    return parser.parse_args()


def build(name: str, train_set: DetectionDataset, size: int, width: float) -> Detector:
    """A new model with anchors in px at `size` that suit the data."""
    torch.manual_seed(0)
    spec = get_spec(name)
    anchors = choose(spec, train_set, size, anchor_t=spec.hyp.anchor_t, settings=FitSettings(), seed=0)
    levels = tuple(tuple((float(w), float(h)) for w, h in level) for level in anchors.levels)
    return build_model(name, len(train_set.classes), width, anchors=levels)


def batches(model: Detector, train_set: DetectionDataset, given: argparse.Namespace, epoch: int):
    """Batches of one epoch: RGB (B, 3, S, S) uint8 and targets (T, 6) image, class, cx, cy, w, h px."""
    options = {"size": given.size, "batch": given.batch, "seed": 0, "stride": model.input_stride}
    return train_batches(train_set, model.spec.hyp, epoch=epoch, **options)


def sgd(model: Detector) -> torch.optim.SGD:
    """Weight decay for the weights of convolutions, none for biases and normalisation."""
    decayed = [p for p in model.parameters() if p.ndim > 1]
    others = [p for p in model.parameters() if p.ndim <= 1]
    groups = [{"params": decayed, "weight_decay": model.spec.hyp.weight_decay}, {"params": others}]
    return torch.optim.SGD(groups, lr=model.spec.hyp.lr0, momentum=model.spec.hyp.momentum, nesterov=True)


def learning_rate(model: Detector, step: int, steps: int) -> float:
    """A linear warm-up, then a cosine down to the fraction `lrf`."""
    hyp = model.spec.hyp
    cosine = hyp.lrf + (1 - hyp.lrf) * (1 + math.cos(math.pi * step / steps)) / 2
    return hyp.lr0 * cosine * min(1.0, (step + 1) / WARMUP_STEPS)


def evaluate(model: Detector, val_set: DetectionDataset, size: int, device: torch.device) -> dict[str, float | None]:
    found = predict(
        Plain(model), val_set, size=size, batch=16, suppression=SUPPRESSION, device=device, stride=model.input_stride
    )
    return score(val_set.annotation_path, found).figures


if __name__ == "__main__":
    main()
