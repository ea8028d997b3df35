"""What this machine is, and how fast it trains: measured, not assumed."""

import dataclasses
import os
import tempfile
from dataclasses import dataclass
from pathlib import Path

import torch

from components.datasets.prepared import load_prepared
from components.params import Params
from components.training.configuration import resolved
from yolo_core.device import autocast_dtype, pick_device
from yolo_core.errors import UserError
from yolo_core.train import EpochReport, Phase, fit

STEPS = 4  # of each epoch that is timed; the first epoch loads and compiles
VAL_IMAGES = 8
PRECISIONS = {None: "float32", torch.bfloat16: "bfloat16", torch.float16: "float16"}


@dataclass(frozen=True)
class Machine:
    """The devices to train on."""

    device: str
    """"cpu" or "cuda"."""
    name: str
    gpus: int
    cores: int
    memory_gib: float
    """Of the GPU, or of the machine."""
    precision: str
    """In which a training computes there."""

    @classmethod
    def here(cls) -> "Machine":
        """This machine."""
        device = pick_device("auto")
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        if device.type == "cuda":
            about = torch.cuda.get_device_properties(device)
            name, memory = about.name, about.total_memory
        else:
            name, memory = f"{cores} CPU cores", os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
        precision = PRECISIONS[autocast_dtype(device)]
        return cls(device.type, name, torch.cuda.device_count(), cores, memory / (1 << 30), precision)


@dataclass(frozen=True)
class Speed:
    """How fast a training goes."""

    images_per_second: float
    memory_gib: float
    """Peak memory: of the GPU, or of the process."""


class NoRoom(UserError):
    """A training needs more memory than there is."""


def measure(params: Params, model: str, data: Path) -> Speed:
    """Train a few steps with these parameters on images of a prepared dataset, with one worker. Raises NoRoom."""
    config = resolved(params, model)
    config = dataclasses.replace(
        config, phases=(Phase(2, config.phases[0].hyp),), eval_every=2, nominal_batch=config.batch, patience=None
    )
    train, val = load_prepared(data, "train"), load_prepared(data, "val")
    count = STEPS * config.batch
    reports: list[EpochReport] = []
    with tempfile.TemporaryDirectory() as work:
        images = train.subset([place % len(train) for place in range(count)])
        try:
            fit(config, images, val.subset(VAL_IMAGES), work=Path(work), on_report=reports.append)
        except torch.OutOfMemoryError:
            raise NoRoom(f"{model} at {config.size} px: the memory is too small for {config.batch} images") from None
    last = reports[-1]
    return Speed(last.images_per_second or 0.0, last.memory_bytes / (1 << 30))
