"""The step of a stage that runs as a RayJob: describe the job, run it, show its results."""

import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from importlib.metadata import version
from pathlib import Path

from kfp import dsl

from components.parameter_file import load
from components.stage_row import Stage
from components.stage_table import get_stage
from components.storage.stage_paths import local_copy
from pipelines.exit_codes import exit_codes
from pipelines.graph.artifacts import store_address
from pipelines.graph.outcome import note_failure
from pipelines.graph.step import describe, flags, stage_options
from pipelines.rayjob.api import RayJobsApi, connect, own_namespace
from pipelines.rayjob.manifest import RayJob
from pipelines.rayjob.runner import run as run_job
from pipelines.rayjob.sizes import job_size, training_workers, with_gpus


@dataclass(frozen=True)
class Platform:
    """Where and as what a run's RayJobs run."""

    run: str
    """Id of the pipeline run."""
    image: str
    """Image of the Ray pods."""
    queue: str = ""
    """Kueue's queue; empty: none."""
    account: str = ""
    """Service account of the Ray pods."""
    namespace: str = ""
    """Empty: that of this pod."""
    node_selector: Mapping[str, str] = field(default_factory=dict)
    """Labels of the GPU nodes."""

    def job(self, step: str, params: dsl.Artifact, **given: object) -> RayJob:
        return RayJob(
            run=self.run,
            step=step,
            image=self.image,
            ray_version=version("ray"),
            namespace=self.namespace or own_namespace(),
            queue=self.queue,
            service_account=self.account,
            node_selector=self.node_selector,
            environment={name: str(value) for name, value in params.metadata.items()},
            **given,  # pyright: ignore[reportArgumentType]
        )


def run_ray_step(
    name: str,
    *,
    run: str,
    image: str,
    queue: str,
    account: str,
    node_selector: Mapping[str, str],
    params: dsl.Artifact,
    metrics: dsl.Metrics,
    report: dsl.HTML,
    model: str = "",
    **artifacts: dsl.Artifact,
) -> None:
    """Run a stage as a RayJob on its artifacts, given by their names in the stage table, and describe its result.

    If the job fails, this process ends with its exit code.
    """
    stage = get_stage(name)
    result = artifacts[stage.result.artifact]
    with exit_codes():
        platform = Platform(run, image, queue, account, node_selector=node_selector)
        job = stage_job(name, platform, params, model, **artifacts)
        code = run_job(job, RayJobsApi(job.namespace, connect()))
        if code:
            note_failure(params, job.step, f"its RayJob ended with exit code {code}")
            sys.exit(code)
        shown = Path(local_copy(_address(result, stage.result.shown)))
    describe(stage, model, shown, result, metrics, report)


def stage_job(
    name: str, platform: Platform, params: dsl.Artifact, model: str = "", **artifacts: dsl.Artifact
) -> RayJob:
    """The RayJob that runs a stage on its artifacts."""
    return JOBS[name](platform, params, model, command(get_stage(name), params, model, artifacts))


def command(stage: Stage, params: dsl.Artifact, model: str, artifacts: Mapping[str, dsl.Artifact]) -> list[str]:
    """The stage's command, with addresses in the object store, which all pods of the job can reach."""
    result = artifacts[stage.result.artifact]
    out, work = store_address(result), _beside(result, "work")
    options = stage_options(stage, model, artifacts, _address, out=out, work=work)
    return ["scaled-yolov4", stage.command, *flags({"params": store_address(params), **options})]


def _address(artifact: dsl.Artifact, file: str) -> str:
    folder = store_address(artifact)
    return f"{folder}/{file}" if file else folder


def train_job(platform: Platform, params: dsl.Artifact, model: str, command: Sequence[str]) -> RayJob:
    """The training of one model: the nodes of its `job_size`, without GPUs that its batch cannot be divided over."""
    size = job_size(model)
    workers = training_workers(size, load(Path(params.path)).train_settings(model).batch)
    changes = {"train.workers": workers, "train.gpus_per_worker": 1, "train.loader_workers": size.cpus // size.gpus - 2}
    nodes = math.ceil(workers / size.gpus)
    return platform.job(f"train-{model}", params, size=replace(size, nodes=nodes), command=_with(command, changes))


def evolve_job(platform: Platform, params: dsl.Artifact, model: str, command: Sequence[str]) -> RayJob:
    """The evolution: nodes of its model's size for all trials at once, scaled up from one node on demand."""
    settings = load(Path(params.path)).evolve
    gpus = settings.gpus_per_trial or 1  # trials on these nodes always use GPUs
    size = with_gpus(job_size(settings.model), settings.concurrent * gpus)
    return platform.job(
        "evolve", params, size=size, min_nodes=1, command=_with(command, {"evolve.gpus_per_trial": gpus})
    )


JOBS = {"train": train_job, "evolve": evolve_job}


def _with(command: Sequence[str], changes: Mapping[str, object]) -> list[str]:
    return [*command, *(text for key, value in changes.items() for text in ("-S", f"{key}={value}"))]


def _beside(artifact: dsl.Artifact, name: str) -> str:
    """A folder beside the result, for unfinished work, so that another attempt resumes it."""
    return f"{store_address(artifact).rpartition('/')[0]}/{name}"
