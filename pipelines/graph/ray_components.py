"""The steps that train, as RayJobs: what they read and write lies in the object store, which their pods share.

Each stands for the step of the same name in `kfp_components` and has its artifacts.
"""

from kfp.dsl import HTML, Artifact, Dataset, Input, Metrics, Model, Output

from pipelines.graph.components import component


@component
def evolve(
    run: str,
    image: str,
    queue: str,
    account: str,
    node_selector: dict,
    params: Input[Artifact],
    dataset: Input[Dataset],
    anchors: Input[Artifact],
    hyp: Output[Artifact],
    metrics: Output[Metrics],
    report: Output[HTML],
):
    """Evolve the hyperparameters with Ray Tune, trials spread over a RayJob's nodes."""
    from functools import partial

    from pipelines.graph.ray_step import Platform, evolve_job, run_ray_stage
    from pipelines.graph.step import show

    platform = Platform(run, image, queue, account, node_selector=node_selector)
    job = partial(evolve_job, platform, params, data=dataset, anchors=anchors, out=hyp)
    show("Evolution", run_ray_stage(job, params, hyp, "hyp.yaml"), metrics, report)


@component
def train(
    run: str,
    image: str,
    queue: str,
    account: str,
    node_selector: dict,
    model: str,
    params: Input[Artifact],
    dataset: Input[Dataset],
    anchors: Input[Artifact],
    hyp: Input[Artifact],
    detector: Output[Model],
    metrics: Output[Metrics],
    report: Output[HTML],
):
    """Train one detector with Ray Train, over as many GPU nodes as its model asks for."""
    from functools import partial

    from pipelines.graph.ray_step import Platform, run_ray_stage, train_job
    from pipelines.graph.step import show

    platform = Platform(run, image, queue, account, node_selector=node_selector)
    job = partial(train_job, platform, params, model=model, data=dataset, anchors=anchors, hyp=hyp, out=detector)
    results = run_ray_stage(job, params, detector, "train.json")
    detector.metadata.update(model=model, framework="pytorch", file="model.safetensors")
    show(f"Training of {model}", results, metrics, report)
