"""Stage `train`: Ray Train around the core's training loop, with resume by the same command.

Unfinished work lies in work/train/<model>/<digest>, the digest being of everything that determines the result:
the same command goes on from the checkpoints there, another one starts beside them. At success the results move
to `out` and the folder goes. All of it lies on the driver's machine, on whichever nodes the workers run.
"""

import contextlib
import fcntl
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from components.params import Params
from components.tracking import journaled_run as tracking_journal
from components.training.configuration import configure, image_cache
from components.training.job import Job
from components.training.launch import launch
from components.training.results import RESULTS
from yolo_core import atomic
from yolo_core.errors import UserError
from yolo_core.progress import Progress, silent
from yolo_core.train import checkpoint


def run(
    params: Params,
    *,
    model: str,
    data: Path,
    anchors: Path,
    hyp: Path | None,
    out: Path,
    work: Path = Path("runs"),
    progress: Progress = silent,
) -> dict[str, Any]:
    """Train `model` and write model.safetensors, curves.csv and train.json to `out`; returns its main figures.

    Raises UserError for missing or wrong inputs, and when another process trains this model in `work`; TryAgain when it
    was told to end (SIGTERM) and has written a checkpoint, or when the cluster has no room for the workers.
    """
    config = configure(params, model, data, anchors, hyp)
    place = work.absolute() / "train" / model
    with _alone(place, model):
        folder = place / checkpoint.digest(config.identity())[:16]
        job = Job(params, config, data.absolute(), folder, image_cache(params, data, work))
        folder.mkdir(parents=True, exist_ok=True)
        launch(job, progress)
        for name in RESULTS:
            atomic.write_bytes(out / name, (job.results / name).read_bytes())
        if not tracking_journal.waiting("train", model):  # kept while they wait: the same command then ends soon
            shutil.rmtree(folder)
    record = json.loads((out / "train.json").read_text(encoding="utf-8"))
    return {key: record[key] for key in ("epochs", "best_epoch", "AP", "AP50", "images_per_second", "seconds")}


@contextlib.contextmanager
def _alone(place: Path, model: str) -> Iterator[None]:
    """Hold the folder of this model's trainings; the system lets go of it when the process ends, however it ends."""
    place.mkdir(parents=True, exist_ok=True)
    with (place / "lock").open("a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError(
                f"{place}: another run is training {model} there; wait for it, or give --work another folder"
            ) from None
        yield
