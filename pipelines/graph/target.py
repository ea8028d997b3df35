"""What is fixed when the pipeline is compiled: the image, and the cluster resources its steps may use."""

from dataclasses import dataclass

IMAGE = "scaled-yolov4:latest"


@dataclass(frozen=True)
class Target:
    """The options of compilation."""

    image: str = IMAGE
    """The project's image, for every step."""
    gpus: int = 0
    """GPUs of each step that can use one."""
    sized_for: str = "yolov4-tiny"
    """The model whose `job_size` sets the resources of a training step: one node of it."""
    ray_jobs: bool = False
    """Whether training steps run as RayJobs instead, over as many nodes as each model needs."""
    queue: str = ""
    """Kueue's queue for the RayJobs; empty: none."""
    account: str = ""
    """Service account of the Ray pods."""
    retries: int = 2
    """Retries of a training step, and of the last one, after a failure."""
    node_selector: tuple[tuple[str, str], ...] = ()
    """Labels of the GPU nodes, as (label, value)."""
