"""What is settled when the pipeline is compiled: the image, and what of the cluster its steps may use."""

from dataclasses import dataclass

IMAGE = "scaled-yolov4:latest"


@dataclass(frozen=True)
class Target:
    """image: the project's. gpus: of each step that can use one. retries: of a step that trains, after a fault.

    sized_for: the model whose row of `job_sizes` the steps that train are cut to, one node of it.
    ray_jobs: those steps run as RayJobs instead, over as many nodes as each model asks for; queue (Kueue) and account
    (of the Ray pods) are theirs.
    """

    image: str = IMAGE
    gpus: int = 0
    sized_for: str = "yolov4-tiny"
    ray_jobs: bool = False
    queue: str = ""
    account: str = ""
    retries: int = 2
    node_selector: tuple[tuple[str, str], ...] = ()
