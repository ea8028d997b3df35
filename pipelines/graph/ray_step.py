"""What a step does that runs its stage as a RayJob: describe the job, run it, fetch what is shown of its results."""

import math
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from importlib.metadata import version
from pathlib import Path

from kfp import dsl

from components.params import load
from components.storage.stage_paths import local_copy
from pipelines.exit_codes import exit_codes
from pipelines.graph.artifacts import store_address
from pipelines.graph.outcome import note_failure
from pipelines.rayjob.api import RayJobsApi, connect, own_namespace
from pipelines.rayjob.manifest import RayJob
from pipelines.rayjob.runner import run
from pipelines.rayjob.sizes import job_size, training_workers, with_gpus


@dataclass(frozen=True)
class Platform:
    """run: the pipeline run's id. image: of the Ray pods. queue: of Kueue, or none. account: of the Ray pods.

    node_selector: labels of the nodes with GPUs.
    """

    run: str
    image: str
    queue: str = ""
    account: str = ""
    namespace: str = ""  # empty: the one that this pod is in
    node_selector: Mapping[str, str] = field(default_factory=dict)

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


def train_job(
    platform: Platform,
    params: dsl.Artifact,
    *,
    model: str,
    data: dsl.Artifact,
    anchors: dsl.Artifact,
    hyp: dsl.Artifact,
    out: dsl.Artifact,
) -> RayJob:
    """The training of one model: its row of `job_sizes`, less the GPUs that its batch cannot be shared with."""
    size = job_size(model)
    workers = training_workers(size, load(Path(params.path)).train_settings(model).batch)
    command = _command(
        "train",
        params,
        model=model,
        data=store_address(data),
        anchors=f"{store_address(anchors)}/{model}.json",
        hyp=f"{store_address(hyp)}/hyp.yaml",
        out=store_address(out),
        work=_beside(out, "work"),
    )
    changes = {"train.workers": workers, "train.gpus_per_worker": 1, "train.loader_workers": size.cpus // size.gpus - 2}
    nodes = math.ceil(workers / size.gpus)
    return platform.job(f"train-{model}", params, size=replace(size, nodes=nodes), command=_with(command, changes))


def evolve_job(
    platform: Platform, params: dsl.Artifact, *, data: dsl.Artifact, anchors: dsl.Artifact, out: dsl.Artifact
) -> RayJob:
    """The evolution: nodes of its model for all trials at once, from one node up as trials ask for them."""
    settings = load(Path(params.path)).evolve
    gpus = settings.gpus_per_trial or 1  # these nodes are there for their GPUs
    size = with_gpus(job_size(settings.model), settings.concurrent * gpus)
    command = _command(
        "evolve",
        params,
        data=store_address(data),
        anchors=store_address(anchors),
        out=store_address(out),
        work=_beside(out, "work"),
    )
    return platform.job(
        "evolve", params, size=size, min_nodes=1, command=_with(command, {"evolve.gpus_per_trial": gpus})
    )


def run_ray_stage(describe: Callable[[], RayJob], params: dsl.Artifact, out: dsl.Artifact, shown: str) -> Path:
    """Run the job and return a copy of the file `shown` of its results; where it fails, this process ends like it."""
    with exit_codes():
        job = describe()
        code = run(job, RayJobsApi(job.namespace, connect()))
        if code:
            note_failure(params, job.step, f"its RayJob ended with exit code {code}")
            sys.exit(code)
        return Path(local_copy(f"{store_address(out)}/{shown}"))


def _command(stage: str, params: dsl.Artifact, **options: str) -> list[str]:
    given = [text for name, value in options.items() for text in (f"--{name}", value)]
    return ["scaled-yolov4", stage, "--params", store_address(params), *given]


def _with(command: list[str], changes: Mapping[str, object]) -> list[str]:
    return [*command, *(text for key, value in changes.items() for text in ("-S", f"{key}={value}"))]


def _beside(artifact: dsl.Artifact, name: str) -> str:
    """Unfinished work: beside the result, so that another attempt goes on with it."""
    return f"{store_address(artifact).rpartition('/')[0]}/{name}"
