"""A command for each row of the stage table."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from components.cli import parameters
from components.cli.app import app
from components.cli.command import add_command, examples_of, option
from components.cli.facts import facts
from components.cli.options import LogFormat, Model, Overrides, StageParams, TensorBoard, WandB, stage_path, typer
from components.monitoring.training_log import Format, TrainingLog, on_stdout
from components.stage_row import Option, Stage, dashed
from components.stage_table import STAGES, default_paths, get_stage
from components.tracking.sinks import Sinks
from components.workspace import PARAMS
from yolo_core.errors import UserError
from yolo_core.model_names import known

if TYPE_CHECKING:
    from components.params import Params


def options(stage: Stage) -> list[inspect.Parameter]:
    """The options of a stage: its model, its paths, those of its row, and the parameters."""
    model = [option("model", Model, "")] if stage.per_model else []
    paths = {name: given.help for name, given in stage.inputs.items()} | {"out": "Where the results go."}
    paths |= {"work": stage.work} if stage.work else {}
    defaults = default_paths(stage.name, "MODEL")
    return [
        *model,
        *(
            option(name, Annotated[Path | None, stage_path(text, _default_text(stage, name, defaults[name]))], None)
            for name, text in paths.items()
        ),
        *(option(own.name, _annotation(own), own.default) for own in stage.options),
        *(_reporting() if stage.logs_epochs else []),
        option("params", StageParams, PARAMS),
        option("overrides", Overrides, []),
    ]


def _reporting() -> list[inspect.Parameter]:
    return [
        option("log_format", LogFormat, "text"),
        option("tensorboard", TensorBoard, None),
        option("wandb", WandB, None),
    ]


def _default_text(stage: Stage, option: str, path: Path) -> str:
    instead = stage.inputs[option].default if option in stage.inputs else ""
    return f"{path}, else {instead}" if instead else str(path)


def _annotation(own: Option) -> object:
    if own.type is Path:
        return Annotated[Path | None, stage_path(own.help, "none")]
    if own.type is bool:
        return Annotated[bool, typer.Option(f"--{dashed(own.name)}", help=own.help)]
    kind = own.type if own.default is not None else own.type | None
    return Annotated[kind, typer.Option(help=own.help, **own.limits)]  # pyright: ignore[reportArgumentType]


def run_stage(
    name: str,
    params: Path,
    overrides: list[str],
    model: str = "",
    log_format: Format = "text",
    tensorboard: Path | None = None,
    wandb: str | None = None,
    **given: object,
) -> None:
    """Run one stage and print its closing line."""
    stage = get_stage(name)
    given = {key: value for key, value in given.items() if value is not None}
    _check_out(stage, given)
    file = parameters.read(params)
    settings = file.load(overrides)
    model = known(model or settings.models[0])
    if changes := parameters.overrides_of(stage, model, given):
        settings = file.load([*overrides, *changes])
    setters = {own.name for own in stage.options if own.sets}
    paths = default_paths(name, model)
    arguments = {key: value for key, value in {**paths, **given}.items() if key not in setters}
    if stage.per_model:
        arguments["model"] = model
    missing = {key: path for key, path in paths.items() if key not in given and _is_replaced(stage, key, path)}
    log = on_stdout(log_format, model)
    if missing:
        log.note(_defaults_line(stage, missing))
    sinks = Sinks(tensorboard.absolute() if tensorboard else None, wandb)
    _run(stage, settings, {**arguments, **dict.fromkeys(missing)}, log, sinks)


def _is_replaced(stage: Stage, option: str, path: Path) -> bool:
    """Whether an input has a default that takes the place of its missing file."""
    return option in stage.inputs and bool(stage.inputs[option].default) and not path.exists()


def _defaults_line(stage: Stage, missing: Mapping[str, Path]) -> str:
    paths = " and ".join(str(path) for path in missing.values())
    return f"no {paths}: using {' and '.join(stage.inputs[option].default for option in missing)}"


def _check_out(stage: Stage, given: Mapping[str, object]) -> None:
    """Refuse to overwrite the model's own results with those of a modified model."""
    changing = [own.name for own in stage.options if own.own_result]
    if "out" not in given and any(given.get(name) for name in changing):
        named = " and ".join(f"--{dashed(name)}" for name in changing)
        raise UserError(f"{named}: give --out as well, so that the unmodified model's results are not overwritten")


def _run(stage: Stage, settings: Params, arguments: dict[str, object], log: TrainingLog, sinks: Sinks) -> None:
    from components.monitoring import metrics
    from components.monitoring.progress import on_stderr
    from components.tracking.journaled_run import check_delivered

    model, progress = str(arguments.get("model", "")), on_stderr()
    with metrics.stage(stage.name, model):
        run = partial(stage.load(), log=log, sinks=sinks) if stage.logs_epochs else stage.load()
        if any(":/" in str(value) for value in arguments.values()):
            from components.storage import stage_paths

            result = stage_paths.run(stage.name, run, settings, arguments, progress)
        else:
            result = run(settings, progress=progress, **arguments)
        log.end({**result, "out": str(arguments["out"])}, f"{stage.name}: {facts(result)} -> {arguments['out']}")
        check_delivered(stage.name, model or settings.models[0])


for _stage in STAGES:
    _text = f"{_stage.summary}.\n\n{_stage.details}".strip()
    add_command(
        app, _stage.command, partial(run_stage, _stage.name), options(_stage), _text, examples_of(*_stage.examples)
    )
