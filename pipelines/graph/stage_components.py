"""The stages as KFP components, generated from the stage table: each maps artifacts to options of a stage's command.

KFP copies a component's source text into the compiled pipeline, so a component must have source text. `source`
generates it: a signature with the row's artifacts, and a call of `run_step`, which knows what they mean.
"""

import linecache
from collections.abc import Callable
from typing import Any

from kfp import dsl
from kfp.dsl import HTML, Artifact, ClassificationMetrics, Dataset, Input, Markdown, Metrics, Model, Output

from components.stage_row import Input as StageInput
from components.stage_row import Stage
from components.stage_table import STAGES, get_stage
from pipelines.graph.artifacts import artifact_of, is_collected
from pipelines.graph.target import IMAGE

Component = Callable[..., dsl.PipelineTask]
NAMES = (HTML, Artifact, ClassificationMetrics, Dataset, Markdown, Metrics, Model)  # that a signature may use
# Extra parameters of a step that starts a RayJob: see `pipelines.graph.ray_step.Platform`.
PLATFORM = {"run": "str", "image": "str", "queue": "str", "account": "str", "node_selector": "dict"}


def component(function: Callable[..., object]) -> Component:
    """The function as a component that runs in the project's image, where KFP is already installed."""
    return dsl.component(function, base_image=IMAGE, install_kfp_package=False)  # pyright: ignore


def stage_component(stage: Stage, *, ray_job: bool = False) -> Component:
    """The component of a stage; as a RayJob it has the same artifacts."""
    text = source(stage, ray_job=ray_job)
    filename = f"<step {stage.name}{' as a RayJob' if ray_job else ''}>"
    linecache.cache[filename] = (len(text), None, text.splitlines(keepends=True), filename)  # where KFP looks it up
    names: dict[str, Any] = {kind.__name__: kind for kind in NAMES} | {"Input": Input, "Output": Output}
    exec(compile(text, filename, "exec"), names)
    return component(names[stage.name])


def source(stage: Stage, *, ray_job: bool = False) -> str:
    """The component's source text."""
    parameters = {
        **(PLATFORM if ray_job else {}),
        **({"model": "str"} if stage.per_model else {}),
        "params": "Input[Artifact]",
        **{artifact_of(stage, given): _input_type(stage, given) for given in stage.inputs.values()},
        stage.result.artifact: f"Output[{stage.result.type}]",
        "metrics": "Output[Metrics]",
        **({"confusion": "Output[ClassificationMetrics]"} if stage.result.confusion else {}),
        "report": "Output[HTML]",
    }
    module, function = ("ray_step", "run_ray_step") if ray_job else ("step", "run_step")
    return "\n".join(
        [
            f"def {stage.name}(",
            *(f"    {name}: {kind}," for name, kind in parameters.items()),
            "):",
            f'    """{stage.summary}."""',
            f"    from pipelines.graph.{module} import {function}",
            "",
            f'    {function}("{stage.name}", {", ".join(f"{name}={name}" for name in parameters)})',
            "",
        ]
    )


def _input_type(stage: Stage, given: StageInput) -> str:
    if is_collected(stage, given):
        return "Input[list[Artifact]]"
    return f"Input[{get_stage(given.stage).result.type}]"


STAGE_COMPONENTS = {stage.name: stage_component(stage) for stage in STAGES}
RAY_COMPONENTS = {stage.name: stage_component(stage, ray_job=True) for stage in STAGES if stage.trains}
