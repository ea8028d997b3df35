"""Cluster resources of each step: those of the stages come from the stage table, those of the own steps are here."""

from dataclasses import replace

from kfp import dsl, kubernetes

from components.stage_row import Resources
from components.stage_table import STAGES
from pipelines.graph.target import Target
from pipelines.rayjob.sizes import GPU, job_size
from pipelines.secret import SECRET, SECRET_KEYS

OWN_STEPS = {
    "parameters": Resources("250m", "1Gi"),
    "check-source": Resources("500m", "2Gi"),
    "retrain": Resources("2", "8Gi", gpu=True),
}
FINISH = Resources("250m", "2Gi")
FOLLOWING = Resources("500m", "4Gi")  # for a step that only follows a RayJob


def resources(target: Target) -> dict[str, Resources]:
    """Resources by step name. A training step gets one node of its model's size, or only follows a RayJob.

    Kubeflow retries after any failure, so only the last step and those where a lost node costs hours have retries.
    Each step itself retries while a service is unavailable (`step.run_stage`).
    """
    size = job_size(target.sized_for)
    node = Resources(str(size.cpus), f"{size.memory}Gi", shm=f"{size.shm}Gi", gpu=True)
    training = replace(FOLLOWING if target.ray_jobs else node, retries=target.retries)
    stages = {stage.command: stage.resources or training for stage in STAGES}
    return {**OWN_STEPS, **stages, "finish": replace(FINISH, retries=target.retries)}


def fit(task: dsl.PipelineTask, target: Target) -> dsl.PipelineTask:
    """Give a task the image and the resources of its row.

    KFP's cache is off: its key covers neither the content of the data nor the code in the image, and a custom key would
    have to be known at compile time. The steps `check-source` and `retrain` decide by content what need not run again.
    """
    row = resources(target)[task.name]
    task.set_container_image(target.image).set_caching_options(False)
    task.set_cpu_request(row.cpu).set_memory_request(row.memory).set_memory_limit(row.memory)
    # In every step, since a failing one records why in MLflow.
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
