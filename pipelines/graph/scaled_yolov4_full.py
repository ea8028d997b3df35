"""The Kubeflow pipeline `scaled-yolov4-full`: from data to a promoted model, for several models at once.

The same stages and edges as `dvc.yaml`, from the same table, plus a few steps of its own: `parameters` validates
`params.yaml` and passes it on; `check-source` finds out what data the source holds before they are fetched; `retrain`
corresponds to `make retrain` and decides which models are trained, if any; `finish`, which runs however the others end,
records the outcome and cleans up.
"""

from collections.abc import Callable
from functools import partial

from kfp import dsl
from kfp.dsl.pipeline_channel import PipelineChannel

from components.stage_row import Stage
from components.stage_table import STAGES, get_stage
from pipelines.graph import own_components as steps
from pipelines.graph import resources
from pipelines.graph.artifacts import artifact_of, is_collected
from pipelines.graph.stage_components import RAY_COMPONENTS, STAGE_COMPONENTS
from pipelines.graph.target import Target

PREPARE, *REST = STAGES
PER_MODEL = [stage for stage in REST if stage.per_model]
LATER = {stage.name for stage in PER_MODEL}  # than the loop over the models begins
for _stage in REST:
    if any(given.stage in LATER for given in _stage.inputs.values()):
        LATER.add(_stage.name)
BEFORE_MODELS = [stage for stage in REST if stage.name not in LATER]
AFTER_MODELS = [stage for stage in REST if stage.name in LATER and not stage.per_model]


def stage_steps(target: Target) -> Callable[..., None]:
    """A function that creates a stage's task from its row and the artifacts so far, and adds its result to them."""
    platform = {"run": dsl.PIPELINE_JOB_ID_PLACEHOLDER, "image": target.image, "queue": target.queue}
    platform |= {"account": target.account, "node_selector": dict(target.node_selector)}

    def add(stage: Stage, artifacts: dict[str, PipelineChannel], **given: object) -> None:
        as_ray_job = target.ray_jobs and stage.name in RAY_COMPONENTS
        component = partial(RAY_COMPONENTS[stage.name], **platform) if as_ray_job else STAGE_COMPONENTS[stage.name]
        for one in stage.inputs.values():
            made = artifacts[get_stage(one.stage).result.artifact]
            given[artifact_of(stage, one)] = dsl.Collected(made) if is_collected(stage, one) else made
        task = resources.fit(component(**given), target=target)
        artifacts[stage.result.artifact] = task.outputs[stage.result.artifact]

    return add


def scaled_yolov4_full(target: Target = Target()):
    """The pipeline for one target, which is fixed at compile time; what may vary between runs are its parameters."""
    fit = partial(resources.fit, target=target)
    add = stage_steps(target)

    @dsl.pipeline(
        name="scaled-yolov4-full",
        description="Prepare data and see what changed since the champions; where needed, fit anchors and "
        "evolve hyperparameters once, then train, evaluate, export, benchmark, register and promote each model, and "
        "compare them.",
    )
    def pipeline(
        params_yaml: str = "",
        overrides: list = [],
        models: list = [],
        data_revision: str = "",
        mlflow_tracking_uri: str = "",
        force: bool = False,
    ):
        """Train, evaluate and promote models from data.

        Args:
            params_yaml: Text of a parameter file; empty takes the params.yaml of the image.
            overrides: Changes of single parameters, each as "section.key=value".
            models: Models to train; empty takes those of the parameter file.
            data_revision: Branch, tag or commit of data kept with DVC; empty takes that of the parameters.
            mlflow_tracking_uri: Address of the MLflow server; empty takes a database in the step's own folder.
            force: Train from scratch although nothing, or little, changed since the champion.
        """
        run = dsl.PIPELINE_JOB_ID_PLACEHOLDER
        given = {"params_yaml": params_yaml, "overrides": overrides, "mlflow_tracking_uri": mlflow_tracking_uri}
        end = fit(steps.finish(run=run, **given, ray_jobs=target.ray_jobs))
        with dsl.ExitHandler(end, name="run"):
            requested = fit(
                steps.parameters(
                    **given, models=models, data_revision=data_revision, pipeline_id=run, image=target.image
                )
            ).outputs["params"]
            # KFP's local runner supports conditions only on an output of this name.
            checked = fit(steps.check_source(params=requested, force=force))
            with dsl.If(checked.outputs["Output"] == "prepare", name="source has changed"):
                requested = checked.outputs["pinned"]
                artifacts: dict[str, PipelineChannel] = {}
                add(PREPARE, artifacts, params=requested)
                dataset = artifacts[PREPARE.result.artifact]
                decided = fit(steps.retrain(params=requested, dataset=dataset, force=force))
                with dsl.If(decided.outputs["Output"] == "train", name="train"):
                    params = decided.outputs["chosen"]
                    for stage in BEFORE_MODELS:
                        add(stage, artifacts, params=params)
                    with dsl.ParallelFor(decided.outputs["models"], name="each model") as model:
                        for stage in PER_MODEL:
                            add(stage, artifacts, params=params, model=model)
                    for stage in AFTER_MODELS:
                        add(stage, artifacts, params=params)

    return pipeline
