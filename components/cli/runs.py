"""Commands around the stages: `check-source`, `retrain`, `summary`, `sync`."""

from pathlib import Path
from typing import Annotated

from components.cli import parameters
from components.cli.app import app
from components.cli.command import command
from components.cli.facts import facts
from components.cli.options import Overrides, ParamsFile, StageParams, stage_path, typer
from components.workspace import DATA, OUTPUTS, PARAMS

Option = typer.Option


@command(app, "retrain", "scaled-yolov4 retrain --dry-run", "scaled-yolov4 retrain")
def retrain(
    *,
    data: Annotated[Path, stage_path("Dataset folder made by `prepare`.", str(DATA))] = DATA,
    out: Annotated[Path, Option(help="Folder of the decisions.")] = OUTPUTS / "retrain",
    dry_run: Annotated[bool, Option("--dry-run", help="Record the decision without acting on it.")] = False,
    force: Annotated[bool, Option("--force", help="Train every model from scratch, even if nothing changed.")] = False,
    train: Annotated[bool, Option("--train/--no-train", help="Train, or leave that to the caller.")] = True,
    params: StageParams = PARAMS,
    overrides: Overrides = [],
) -> None:
    """Compare the data with the champion's, retrain if needed.

    Does what the change asks for: nothing, evaluate the champion, fine-tune it, or train from scratch, through DVC.
    """
    from components.monitoring import metrics
    from components.monitoring.progress import on_stderr
    from components.stages.retrain import run
    from components.storage.stage_paths import local_copy

    progress = on_stderr()
    here = Path(local_copy(str(data), progress))
    settings = parameters.load(params, overrides)
    with metrics.stage("retrain"):
        result = run(settings, data=here, out=out, dry_run=dry_run, force=force, train=train, progress=progress)
    print(f"retrain: {facts(result)}")


@command(app, "check-source", "scaled-yolov4 check-source", "scaled-yolov4 check-source -S prepare.revision=main")
def check_source(
    *,
    out: Annotated[Path, Option(help="File to write the answer to.")] = OUTPUTS / "check_source.json",
    force: Annotated[bool, Option("--force", help="Treat everything as changed.")] = False,
    params: StageParams = PARAMS,
    overrides: Overrides = [],
) -> None:
    """Tell whether the source holds new data, fetching nothing."""
    from components.monitoring import metrics
    from components.stages.check_source import run

    with metrics.stage("check-source"):
        result = run(parameters.load(params, overrides), out=out, force=force)
    print(f"check-source: {facts(result)}")


@command(app, "summary", "scaled-yolov4 summary")
def summary(*, params: ParamsFile = PARAMS, overrides: Overrides = []) -> None:
    """Show the latest results and where everything is."""
    from components.cli.summary import show

    show(parameters.load(params, overrides))


@command(app, "sync", "scaled-yolov4 sync")
def sync() -> None:
    """Upload what is still queued for S3 or MLflow, in order."""
    from components.monitoring.progress import on_stderr
    from components.storage import stage_paths
    from components.tracking import journaled_run

    progress = on_stderr()
    for location in stage_paths.deliver_all(progress):
        print(f"sync: results -> {location}", flush=True)
    for path, count in journaled_run.deliver_all(progress).items():
        print(f"sync: {count} records of {path.stem} -> MLflow", flush=True)
