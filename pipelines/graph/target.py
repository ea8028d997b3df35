"""What is fixed when the pipeline is compiled: the image, and the cluster resources its steps may use."""

from dataclasses import dataclass

IMAGE = "scaled-yolov4:latest"


@dataclass(frozen=True)
class Target:
    """image: the project's. gpus: per step that can use one. retries: of a training step, after a failure.

    sized_for: the model whose `job_size` gives the resources of a training step, one node of it.
    ray_jobs: training steps run as RayJobs instead, over as many nodes as each model needs, with their queue (Kueue)
    and account (of the Ray pods).
    """

    image: str = IMAGE
    gpus: int = 0
    sized_for: str = "yolov4-tiny"
    ray_jobs: bool = False
    queue: str = ""
    account: str = ""
    retries: int = 2
    node_selector: tuple[tuple[str, str], ...] = ()
