"""The stage `train`: Ray Train around the core's training loop; repeating the command resumes it.

Unfinished work is in work/train/<model>/<digest>, the digest of everything that determines the result: the same command
resumes from the checkpoints there, a different one starts beside them. On success the results move to `out` and the
folder is removed. All of it is on the driver's machine, whichever nodes the workers run on.
"""

import shutil
from pathlib import Path

from components import made_of
from components.datasets.digest import shared_images
from components.files import MANIFEST, TRAINING, read_json
from components.monitoring.training_log import SILENT, TrainingLog
from components.params import Params
from components.tracking import journaled_run
from components.tracking.sinks import NO_SINKS, Sinks
from components.training.configuration import configure, image_cache
from components.training.job import Job
from components.training.launch import launch
from components.training.results import RESULTS
from yolo_core import atomic
from yolo_core.locks import exclusive
from yolo_core.progress import Progress, silent
from yolo_core.train import checkpoint

COPIED = 0.1  # share of the validation images that are training images, from which AP misleads


def run(
    params: Params,
    *,
    model: str,
    data: Path,
    anchors: Path | None,
    hyp: Path | None,
    out: Path,
    work: Path = Path("runs"),
    progress: Progress = silent,
    log: TrainingLog = SILENT,
    sinks: Sinks = NO_SINKS,
) -> dict[str, object]:
    """Train `model` and write model.safetensors, curves.csv and train.json to `out`; returns its main figures.

    anchors, hyp: None for the published anchors and for the recipe's hyperparameters with `train.hyp`.
    log: receives a report on each epoch. sinks: who else receives the metrics.
    Raises UserError for missing or invalid inputs, and when another process trains this model in `work`; TryAgain after
    SIGTERM, once a checkpoint is written, or when the cluster has no room for the workers.
    """
    sinks.check()
    config = configure(params, model, data, anchors, hyp, progress)
    if hint := _copied_hint(data):
        log.hint(hint)
    runs = work.absolute() / "train" / model
    busy = f"{runs}: another run is training {model} there; wait for it, or give --work another folder"
    with exclusive(runs / "lock", busy):
        folder = runs / checkpoint.digest(config.identity())[:16]
        job = Job(params, config, data.absolute(), folder, image_cache(params, data, work))
        folder.mkdir(parents=True, exist_ok=True)
        launch(job, progress, log, sinks)
        for name in RESULTS:
            atomic.write_bytes(out / name, (job.results / name).read_bytes())
        made_of.record(out / TRAINING, manifest=data / MANIFEST, anchors=anchors, hyp=hyp)
        if not journaled_run.waiting("train", model):  # else keep it: the same command then finishes quickly
            shutil.rmtree(folder)
    record = read_json(out / TRAINING)
    how = ("ended_by", "last_epoch") if record["ended_by"] != "epochs" else ()
    return {key: record[key] for key in ("epochs", *how, "best_epoch", "AP", "AP50", "images_per_second", "seconds")}


def _copied_hint(data: Path) -> str | None:
    """The hint that AP is measured on training images; None if hardly any are shared."""
    shared, images = shared_images(data)
    if not shared or shared < COPIED * images:
        return None
    which = "val is a copy of train" if shared == images else f"{shared} of {images} validation images are in train"
    return f"{which}: AP tells how well images are memorised; split off others with prepare.val_fraction"
