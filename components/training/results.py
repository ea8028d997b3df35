"""The results of a training: the best weights, the curves, a summary."""

import csv
import dataclasses
import io
import platform
from importlib.metadata import version

from components.files import CURVES, TRAINING, WEIGHTS
from components.training.job import Job
from yolo_core import atomic
from yolo_core.models.weights import save_detector
from yolo_core.train import EpochRow, TrainConfig, TrainResult, checkpoint, distributed
from yolo_core.train.transfer import Transfer

RESULTS = (WEIGHTS, CURVES, TRAINING)
COLUMNS: tuple[str, ...] = ("epoch", "step", "lr", "box", "obj", "cls", "loss", "AP", "AP50")


def write(job: Job, result: TrainResult, classes: list[str], run_id: str | None, seconds: float) -> None:
    """Write the results to the job's folder for them."""
    weights, curves, summary = (job.results / name for name in RESULTS)
    extra = {"epoch": result.best["epoch"], "fitness": result.best["fitness"]}
    save_detector(weights, result.model, classes=classes, size=job.config.size, extra=extra)
    atomic.write_text(curves, _csv(result.rows))
    atomic.write_json(summary, _summary(job, result, run_id, seconds))


def _taken_over(config: TrainConfig, transfer: Transfer | None) -> dict[str, object] | None:
    """Which weights the training started from, and which of them fitted."""
    if transfer is None:
        return None
    return {"file": config.start_from, "sha256": config.start_digest, **dataclasses.asdict(transfer)}


def _csv(rows: list[EpochRow]) -> str:
    text = io.StringIO()
    table = csv.DictWriter(text, list(COLUMNS), lineterminator="\n")
    table.writeheader()
    table.writerows(rows)
    return text.getvalue()


def _summary(job: Job, result: TrainResult, run_id: str | None, seconds: float) -> dict[str, object]:
    config, best = job.config, result.best
    return {
        "model": config.model,
        "size": config.size,
        "batch": config.batch,
        "epochs": config.phases[-1].epochs,
        "ended_by": result.ended_by,
        "last_epoch": result.rows[-1]["epoch"],
        "steps": result.steps,
        "best_epoch": best["epoch"],
        "fitness": best["fitness"],
        "AP": best["AP"],
        "AP50": best["AP50"],
        "images_per_second": round(result.images_per_second, 2),
        "seconds": round(seconds, 2),
        "resumed_at_step": result.resumed_at,
        "device": result.device,
        "precision": result.dtype,
        "workers": distributed.world(),
        "started_from": _taken_over(config, result.transfer),
        "digest": checkpoint.digest({**config.identity(), **({"steps": result.steps} if result.ended_early else {})}),
        "mlflow_run_id": run_id,
        "versions": {
            "python": platform.python_version(),
            **{name: version(name) for name in ("scaled-yolov4", "torch", "ray")},
        },
    }
