"""What each step may use on the cluster: one row a step."""

from dataclasses import dataclass

from kfp import dsl, kubernetes

GPU = "nvidia.com/gpu"
SECRET = "scaled-yolov4"  # in the pipeline's namespace; may be absent
SECRET_KEYS = (
    "AWS_ACCESS_KEY_ID",
    "AWS_SECRET_ACCESS_KEY",
    "AWS_ENDPOINT_URL",
    "MLFLOW_TRACKING_USERNAME",
    "MLFLOW_TRACKING_PASSWORD",
)


@dataclass(frozen=True)
class Resources:
    """One step's share. `shm` is a memory-backed /dev/shm, which loader processes and NCCL need; it counts as memory.

    `secret` gives it the addresses and keys of S3 and MLflow.
    `retries` stand only where a lost node costs hours: a mistake in the parameters would only fail again.
    """

    cpu: str
    memory: str
    shm: str | None = None
    gpu: bool = False
    secret: bool = False
    retries: int = 0


RESOURCES = {
    "parameters": Resources("250m", "1Gi"),
    "prepare": Resources("2", "4Gi", secret=True),
    "anchors": Resources("1", "4Gi"),
    "evolve": Resources("4", "24Gi", shm="4Gi", gpu=True, secret=True, retries=2),
    "train": Resources("4", "24Gi", shm="8Gi", gpu=True, secret=True, retries=2),
    "evaluate": Resources("2", "8Gi", gpu=True),
    "export": Resources("2", "8Gi", gpu=True),
    "benchmark": Resources("2", "8Gi", gpu=True),
    "register": Resources("500m", "4Gi", secret=True),
    "promote": Resources("500m", "4Gi", secret=True),
}


def fit(task: dsl.PipelineTask, image: str, gpus: int, retry: bool) -> dsl.PipelineTask:
    """Give a task its image and what its row asks for; `gpus` is how many it gets if its row can use one.

    KFP's own cache is off: its key sees neither the content of the data nor the code in the image.
    """
    row = RESOURCES[task.name]
    task.set_container_image(image).set_caching_options(False)
    task.set_cpu_request(row.cpu).set_memory_request(row.memory).set_memory_limit(row.memory)
    if row.secret:
        kubernetes.use_secret_as_env(task, SECRET, {key: key for key in SECRET_KEYS}, optional=True)
    if row.shm:
        kubernetes.empty_dir_mount(task, "shm", "/dev/shm", medium="Memory", size_limit=row.shm)
    if row.gpu and gpus:
        task.set_accelerator_type(GPU).set_accelerator_limit(gpus)
        kubernetes.add_toleration(task, key=GPU, operator="Exists", effect="NoSchedule")
    if row.retries and retry:
        task.set_retry(row.retries, backoff_duration="30s", backoff_factor=2, backoff_max_duration="600s")
    return task
