"""The whole command `scaled-yolov4`: the stages, `pipeline` for a Kubeflow server, and `doctor`.

These two are here because the stages know nothing of Kubeflow. Only Typer is imported at the start; kfp takes two
seconds. Exit codes: 0 done, 1 the run failed, 2 something the user can fix, 3 the server is unavailable: try again.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from components.cli.command import command, examples_of
from components.cli.main import app as stages
from components.cli.main import prepare_process
from components.cli.options import ParamsFile, typer
from components.workspace import PARAMS
from pipelines.cli_options import Compiled, Given, Server, needing_kubeflow
from yolo_core.errors import UserError

if TYPE_CHECKING:
    from pipelines.kubeflow.client import Graph, Kubeflow

GRAPH = "scaled-yolov4-full"
HOUR, FORTNIGHT = 3600, 14 * 24.0  # seconds, hours

app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode=None,
    help="Run the pipeline on a Kubeflow server.",
    epilog=examples_of(
        "scaled-yolov4 pipeline submit --host http://localhost:8080 -S train.epochs=60",
        "scaled-yolov4 pipeline schedule --cron '0 0 2 * * *'",
    ),
)

Option = typer.Option
Follow = Annotated[bool, Option("--follow/--no-follow", help="Follow the run until it ends.")]
Hours = Annotated[float, Option(min=0, help="Stop following after this many hours.")]
Experiment = Annotated[
    str, Option(envvar="KF_PIPELINES_DEFAULT_EXPERIMENT_NAME", help="Experiment that the runs belong to.")
]


@command(app, "compile", "scaled-yolov4 pipeline compile --image registry/name:1 --gpus 1 --out mine.yaml")
def compile_(
    *,
    out: Annotated[Path, Option(help="File to write or to check.")] = Path("pipelines/scaled_yolov4_full.yaml"),
    check: Annotated[bool, Option("--check", help="Only check whether the file is current.")] = False,
    compiled: Compiled,
) -> None:
    """Compile the pipeline to Kubeflow's YAML."""
    with needing_kubeflow():
        from pipelines.graph.compile import compiled as text_of
        from pipelines.graph.compile import is_current
    if not check:
        out.write_text(text_of(compiled.target), encoding="utf-8")
        print(f"pipeline compile: -> {out}")
    elif not is_current(out, compiled.target):
        raise typer.Exit(1)


@command(
    app,
    "submit",
    "scaled-yolov4 pipeline submit --host http://localhost:8080 --params params/coco.yaml --model yolov4-p5",
    "scaled-yolov4 pipeline submit --image registry/name:1 --gpus 1 -S train.epochs=60 --no-follow",
)
def submit(
    *,
    experiment: Experiment = GRAPH,
    run_name: Annotated[str, Option(help="Name of the run; else the pipeline's and the time.")] = "",
    follow: Follow = True,
    hours: Hours = FORTNIGHT,
    server: Server,
    given: Given,
    compiled: Compiled,
) -> None:
    """Start a run of the pipeline and follow it.

    A new version is uploaded only when the graph changed.
    """
    with needing_kubeflow():
        from pipelines.kubeflow.client import run_name as name_now
    parameters = given.parameters()
    with _graph(given.graph, compiled, parameters) as graph:
        kubeflow = server.connect()
        version = kubeflow.version(graph)
    print(f"version: {version.name}, {'uploaded' if version.is_new else 'unchanged'} -> {version.version_id}")
    name = run_name or name_now(graph.name)
    run_id = kubeflow.start(version, kubeflow.experiment(experiment), name, parameters, given.account)
    print(f"run: {run_id}\n{kubeflow.link(run_id)}", flush=True)
    if follow:
        _follow(kubeflow, run_id, hours)


@command(
    app,
    "schedule",
    "scaled-yolov4 pipeline schedule --cron '0 0 2 * * *' --image registry/name:1",
    "scaled-yolov4 pipeline schedule --list",
    "scaled-yolov4 pipeline schedule --delete",
)
def schedule(
    *,
    cron: Annotated[str, Option(help="When: six fields, seconds first, in the server's time zone.")] = "",
    list_: Annotated[bool, Option("--list", help="Show the schedules of the experiment.")] = False,
    delete: Annotated[bool, Option("--delete", help="Delete the schedule.")] = False,
    name: Annotated[str, Option(help="Name of the schedule.")] = GRAPH,
    experiment: Experiment = GRAPH,
    server: Server,
    given: Given,
    compiled: Compiled,
) -> None:
    """Create or change the schedule of this name.

    It starts one run at a time and does not catch up on missed ones.
    """
    if bool(cron) + list_ + delete != 1:
        raise UserError("schedule: give one of --cron, --list and --delete")
    if cron and len(cron.split()) != 6:
        raise UserError(f"--cron {cron!r}: six fields, seconds first, such as '0 0 2 * * *' for two at night")
    if not cron:
        kubeflow = server.connect()
        own = kubeflow.existing_experiment(experiment)
        (_show_schedules if list_ else _delete_schedules)(kubeflow, own, name)
        return
    parameters = given.parameters()
    with _graph(given.graph, compiled, parameters) as graph:
        kubeflow = server.connect()
        version = kubeflow.version(graph)
    experiment_id = kubeflow.experiment(experiment)
    schedule_id, done = kubeflow.schedule(name, cron, version, experiment_id, parameters, given.account)
    print(f"schedule {name}: {done}, {cron}, {version.name} -> {schedule_id}")


@command(app, "status", "scaled-yolov4 pipeline status", "scaled-yolov4 pipeline status RUN --follow")
def status(
    *,
    run: Annotated[str, typer.Argument(help="Id of a run; else the latest ones are listed.")] = "",
    follow: Follow = False,
    hours: Hours = FORTNIGHT,
    number: Annotated[int, Option(min=1, max=100, help="How many to list.")] = 10,
    experiment: Experiment = GRAPH,
    server: Server,
) -> None:
    """Show the steps of a run, or the latest runs."""
    kubeflow = server.connect()
    from components.reports.console import console
    from pipelines.kubeflow import live

    if not run:
        runs = kubeflow.latest_runs(kubeflow.existing_experiment(experiment), number)
        console().print(live.overview(runs))
    elif follow:
        _follow(kubeflow, run, hours)
    else:
        console().print(live.table(kubeflow.run(run)))


@command(app, "cancel", "scaled-yolov4 pipeline cancel RUN")
def cancel(*, run: Annotated[str, typer.Argument(help="Id of the run.")], server: Server) -> None:
    """Cancel a run and delete its RayJobs.

    The steps get SIGTERM; those that follow a RayJob delete it.
    """
    kubeflow = server.connect()
    from pipelines.kubeflow.client import ENDED

    state = kubeflow.run(run).state
    if state in ENDED:
        raise UserError(f"run {run}: it has ended ({state})")
    kubeflow.terminate(run)
    print(f"cancel: {run}")


@contextmanager
def _graph(path: Path | None, options: Compiled, parameters: dict[str, object]) -> Iterator[Graph]:
    """The compiled pipeline, which must take these parameters; without a path it is compiled into a temporary file."""
    if path and options != Compiled():
        raise UserError(f"--graph {path}: it is compiled already; give {options.given} to `pipeline compile` instead")
    with needing_kubeflow():
        from pipelines.graph.compile import compiled
        from pipelines.kubeflow.client import Graph

    with tempfile.TemporaryDirectory() as folder:
        if path is None:
            path = Path(folder, "pipeline.yaml")
            path.write_text(compiled(options.target), encoding="utf-8")
        graph = Graph.read(path)
        _check(graph, parameters)
        yield graph


def _check(graph: Graph, parameters: dict[str, object]) -> None:
    if unknown := sorted(set(parameters) - graph.parameters):
        raise UserError(f"{graph.path}: the pipeline {graph.name} takes no parameter {', '.join(unknown)}")


def _follow(server: Kubeflow, run_id: str, hours: float) -> None:
    from components.reports.console import console
    from pipelines.kubeflow import live

    server.retry_limit_s = 5 * 60  # a server that restarts is back by then; the run continues in any case
    try:
        run = live.follow(server, run_id, limit=hours * HOUR, console=console())
    except KeyboardInterrupt:
        print(f"the run continues; to cancel it: scaled-yolov4 pipeline cancel {run_id}")
        raise typer.Exit(130) from None
    if run.state != "SUCCEEDED":
        typer.echo(f"error: run {run_id}: {run.state}; {server.link(run_id)}", err=True)
        raise typer.Exit(1)


def _show_schedules(server: Kubeflow, experiment_id: str, _: str) -> None:
    from rich.table import Table

    from components.reports.console import console

    table = Table()
    for column in ("schedule", "name", "cron", "state", "version"):
        table.add_column(column)
    for item in server.schedules(experiment_id):
        cron = item.trigger.cron_schedule.cron if item.trigger and item.trigger.cron_schedule else ""
        version = item.pipeline_version_reference.pipeline_version_id if item.pipeline_version_reference else ""
        table.add_row(item.recurring_run_id, item.display_name, cron, item.status or "", version)
    console().print(table)


def _delete_schedules(server: Kubeflow, experiment_id: str, name: str) -> None:
    found = server.schedules(experiment_id, name)
    if not found:
        raise UserError(f"schedule {name}: there is none; `scaled-yolov4 pipeline schedule --list` shows all")
    for item in found:
        server.unschedule(item.recurring_run_id)
    print(f"schedule {name}: deleted")


@command(
    stages,
    "doctor",
    "scaled-yolov4 doctor",
    "scaled-yolov4 doctor --params params/coco.yaml",
    "scaled-yolov4 doctor --cluster platform.json",
)
def doctor(
    *,
    params: ParamsFile = PARAMS,
    cluster: Annotated[
        Path | None, Option(metavar="FILE", help="Check this platform: `terraform output -json platform`.")
    ] = None,
) -> None:
    """Check this machine or a cluster, and how to fix it."""
    from components.doctor.checks import run
    from components.doctor.machine import measurements, of_machine

    if cluster:
        with needing_kubeflow():
            from pipelines.doctor import of_platform
        groups = [of_platform(cluster)]
    else:
        groups = [of_machine(params), measurements(params)]
    passed = [run(list(checks)) for checks in groups]
    if not all(passed):
        raise typer.Exit(UserError.exit_code)


stages.add_typer(app, name="pipeline")


def main() -> None:
    """The command line with everything."""
    prepare_process()
    stages()


if __name__ == "__main__":
    main()
