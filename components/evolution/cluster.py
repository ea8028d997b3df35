"""The Ray cluster that trials run on."""

import math
import os
from collections.abc import Iterator
from contextlib import contextmanager

from components.evolution import ray_settings
from components.evolution.budget import Resources
from components.training.ray_cluster import connected
from yolo_core.errors import UserError

GRACE_S = 60.0  # after the deadline, until a trial that ignores it is killed
DIED = "the trial's process ended without a result"


@contextmanager
def cluster(resources: Resources) -> Iterator[None]:
    """Ray with the resources of one trial; CPUs may exceed those of the machine, GPUs may not."""
    ray_settings.apply()
    import ray

    with connected(math.ceil(resources.cpus), show_workers=False):
        gpus = ray.cluster_resources().get("GPU", 0)
        if not os.environ.get("RAY_ADDRESS") and resources.gpus > gpus:
            raise UserError(f"evolve.gpus_per_trial = {resources.gpus:g}: this machine has {gpus:g} GPUs; ask for less")
        yield
