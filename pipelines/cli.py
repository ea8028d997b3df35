"""The command `scaled-yolov4` whole: the stages and, beside them, `pipeline` for a Kubeflow server, and `doctor`.

They stand here because the stages know nothing of Kubeflow. Only Typer is imported at the start; kfp takes two seconds.
Exit codes: 0 done, 1 the run failed, 2 something the user can mend, 3 the server is away: try again.
"""

import importlib
import inspect
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import MISSING, Field, dataclass, field, fields, is_dataclass
from pathlib import Path
from typing import Annotated, Any

from components.cli.main import (
    Debug,
    Overrides,
    ParamsFile,
    examples_of,
    reporting_errors,
    typer,  # it says what to install where Typer is missing
)
from components.cli.main import app as stages
from pipelines.graph.target import IMAGE, Target
from yolo_core.errors import UserError

GRAPH = "scaled-yolov4-full"
HOUR, FORTNIGHT = 3600, 14 * 24.0  # seconds, hours

app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode=None,
    help="The pipeline on a Kubeflow server: compile, submit, schedule, watch and cancel it.",
    epilog=examples_of(
        "scaled-yolov4 pipeline submit --host http://localhost:8080 -S train.epochs=60",
        "scaled-yolov4 pipeline schedule --cron '0 0 2 * * *'",
    ),
)

Option = typer.Option
Follow = Annotated[bool, Option("--follow/--no-follow", help="Stay and show the run to its end.")]
Hours = Annotated[float, Option(min=0, help="How long to stay at most.")]
Experiment = Annotated[
    str, Option(envvar="KF_PIPELINES_DEFAULT_EXPERIMENT_NAME", help="Experiment that the runs belong to.")
]


@dataclass(frozen=True)
class Server:
    """Options of every command that speaks to the server; the variables are those of kfp and of its client."""

    host: Annotated[
        str,
        Option("--host", "--endpoint", envvar=["KFP_ENDPOINT", "KF_PIPELINES_ENDPOINT"], help="Address of the server."),
    ] = ""
    namespace: Annotated[str, Option(envvar="KFP_NAMESPACE", help="Yours, on a server for many users.")] = ""
    token: Annotated[str, Option(envvar="KFP_EXISTING_TOKEN", help="Bearer token, where the server wants one.")] = ""

    def connect(self) -> Any:
        return _kubeflow().Kubeflow(self.host, self.namespace, self.token)


@dataclass(frozen=True)
class Compiled:
    """Options of every command that compiles the pipeline."""

    image: Annotated[str, Option(help="The project's image.")] = IMAGE
    gpus: Annotated[int, Option(min=0, help="GPUs of each step that can use one.")] = 0
    sized_for: Annotated[str, Option(help="Model that the steps which train are sized for.")] = "yolov4-tiny"
    ray_jobs: Annotated[bool, Option("--ray-jobs", help="Train and evolve as RayJobs over many nodes.")] = False
    queue: Annotated[str, Option(help="Kueue's queue of the RayJobs; it starts all their nodes or none.")] = ""
    ray_account: Annotated[str, Option(help="Service account of the Ray pods.")] = ""

    node_selector: Annotated[
        list[str], Option(metavar="LABEL=VALUE", help="Of the nodes for what uses a GPU; repeatable.")
    ] = field(default_factory=list)

    @property
    def target(self) -> Target:
        labels = tuple(_label(text) for text in self.node_selector)
        return Target(
            self.image,
            self.gpus,
            self.sized_for,
            self.ray_jobs,
            self.queue,
            self.ray_account,
            node_selector=labels,
        )


def _label(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not name or not equals:
        raise UserError(
            f"--node-selector {text}: expected LABEL=VALUE, such as node.kubernetes.io/instance-type=p4d.24xlarge"
        )
    return name, value


@dataclass(frozen=True)
class Given:
    """Options of every command that starts runs."""

    graph: Annotated[Path | None, Option(metavar="FILE", help="A compiled pipeline; else it is compiled now.")] = None
    params: ParamsFile = Path("params.yaml")
    overrides: Overrides = field(default_factory=list)
    models: Annotated[list[str], Option("--model", help="Model to train; repeatable; else as in the parameters.")] = (
        field(default_factory=list)
    )
    mlflow_uri: Annotated[str, Option(help="MLflow server, as the cluster reaches it.")] = ""
    account: Annotated[str, Option(help="Service account of the run.")] = ""
    force: Annotated[bool, Option("--force", help="Train from scratch, whatever changed since the champion.")] = False

    def parameters(self) -> dict[str, Any]:
        """The run's parameters: the text of the parameter file and what changes it, checked before they are sent."""
        changes = [*self.overrides, *([f"models=[{', '.join(self.models)}]"] if self.models else [])]
        importlib.import_module("components.params").load(self.params, changes)
        given = {
            "params_yaml": self.params.read_text(encoding="utf-8"),
            "overrides": list(self.overrides),
            "models": list(self.models),
            "mlflow_tracking_uri": self.mlflow_uri,
            "force": self.force,
        }
        return {name: value for name, value in given.items() if value}


def command(name: str, *lines: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Make a subcommand with examples; a parameter that is one of the dataclasses above stands for its options."""

    def register(declared: Callable[..., None]) -> Callable[..., None]:
        own = inspect.signature(declared, eval_str=True).parameters
        groups: dict[str, Any] = {key: item.annotation for key, item in own.items() if is_dataclass(item.annotation)}

        def run(debug: bool, **options: Any) -> None:
            for key, group in groups.items():
                options[key] = group(**{item.name: options.pop(item.name) for item in fields(group)})
            with reporting_errors(debug):
                declared(**options)

        single = [item for key, item in own.items() if key not in groups]
        expanded = [_parameter(item) for group in groups.values() for item in fields(group)]
        debug = inspect.Parameter("debug", inspect.Parameter.KEYWORD_ONLY, default=False, annotation=Debug)
        parameters = [*single, *expanded, debug]
        run.__signature__ = inspect.Signature(parameters)  # pyright: ignore[reportFunctionMemberAccess]
        run.__annotations__ = {item.name: item.annotation for item in parameters}
        app.command(name, help=declared.__doc__, epilog=examples_of(*lines))(run)
        return declared

    return register


def _parameter(item: Field) -> inspect.Parameter:
    default = [] if item.default is MISSING else item.default
    return inspect.Parameter(item.name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=item.type)


@command("compile", "scaled-yolov4 pipeline compile --image registry/name:1 --gpus 1 --out mine.yaml")
def compile_(
    *,
    out: Annotated[Path, Option(help="File to write or to check.")] = Path("pipelines/scaled_yolov4_full.yaml"),
    check: Annotated[bool, Option("--check", help="Only tell whether the file is current.")] = False,
    compiled: Compiled,
) -> None:
    """Compile the pipeline into YAML for Kubeflow."""
    module = _needing_kfp("pipelines.graph.compile")
    if not check:
        out.write_text(module.compiled(compiled.target), encoding="utf-8")
        print(f"pipeline compile: -> {out}")
    elif not module.is_current(out, compiled.target):
        raise typer.Exit(1)


@command(
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
    """Start a run, uploading a new version of the pipeline only when it changed, and follow it."""
    parameters = given.parameters()
    with _graph(given.graph, compiled.target, parameters) as graph:
        kubeflow = server.connect()
        version = kubeflow.version(graph)
    print(f"version: {version.name}, {'uploaded' if version.is_new else 'unchanged'} -> {version.version_id}")
    name = run_name or _kubeflow().run_name(graph.name)
    run_id = kubeflow.start(version, kubeflow.experiment(experiment), name, parameters, given.account)
    print(f"run: {run_id}\n{kubeflow.link(run_id)}", flush=True)
    if follow:
        _follow(kubeflow, run_id, hours)


@command(
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
    """Create or change the one schedule of this name: one run at a time, missed times are not made up for."""
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
    with _graph(given.graph, compiled.target, parameters) as graph:
        kubeflow = server.connect()
        version = kubeflow.version(graph)
    experiment_id = kubeflow.experiment(experiment)
    schedule_id, done = kubeflow.schedule(name, cron, version, experiment_id, parameters, given.account)
    print(f"schedule {name}: {done}, {cron}, {version.name} -> {schedule_id}")


@command("status", "scaled-yolov4 pipeline status", "scaled-yolov4 pipeline status RUN --follow")
def status(
    *,
    run: Annotated[str, typer.Argument(help="Id of a run; else the latest ones are listed.")] = "",
    follow: Follow = False,
    hours: Hours = FORTNIGHT,
    number: Annotated[int, Option(min=1, max=100, help="How many to list.")] = 10,
    experiment: Experiment = GRAPH,
    server: Server,
) -> None:
    """Show a run with its steps, or the latest runs."""
    kubeflow = server.connect()
    live = _needing_kfp("pipelines.kubeflow.live")
    if not run:
        runs = kubeflow.latest_runs(kubeflow.existing_experiment(experiment), number)
        _console().print(live.overview(runs))
    elif follow:
        _follow(kubeflow, run, hours)
    else:
        _console().print(live.table(kubeflow.run(run)))


@command("cancel", "scaled-yolov4 pipeline cancel RUN")
def cancel(*, run: Annotated[str, typer.Argument(help="Id of the run.")], server: Server) -> None:
    """End a run; its steps get SIGTERM, and those that follow a RayJob delete it."""
    kubeflow = server.connect()
    state = kubeflow.run(run).state
    if state in _kubeflow().ENDED:
        raise UserError(f"run {run}: it has ended ({state})")
    kubeflow.terminate(run)
    print(f"cancel: {run}")


def _kubeflow() -> Any:
    return _needing_kfp("pipelines.kubeflow.client")


def _needing_kfp(module: str) -> Any:
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name and error.name.partition(".")[0] in ("kfp", "kubernetes"):
            raise UserError("this needs Kubeflow's client; run: pip install 'scaled-yolov4[pipelines]'") from None
        raise


def _console() -> Any:
    from rich.console import Console

    console = Console()
    return console if console.is_terminal else Console(width=160)


@contextmanager
def _graph(path: Path | None, target: Target, parameters: dict[str, Any]) -> Iterator[Any]:
    """The compiled pipeline, which takes these parameters; one that is compiled now lies in a folder that goes."""
    with tempfile.TemporaryDirectory() as folder:
        if path is None:
            path = Path(folder, "pipeline.yaml")
            path.write_text(_needing_kfp("pipelines.graph.compile").compiled(target), encoding="utf-8")
        graph = _kubeflow().Graph.read(path)
        _check(graph, parameters)
        yield graph


def _check(graph: Any, parameters: dict[str, Any]) -> None:
    if unknown := sorted(set(parameters) - graph.parameters):
        raise UserError(f"{graph.path}: the pipeline {graph.name} takes no parameter {', '.join(unknown)}")


def _follow(server: Any, run_id: str, hours: float) -> None:
    server.patience = 5 * 60  # a server that restarts is back by then; the run goes on in any case
    try:
        run = _needing_kfp("pipelines.kubeflow.live").follow(server, run_id, limit=hours * HOUR, console=_console())
    except KeyboardInterrupt:
        print(f"the run goes on; to end it: scaled-yolov4 pipeline cancel {run_id}")
        raise typer.Exit(130) from None
    if run.state != "SUCCEEDED":
        typer.echo(f"error: run {run_id}: {run.state}; {server.link(run_id)}", err=True)
        raise typer.Exit(1)


def _show_schedules(server: Any, experiment_id: str, _: str) -> None:
    from rich.table import Table

    table = Table()
    for column in ("schedule", "name", "cron", "state", "version"):
        table.add_column(column)
    for item in server.schedules(experiment_id):
        cron = item.trigger.cron_schedule.cron if item.trigger and item.trigger.cron_schedule else ""
        version = item.pipeline_version_reference.pipeline_version_id if item.pipeline_version_reference else ""
        table.add_row(item.recurring_run_id, item.display_name, cron, item.status or "", version)
    _console().print(table)


def _delete_schedules(server: Any, experiment_id: str, name: str) -> None:
    found = server.schedules(experiment_id, name)
    if not found:
        raise UserError(f"schedule {name}: there is none; `scaled-yolov4 pipeline schedule --list` shows all")
    for item in found:
        server.unschedule(item.recurring_run_id)
    print(f"schedule {name}: deleted")


@stages.command(
    "doctor",
    epilog=examples_of(
        "scaled-yolov4 doctor",
        "scaled-yolov4 doctor --params params/coco.yaml",
        "scaled-yolov4 doctor --cluster platform.json",
    ),
)
def doctor(
    params: ParamsFile = Path("params.yaml"),
    cluster: Annotated[
        Path | None, Option(metavar="FILE", help="Check this platform: `terraform output -json platform`.")
    ] = None,
    debug: Debug = False,
) -> None:
    """Check this machine, or a platform: one line a check, with its mend."""
    with reporting_errors(debug):
        machine = importlib.import_module("components.doctor.machine")
        checks = _needing_kfp("pipelines.doctor").of_platform(cluster) if cluster else machine.of_machine(params)
        if not machine.run(list(checks)):
            raise typer.Exit(2)


stages.add_typer(app, name="pipeline")


def main() -> None:
    stages()


if __name__ == "__main__":
    main()
