"""The Kubeflow pipeline `scaled-yolov4-full`: from data to a promoted model, for several models at once.

The same stages and edges as `dvc.yaml`. The first step stands for `params.yaml`: it checks it and hands it on.
"""

from functools import partial

from kfp import dsl

from pipelines import kfp_components as steps
from pipelines import kfp_ray_components as ray_steps
from pipelines import resources
from pipelines.target import Target


def scaled_yolov4_full(target: Target = Target()):
    """The pipeline for one target, settled when it is compiled; what may differ from run to run are its parameters."""
    fit = partial(resources.fit, target=target)
    train, evolve = steps.train, steps.evolve
    if target.ray_jobs:
        own = {"run": dsl.PIPELINE_JOB_ID_PLACEHOLDER, "image": target.image}
        own |= {"queue": target.queue, "account": target.account}
        train, evolve = partial(ray_steps.train, **own), partial(ray_steps.evolve, **own)

    @dsl.pipeline(
        name="scaled-yolov4-full",
        description="Prepare data, fit anchors and evolve hyperparameters once; then train, evaluate, export, "
        "benchmark, register and promote each model.",
    )
    def pipeline(params_yaml: str = "", overrides: list = [], models: list = [], mlflow_tracking_uri: str = ""):
        """From data to promoted models.

        Args:
            params_yaml: Text of a parameter file; empty takes the params.yaml of the image.
            overrides: Changes of single parameters, each as "section.key=value".
            models: Models to train; empty takes those of the parameter file.
            mlflow_tracking_uri: Address of the MLflow server; empty takes a database in the step's own folder.
        """
        checked = fit(
            steps.parameters(
                params_yaml=params_yaml,
                overrides=overrides,
                models=models,
                pipeline_id=dsl.PIPELINE_JOB_ID_PLACEHOLDER,
                mlflow_tracking_uri=mlflow_tracking_uri,
            )
        )
        params = checked.outputs["params"]

        dataset = fit(steps.prepare(params=params)).outputs["dataset"]
        anchors = fit(steps.anchors(params=params, dataset=dataset)).outputs["anchors"]
        hyp = fit(evolve(params=params, dataset=dataset, anchors=anchors)).outputs["hyp"]

        with dsl.ParallelFor(checked.outputs["Output"], name="each model") as model:
            common = {"model": model, "params": params, "dataset": dataset}
            detector = fit(train(**common, anchors=anchors, hyp=hyp)).outputs["detector"]
            evaluation = fit(steps.evaluate(**common, detector=detector)).outputs["evaluation"]
            exported = fit(steps.export(**common, detector=detector)).outputs["exported"]
            speed = fit(steps.benchmark(**common, detector=detector, exported=exported)).outputs["speed"]
            registered = fit(
                steps.register(
                    **common,
                    anchors=anchors,
                    hyp=hyp,
                    detector=detector,
                    evaluation=evaluation,
                    exported=exported,
                    speed=speed,
                )
            ).outputs["registered"]
            fit(steps.promote(**common, registered=registered))

    return pipeline
