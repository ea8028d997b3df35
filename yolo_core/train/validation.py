"""The validation of a training: how good its average weights are at the end of an epoch, and which are the best."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TypeVar

import numpy as np

from yolo_core.errors import Stopped
from yolo_core.evaluate.coco_metrics import score
from yolo_core.evaluate.detections import Detections
from yolo_core.evaluate.predict import predict
from yolo_core.evaluate.tta import Plain
from yolo_core.progress import Progress
from yolo_core.train import distributed
from yolo_core.train.records import Best, EpochRow
from yolo_core.train.run import Run

T = TypeVar("T")


def fitness(ap: float | None, ap50: float | None) -> float:
    """What chooses the best weights, and drives the evolution of hyperparameters; 0 without ground truth (None)."""
    return 0.1 * (ap50 or 0.0) + 0.9 * (ap or 0.0)


def epochs_without_gain(rows: Sequence[EpochRow], since: int = 0) -> int:
    """Epochs from the first evaluation with the best fitness to the last evaluation; counted from `since` at most."""
    evaluated = [row for row in rows if row["AP"] is not None]
    if not evaluated:
        return 0
    best = max(evaluated, key=lambda row: fitness(row["AP"], row["AP50"]))  # of equals the first
    return evaluated[-1]["epoch"] - max(best["epoch"], since)


def evaluate(run: Run) -> tuple[float | None, float | None] | None:
    """AP and AP50 of the average weights on the validation split, None without ground truth; None when it was stopped.

    Every worker predicts its share of the images; the main worker scores what all have found.
    """
    distributed.copy_from_main(run.learner.ema.module.buffers())  # without sync_bn each has its own statistics
    shares = distributed.gather(_predicted(run))
    found = [share for share in shares if share is not None]
    if len(found) < len(shares):
        return None
    return distributed.from_main(lambda: _scored(run, Detections.joined(found)))


def _predicted(run: Run) -> Detections | None:
    """What this worker detects on its share of the images; None when it was stopped."""
    settings = run.config.evaluation
    try:
        return predict(
            Plain(run.learner.ema.module),
            run.val_set,
            size=run.config.size,
            stride=run.learner.model.input_stride,
            device=run.learner.device,
            share=(distributed.rank(), distributed.world()),
            progress=_heartbeat(run.alive),
            should_stop=run.callbacks.should_stop,
            batch=settings.batch,
            suppression=settings.suppression,
        )
    except Stopped:
        return None


def _heartbeat(alive: Callable[[], None]) -> Progress:
    """A progress report that only sends a heartbeat per item."""

    def report(items: Iterable[T], label: str, total: int | None = None) -> Iterator[T]:
        for item in items:
            alive()
            yield item

    return report


def _scored(run: Run, detections: Detections) -> tuple[float | None, float | None]:
    shown = [image.id for image in run.val_set.images]
    position = {image: index for index, image in enumerate(shown)}
    order = np.argsort([position[image] for image in detections.image_id.tolist()], kind="stable")
    ordered = detections.where(order.astype(np.int64))  # as one worker would have found them
    figures = score(run.val_set.annotation_path, ordered, shown, run.config.judge).figures
    return figures["AP"], figures["AP50"]


def keep_if_best(run: Run, epoch: int, ap: float | None, ap50: float | None) -> None:
    """Keep a copy of the average weights unless earlier ones are better; of equals the later, trained longer."""
    value = fitness(ap, ap50)
    if run.best is None or value >= run.best["fitness"]:
        run.best = Best(epoch=epoch, fitness=value, AP=ap, AP50=ap50)
        run.best_weights = {name: tensor.clone() for name, tensor in run.learner.ema.module.state_dict().items()}
