"""The Kubeflow pipeline `scaled-yolov4-full`: from data to a promoted model, for several models at once.

The same stages and edges as `dvc.yaml`, and a few steps of its own: the first stands for `params.yaml`, which it checks
and hands on; `resolve` finds out which data there are, before they are fetched; `retrain` stands for `make retrain`: it
says which models are trained, if any; the last, which runs however the others end, records the outcome and cleans up.
"""

from functools import partial

from kfp import dsl

from pipelines.graph import components as steps
from pipelines.graph import ray_components as ray_steps
from pipelines.graph import resources
from pipelines.graph.target import Target


def scaled_yolov4_full(target: Target = Target()):
    """The pipeline for one target, settled when it is compiled; what may differ from run to run are its parameters."""
    fit = partial(resources.fit, target=target)
    train, evolve = steps.train, steps.evolve
    if target.ray_jobs:
        own = {"run": dsl.PIPELINE_JOB_ID_PLACEHOLDER, "image": target.image}
        own |= {"queue": target.queue, "account": target.account, "node_selector": dict(target.node_selector)}
        train, evolve = partial(ray_steps.train, **own), partial(ray_steps.evolve, **own)

    @dsl.pipeline(
        name="scaled-yolov4-full",
        description="Prepare data and see what changed since the champions; where that asks for it, fit anchors and "
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
        """From data to promoted models.

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
        with dsl.ExitHandler(end, name="to the end"):
            asked = fit(
                steps.parameters(
                    **given, models=models, data_revision=data_revision, pipeline_id=run, image=target.image
                )
            ).outputs["params"]
            # KFP's local runner knows a condition only on an output of this name.
            resolved = fit(steps.resolve(params=asked, force=force))
            with dsl.If(resolved.outputs["Output"] == "prepare", name="perhaps something new"):
                asked = resolved.outputs["pinned"]
                dataset = fit(steps.prepare(params=asked)).outputs["dataset"]
                decided = fit(steps.retrain(params=asked, dataset=dataset, force=force))
                with dsl.If(decided.outputs["Output"] == "train", name="something to train"):
                    params = decided.outputs["chosen"]
                    anchors = fit(steps.anchors(params=params, dataset=dataset)).outputs["anchors"]
                    hyp = fit(evolve(params=params, dataset=dataset, anchors=anchors)).outputs["hyp"]

                    with dsl.ParallelFor(decided.outputs["models"], name="each model") as model:
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
                        decision = fit(steps.promote(**common, registered=registered)).outputs["decision"]

                    fit(
                        steps.compare(
                            params=params,
                            evaluations=dsl.Collected(evaluation),
                            speeds=dsl.Collected(speed),
                            decisions=dsl.Collected(decision),
                        )
                    )

    return pipeline
