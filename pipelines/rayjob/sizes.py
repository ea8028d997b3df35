"""Nodes that each model's training needs: one row per model, used by RayJobs and by the steps of the pipeline.

Sized for the published recipes in half precision. A test checks the rows against the recipes of params/coco.yaml and
the activation memory that `yolo_core.models.cost` computes.
"""

import math
from dataclasses import dataclass, replace

from yolo_core.errors import UserError
from yolo_core.model_names import known

GPU = "nvidia.com/gpu"


@dataclass(frozen=True)
class JobSize:
    """A group of equal GPU nodes."""

    nodes: int
    gpus: int
    """GPUs per node."""

    gpu_memory: int
    """GiB per GPU."""

    batch: int
    """Images per GPU and step."""

    cpus: int
    """CPUs per node."""

    memory: int
    """GiB per node, /dev/shm included."""

    shm: int
    """GiB of /dev/shm per node."""

    @property
    def all_gpus(self) -> int:
        return self.nodes * self.gpus


# Nodes that clouds offer: 1, 4 or 8 GPUs of 24 GiB (L4, A10G), 8 of 40 GiB (A100), less what the node itself needs.
TINY = JobSize(nodes=1, gpus=1, gpu_memory=24, batch=128, cpus=6, memory=24, shm=8)
CSP = JobSize(nodes=1, gpus=4, gpu_memory=24, batch=16, cpus=40, memory=120, shm=16)
P5 = JobSize(nodes=1, gpus=8, gpu_memory=24, batch=8, cpus=80, memory=240, shm=32)
V7 = JobSize(nodes=1, gpus=8, gpu_memory=24, batch=16, cpus=80, memory=240, shm=32)
P6 = JobSize(nodes=1, gpus=8, gpu_memory=40, batch=8, cpus=80, memory=480, shm=64)
W6 = JobSize(nodes=1, gpus=8, gpu_memory=40, batch=16, cpus=80, memory=480, shm=64)
E6 = JobSize(nodes=2, gpus=8, gpu_memory=40, batch=8, cpus=80, memory=480, shm=64)
P7 = JobSize(nodes=2, gpus=8, gpu_memory=40, batch=4, cpus=80, memory=640, shm=128)

JOB_SIZES: dict[str, JobSize] = {
    "yolov4-tiny": TINY,
    "yolov4-tiny-3l": TINY,
    "yolov4-csp": CSP,
    "yolov4-csp-leaky": CSP,
    "yolov4-p5": P5,
    "yolov4-p6": P6,
    "yolov4-p7": P7,
    "yolov4-p5-darknet": P5,
    "yolov4-p6-darknet": P6,
    "yolov7-tiny": TINY,
    "yolov7-tiny-silu": TINY,
    "yolov7": V7,
    "yolov7-x": V7,
    "yolov7-w6": W6,
    "yolov7-e6": E6,
    "yolov7-d6": E6,
    "yolov7-e6e": E6,
}
# The ablations of the Scaled-YOLOv4 paper, by name prefix.
FAMILIES: dict[str, JobSize] = {"d53-": CSP, "cd53s-": CSP, "tinycd53s": TINY, "cosa-": TINY}


def job_size(model: str) -> JobSize:
    """The size of this model's training. Raises UserError for an unknown model."""
    if known(model) in JOB_SIZES:
        return JOB_SIZES[model]
    for prefix, size in FAMILIES.items():
        if model.startswith(prefix):
            return size
    raise UserError(f"{model}: pipelines/rayjob/sizes.py has no row for its training; add one")


def training_workers(size: JobSize, batch: int) -> int:
    """Training processes, one per GPU: the most that divide `batch` evenly."""
    return max(workers for workers in range(1, size.all_gpus + 1) if batch % workers == 0)


def with_gpus(size: JobSize, gpus: float) -> JobSize:
    """As many of these nodes as provide `gpus` GPUs, at least one; for many small trainings."""
    return replace(size, nodes=max(1, math.ceil(gpus / size.gpus)))
