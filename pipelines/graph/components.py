"""The steps of the pipeline as KFP components: each maps artifacts to the options of one stage's command.

A component's body is copied into the compiled pipeline and runs in the project's image: it imports what it needs.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

from kfp import dsl
from kfp.dsl import (
    HTML,
    Artifact,
    ClassificationMetrics,
    Dataset,
    Input,
    Markdown,
    Metrics,
    Model,
    Output,
    PipelineTaskFinalStatus,
)

from pipelines.graph.target import IMAGE


def component(function: Callable[..., Any]) -> Callable[..., dsl.PipelineTask]:
    """The function as a step that runs in the project's image, where KFP is installed already."""
    return dsl.component(function, base_image=IMAGE, install_kfp_package=False)  # pyright: ignore


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
def resolve(force: bool, params: Input[Artifact], resolved: Output[Artifact], pinned: Output[Artifact]) -> str:  # pyright: ignore[reportInvalidTypeForm]
    """Find out which data there are now; those of judged versions are not even fetched.

    `pinned` are the parameters that name just these data.
    """
    from pipelines.graph.parameters import write_pinned
    from pipelines.graph.step import run_stage

    run_stage("resolve", params, *(["--force"] if force else []), out=resolved.path)
    return write_pinned(params, resolved, pinned)


@component
def prepare(params: Input[Artifact], dataset: Output[Dataset], metrics: Output[Metrics], report: Output[HTML]):
    """Check and convert images and labels into a dataset folder with a manifest."""
    from pathlib import Path

    from pipelines.graph.step import run_stage, show

    run_stage("prepare", params, out=dataset.path)
    show("Dataset", Path(dataset.path, "manifest.json"), metrics, report)


@component
def retrain(
    force: bool,
    params: Input[Artifact],
    dataset: Input[Dataset],
    plan: Output[Artifact],
    chosen: Output[Artifact],
    decisions: Output[Markdown],
) -> NamedTuple("Chosen", [("Output", str), ("models", list)]):  # pyright: ignore[reportInvalidTypeForm]
    """Decide for each model what has changed since its champion and what that asks for; evaluate where that will do.

    `chosen` are the parameters of the trainings that are left to do.
    """
    from pipelines.graph.parameters import write_chosen
    from pipelines.graph.step import run_stage

    flags = ["--no-train", *(["--force"] if force else [])]
    run_stage("retrain", params, *flags, data=dataset.path, out=plan.path)
    models = write_chosen(params, plan, chosen, decisions)
    return ("train" if models else "rest", models)


@component
def anchors(
    params: Input[Artifact],
    dataset: Input[Dataset],
    anchors: Output[Artifact],
    metrics: Output[Metrics],
    report: Output[HTML],
):
    """Cluster the boxes of the training set into anchors, a file per model."""
    from pathlib import Path

    from pipelines.graph.step import run_stage, show

    run_stage("anchors", params, data=dataset.path, out=anchors.path)
    show("Anchors", Path(anchors.path), metrics, report)


@component
def evolve(
    params: Input[Artifact],
    dataset: Input[Dataset],
    anchors: Input[Artifact],
    hyp: Output[Artifact],
    metrics: Output[Metrics],
    report: Output[HTML],
):
    """Evolve the hyperparameters with Ray Tune."""
    from pathlib import Path

    from pipelines.graph.step import run_stage, show, work_folder

    run_stage("evolve", params, data=dataset.path, anchors=anchors.path, out=hyp.path, work=work_folder(hyp))
    show("Evolution", Path(hyp.path, "hyp.yaml"), metrics, report)


@component
def train(
    model: str,
    params: Input[Artifact],
    dataset: Input[Dataset],
    anchors: Input[Artifact],
    hyp: Input[Artifact],
    detector: Output[Model],
    metrics: Output[Metrics],
    report: Output[HTML],
):
    """Train one detector with Ray Train."""
    from pathlib import Path

    from pipelines.graph.step import run_stage, show, work_folder

    run_stage(
        "train",
        params,
        model=model,
        data=dataset.path,
        anchors=Path(anchors.path, f"{model}.json"),
        hyp=Path(hyp.path, "hyp.yaml"),
        out=detector.path,
        work=work_folder(detector),
    )
    detector.metadata.update(model=model, framework="pytorch", file="model.safetensors")
    show(f"Training of {model}", Path(detector.path, "train.json"), metrics, report)


@component
def evaluate(
    model: str,
    params: Input[Artifact],
    dataset: Input[Dataset],
    detector: Input[Model],
    evaluation: Output[Artifact],
    metrics: Output[Metrics],
    confusion: Output[ClassificationMetrics],
    report: Output[HTML],
):
    """Measure the COCO figures with and without test-time augmentation."""
    import json
    from pathlib import Path

    from pipelines.graph.step import run_stage, show

    weights = Path(detector.path, "model.safetensors")
    run_stage("evaluate", params, model=model, data=dataset.path, weights=weights, out=evaluation.path)
    confusion.log_confusion_matrix(**json.loads(Path(evaluation.path, "confusion.json").read_text(encoding="utf-8")))
    show(f"Evaluation of {model}", Path(evaluation.path, "metrics.json"), metrics, report)


@component
def export(
    model: str,
    params: Input[Artifact],
    dataset: Input[Dataset],
    detector: Input[Model],
    exported: Output[Model],
    metrics: Output[Metrics],
    report: Output[HTML],
):
    """Export to ONNX (and TensorRT where present) and check the result against PyTorch."""
    from pathlib import Path

    from pipelines.graph.step import run_stage, show

    weights = Path(detector.path, "model.safetensors")
    run_stage("export", params, model=model, data=dataset.path, weights=weights, out=exported.path)
    exported.metadata.update(model=model, framework="onnx", file="model.onnx")
    show(f"Export of {model}", Path(exported.path, "export.json"), metrics, report)


@component
def benchmark(
    model: str,
    params: Input[Artifact],
    dataset: Input[Dataset],
    detector: Input[Model],
    exported: Input[Model],
    speed: Output[Artifact],
    metrics: Output[Metrics],
    report: Output[HTML],
):
    """Time pre-processing, inference and post-processing in every runtime at hand."""
    from pathlib import Path

    from pipelines.graph.step import run_stage, show

    run_stage(
        "benchmark",
        params,
        model=model,
        data=dataset.path,
        weights=Path(detector.path, "model.safetensors"),
        export=exported.path,
        out=speed.path,
    )
    show(f"Speed of {model}", Path(speed.path, "benchmark.json"), metrics, report)


@component
def register(
    model: str,
    params: Input[Artifact],
    dataset: Input[Dataset],
    anchors: Input[Artifact],
    hyp: Input[Artifact],
    detector: Input[Model],
    evaluation: Input[Artifact],
    exported: Input[Model],
    speed: Input[Artifact],
    registered: Output[Artifact],
    metrics: Output[Metrics],
    report: Output[HTML],
):
    """Record parameters, figures and artifacts in MLflow and register the model there."""
    from pathlib import Path

    from pipelines.graph.step import run_stage, show

    run_stage(
        "register",
        params,
        model=model,
        data=dataset.path,
        anchors=Path(anchors.path, f"{model}.json"),
        hyp=Path(hyp.path, "hyp.yaml"),
        train=detector.path,
        evaluate=evaluation.path,
        export=exported.path,
        benchmark=speed.path,
        out=registered.path,
    )
    show(f"Registration of {model}", Path(registered.path), metrics, report)


@component
def promote(
    model: str,
    params: Input[Artifact],
    dataset: Input[Dataset],
    registered: Input[Artifact],
    decision: Output[Artifact],
    metrics: Output[Metrics],
    report: Output[HTML],
):
    """Compare with the champion and set the registry's aliases."""
    from pathlib import Path

    from pipelines.graph.step import run_stage, show

    run_stage("promote", params, model=model, data=dataset.path, registered=registered.path, out=decision.path)
    show(f"Promotion of {model}", Path(decision.path), metrics, report)


@component
def compare(
    params: Input[Artifact],
    evaluations: Input[list[Artifact]],
    speeds: Input[list[Artifact]],
    decisions: Input[list[Artifact]],
    comparison: Output[Artifact],
    metrics: Output[Metrics],
    report: Output[HTML],
):
    """Put all models side by side on the plane of speed and AP."""
    from pathlib import Path

    from pipelines.graph.step import gathered, run_stage, show

    run_stage(
        "compare",
        params,
        evaluate=gathered(evaluations),
        benchmark=gathered(speeds),
        promote=gathered(decisions),
        out=comparison.path,
    )
    show("Models", Path(comparison.path, "comparison.json"), metrics, report)


@component
def finish(
    run: str,
    params_yaml: str,
    overrides: list,
    mlflow_tracking_uri: str,
    ray_jobs: bool,
    status: PipelineTaskFinalStatus,
):
    """Record in MLflow how the run ended and why, and delete what is left of its RayJobs."""
    from pipelines.exit_codes import exit_codes
    from pipelines.graph.outcome import finish

    given = {"params_yaml": params_yaml, "overrides": overrides, "mlflow_tracking_uri": mlflow_tracking_uri}
    with exit_codes():
        finish(run, status, **given, ray_jobs=ray_jobs)
