"""The pipeline's own steps besides the stages: parameters, check of the source, decision what to train, and the end.

A component's body is copied into the compiled pipeline and runs in the project's image, so it imports what it needs.
"""

from typing import NamedTuple

from kfp.dsl import Artifact, Dataset, Input, Markdown, Output, PipelineTaskFinalStatus

from pipelines.graph.stage_components import component


@component
def parameters(
    params_yaml: str,
    overrides: list,
    models: list,
    data_revision: str,
    pipeline_id: str,
    mlflow_tracking_uri: str,
    image: str,
    params: Output[Artifact],
):
    """Check the parameters before anything runs; write them as one file."""
    from pipelines.graph.parameters import variables, write_params

    params.metadata.update(variables(pipeline_id, mlflow_tracking_uri, image))
    write_params(params_yaml, overrides, models, params, data_revision)


@component
def check_source(force: bool, params: Input[Artifact], found: Output[Artifact], pinned: Output[Artifact]) -> str:  # pyright: ignore[reportInvalidTypeForm]
    """Find out what data the source holds now; data of versions already judged are not even fetched.

    `pinned` are the parameters that name exactly these data.
    """
    from pipelines.graph.parameters import write_pinned
    from pipelines.graph.step import run_stage

    run_stage("check-source", params, *(["--force"] if force else []), out=found.path)
    return write_pinned(params, found, pinned)


@component
def retrain(
    force: bool,
    params: Input[Artifact],
    dataset: Input[Dataset],
    plan: Output[Artifact],
    chosen: Output[Artifact],
    decisions: Output[Markdown],
) -> NamedTuple("Chosen", [("Output", str), ("models", list)]):  # pyright: ignore[reportInvalidTypeForm]
    """Decide for each model what its changed data ask for; evaluate the champion where that is enough.

    `chosen` are the parameters of the trainings that remain to be done.
    """
    from pipelines.graph.parameters import write_chosen
    from pipelines.graph.step import run_stage

    flags = ["--no-train", *(["--force"] if force else [])]
    run_stage("retrain", params, *flags, data=dataset.path, out=plan.path)
    models = write_chosen(params, plan, chosen, decisions)
    return ("train" if models else "rest", models)


@component
def finish(
    run: str,
    params_yaml: str,
    overrides: list,
    mlflow_tracking_uri: str,
    ray_jobs: bool,
    status: PipelineTaskFinalStatus,
):
    """Record in MLflow how the run ended and why, and delete its remaining RayJobs."""
    from pipelines.exit_codes import exit_codes
    from pipelines.graph.outcome import finish

    given = {"params_yaml": params_yaml, "overrides": overrides, "mlflow_tracking_uri": mlflow_tracking_uri}
    with exit_codes():
        finish(run, status, **given, ray_jobs=ray_jobs)
