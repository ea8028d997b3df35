"""What each step may use on the cluster: one row a step."""

from dataclasses import dataclass

from kfp import dsl, kubernetes

from pipelines.graph.target import Target
from pipelines.rayjob.sizes import GPU, job_size
from pipelines.secret import SECRET, SECRET_KEYS


@dataclass(frozen=True)
class Resources:
    """One step's share. `shm` is a memory-backed /dev/shm, which loader processes and NCCL need; it counts as memory.

    `retries` are Kubeflow's, which tries again after any failure: they stand only where a lost node costs hours. A
    service that is away is waited for inside each step (`stage.run_stage`).
    """

    cpu: str
    memory: str
    shm: str | None = None
    gpu: bool = False
    retries: int = 0


def resources(target: Target) -> dict[str, Resources]:
    """The share of every step by its name. What trains gets one node of its model, or only follows a RayJob."""
    size = job_size(target.sized_for)
    training = Resources(str(size.cpus), f"{size.memory}Gi", shm=f"{size.shm}Gi", gpu=True, retries=target.retries)
    following = Resources("500m", "4Gi", retries=target.retries)
    return {
        "parameters": Resources("250m", "1Gi"),
        "resolve": Resources("500m", "2Gi"),
        "prepare": Resources("2", "4Gi"),
        "retrain": Resources("2", "8Gi", gpu=True),
        "anchors": Resources("1", "4Gi"),
        "evolve": following if target.ray_jobs else training,
        "train": following if target.ray_jobs else training,
        "evaluate": Resources("2", "8Gi", gpu=True),
        "export": Resources("2", "8Gi", gpu=True),
        "benchmark": Resources("2", "8Gi", gpu=True),
        "register": Resources("500m", "4Gi"),
        "promote": Resources("500m", "4Gi"),
        "compare": Resources("500m", "2Gi"),
        "finish": Resources("250m", "2Gi", retries=target.retries),
    }


def fit(task: dsl.PipelineTask, target: Target) -> dsl.PipelineTask:
    """Give a task the image and what its row asks for.

    KFP's own cache is off: its key sees neither the content of the data nor the code in the image, and one of our own
    would have to be known when the graph is compiled. What need not run again, the steps `resolve` and `retrain` decide
    by content.
    """
    row = resources(target)[task.name]
    task.set_container_image(target.image).set_caching_options(False)
    task.set_cpu_request(row.cpu).set_memory_request(row.memory).set_memory_limit(row.memory)
    # For every step: one that fails says why in MLflow.
    kubernetes.use_secret_as_env(task, SECRET, {key: key for key in SECRET_KEYS}, optional=True)
    if row.shm:
        kubernetes.empty_dir_mount(task, "shm", "/dev/shm", medium="Memory", size_limit=row.shm)
    if row.gpu and target.gpus:
        task.set_accelerator_type(GPU).set_accelerator_limit(target.gpus)
        kubernetes.add_toleration(task, key=GPU, operator="Exists", effect="NoSchedule")
        for label, value in target.node_selector:
            kubernetes.add_node_selector(task, label_key=label, label_value=value)
    if row.retries:
        task.set_retry(row.retries, backoff_duration="30s", backoff_factor=2, backoff_max_duration="600s")
    return task
