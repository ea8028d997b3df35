"""The command `scaled-yolov4`: one subcommand per stage, and those around them (models, plan, summary and the like).

Only Typer is imported here; a command imports what it needs when it runs, so that `--help` stays quick.
Exit codes: 0 done, 1 a fault, 2 something the user can mend, 3 a service is away: try again.
"""

import importlib
import inspect
import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

try:
    import typer
except ModuleNotFoundError:
    sys.exit("error: the command line needs more than the detector; run: pip install 'scaled-yolov4[train]'")

from components.workspace import default_paths
from yolo_core.errors import TryAgain, UserError, full_disk_told

ParamsFile = Annotated[Path, typer.Option("--params", help="Parameter file.")]
Overrides = Annotated[list[str], typer.Option("-S", "--set", metavar="KEY=VALUE", help="Change one parameter.")]
Debug = Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")]

# Options that stand for a parameter.
PARAMETER_OPTIONS = {
    "width": "train.per_model.{model}.width",
    "depth": "train.per_model.{model}.depth",
    "start_from": "train.per_model.{model}.weights",
    "judge": "evaluate.judge",
}

Model = Annotated[str, typer.Option(help="A name from `scaled-yolov4 models`; else the first in the parameters.")]


def _place(text: str | Path) -> str | Path:
    return text if ":/" in str(text) else Path(text)  # a Path would lose the second slash of an address


StageParams = Annotated[Path, typer.Option("--params", parser=_place, metavar="FILE|S3", help="Parameter file.")]


def _path(meaning: str, default: str) -> Any:
    return typer.Option(None, help=meaning, show_default=default, parser=_place, metavar="PATH|S3")


DATA = _path("Dataset folder made by `prepare`.", "data/prepared")
WEIGHTS = _path("Trained detector.", "outputs/train/MODEL/model.safetensors")
ANCHORS = _path("Anchors of the model.", "outputs/anchors/MODEL.json")
HYP = _path("Evolved hyperparameters.", "outputs/evolve/hyp.yaml")
WORK = _path("Unfinished work, from which a killed run goes on.", "runs")


DropLevels = Annotated[int, typer.Option(min=0, help="Coarsest levels of P6 or P7 to go without.")]
Size = Annotated[int | None, typer.Option(min=32, max=4096, help="Input pixels; else those of the training.")]


def _out(default: str) -> Any:
    return _path("Where the results go.", default)


def _made_by(stage: str) -> Any:
    return _path(f"Results of `{stage}`.", f"outputs/{stage}/MODEL")


def examples_of(*lines: str) -> str:
    return "\b\nExamples:\n" + "\n".join(f"  {line}" for line in lines)  # \b keeps the lines as they are


app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    help="Scaled-YOLOv4 from data to a promoted model. `dvc repro` runs all stages; each one also runs alone.",
    epilog=examples_of(
        "scaled-yolov4 doctor",
        "scaled-yolov4 prepare -S prepare.source=coco-dir -S prepare.location=/data/my-coco",
        "scaled-yolov4 train --model yolov4-tiny -S train.epochs=100",
        "scaled-yolov4 promote --model yolov4-tiny --rollback",
    ),
)


def stage(*examples: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Make a stage's subcommand from a function that only declares its options and its help.

    Adds --params, -S and --debug; an option left out takes its path from `components.workspace`.
    """

    def register(declared: Callable[..., None]) -> Callable[..., None]:
        name = declared.__name__

        def command(params: Path, overrides: list[str], debug: bool, **options: Any) -> None:
            with reporting_errors(debug):
                _run(name, params, overrides, **options)

        common = [
            inspect.Parameter(key, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation)
            for key, default, annotation in (
                ("params", Path("params.yaml"), StageParams),
                ("overrides", [], Overrides),
                ("debug", False, Debug),
            )
        ]
        signature = inspect.signature(declared)
        own = list(signature.parameters.values())
        command.__signature__ = signature.replace(parameters=[*own, *common])  # pyright: ignore[reportFunctionMemberAccess]
        command.__annotations__ = {p.name: p.annotation for p in [*own, *common]}
        app.command(name, help=declared.__doc__, epilog=examples_of(*examples))(command)
        return declared

    return register


@stage(
    "scaled-yolov4 prepare",
    "scaled-yolov4 prepare -S prepare.source=yolo-dir -S prepare.location=/data/mine --out data/mine",
)
def prepare(
    *,
    out: Path | None = _out("data/prepared"),
    work: Path | None = _path("What is remembered of checked images.", "runs"),
) -> None:
    """Check and convert images and labels into a dataset folder with a manifest; only new images are read again."""


@stage("scaled-yolov4 anchors", "scaled-yolov4 anchors --data data/mine -S train.size=416")
def anchors(*, data: Path | None = DATA, out: Path | None = _out("outputs/anchors")) -> None:
    """Cluster the boxes of the training set into anchors, for every model in the parameters."""


@stage("scaled-yolov4 evolve", "scaled-yolov4 evolve -S evolve.trials=300 -S evolve.minutes=600")
def evolve(
    *,
    data: Path | None = DATA,
    anchors: Path | None = _path("Folder made by `anchors`.", "outputs/anchors"),
    out: Path | None = _out("outputs/evolve"),
    work: Path | None = WORK,
) -> None:
    """Evolve the hyperparameters with Ray Tune; the same command goes on after a kill."""


@stage(
    "scaled-yolov4 train --model yolov4-tiny",
    "scaled-yolov4 train --model yolov4-csp --width 0.25",
    "scaled-yolov4 train --model yolov4-p5 --start-from yolov4-p5.safetensors -S train.epochs=30",
    "scaled-yolov4 train --model yolov4-tiny -S train.workers=4 -S train.gpus_per_worker=1",
)
def train(
    *,
    model: Model = "",
    data: Path | None = DATA,
    anchors: Path | None = ANCHORS,
    hyp: Path | None = HYP,
    out: Path | None = _out("outputs/train/MODEL"),
    work: Path | None = WORK,
    width: Annotated[float | None, typer.Option(help="Factor of the channels; sets train.width.")] = None,
    depth: Annotated[float | None, typer.Option(help="Factor of the repeats; sets train.depth.")] = None,
    start_from: Path | None = _path("Detector to fine-tune; sets train.weights.", "none"),
) -> None:
    """Train one detector with Ray Train; the same command goes on after a kill."""


@stage(
    "scaled-yolov4 evaluate --model yolov4-tiny",
    "scaled-yolov4 evaluate --model yolov4-p7 --drop-levels 1 --size 1280 --out /tmp/scores",
    "scaled-yolov4 evaluate --judge pycocotools",
)
def evaluate(
    *,
    model: Model = "",
    data: Path | None = DATA,
    weights: Path | None = WEIGHTS,
    out: Path | None = _out("outputs/evaluate/MODEL"),
    drop_levels: DropLevels = 0,
    size: Size = None,
    judge: Annotated[
        str | None, typer.Option(help="hotcoco, or pycocotools: slower, same figures; sets evaluate.judge.")
    ] = None,
) -> None:
    """Measure the COCO figures with and without test-time augmentation, with plots and sample pictures."""


@stage("scaled-yolov4 export --model yolov4-tiny", "scaled-yolov4 export -S 'export.tensorrt=[fp16]'")
def export(
    *,
    model: Model = "",
    data: Path | None = DATA,
    weights: Path | None = WEIGHTS,
    out: Path | None = _out("outputs/export/MODEL"),
    drop_levels: DropLevels = 0,
    size: Size = None,
) -> None:
    """Export to ONNX (and TensorRT where present) and check the result against PyTorch."""


@stage("scaled-yolov4 benchmark --model yolov4-tiny", "scaled-yolov4 benchmark -S 'benchmark.batches=[1, 8]'")
def benchmark(
    *,
    model: Model = "",
    data: Path | None = DATA,
    weights: Path | None = WEIGHTS,
    export: Path | None = _made_by("export"),
    out: Path | None = _out("outputs/benchmark/MODEL"),
    drop_levels: DropLevels = 0,
    size: Size = None,
) -> None:
    """Time pre-processing, inference and post-processing in every runtime at hand."""


@stage("scaled-yolov4 register --model yolov4-tiny")
def register(
    *,
    model: Model = "",
    data: Path | None = DATA,
    anchors: Path | None = ANCHORS,
    hyp: Path | None = HYP,
    train: Path | None = _made_by("train"),
    evaluate: Path | None = _made_by("evaluate"),
    export: Path | None = _made_by("export"),
    benchmark: Path | None = _made_by("benchmark"),
    out: Path | None = _out("outputs/register/MODEL.json"),
) -> None:
    """Record parameters, figures and artifacts in MLflow and register the model there."""


@stage("scaled-yolov4 promote --model yolov4-tiny", "scaled-yolov4 promote --model yolov4-tiny --rollback")
def promote(
    *,
    model: Model = "",
    registered: Path | None = _path("The file written by `register`.", "outputs/register/MODEL.json"),
    data: Path | None = DATA,
    out: Path | None = _out("outputs/promote/MODEL.json"),
    rollback: Annotated[bool, typer.Option("--rollback", help="Give the previous champion its place back.")] = False,
) -> None:
    """Compare with the champion and set the registry's aliases."""


@stage("scaled-yolov4 compare")
def compare(
    *,
    evaluate: Path | None = _path("Results of `evaluate`, a folder a model.", "outputs/evaluate"),
    benchmark: Path | None = _path("Results of `benchmark`, a folder a model.", "outputs/benchmark"),
    promote: Path | None = _path("Decisions of `promote`, a file a model.", "outputs/promote"),
    out: Path | None = _out("outputs/compare"),
) -> None:
    """Put all models side by side on the plane of speed and AP."""


@app.command("models", epilog=examples_of("scaled-yolov4 models", "scaled-yolov4 models --classes 10"))
def models(classes: Annotated[int, typer.Option(min=1, help="Number of classes.")] = 80, debug: Debug = False) -> None:
    """List every model: parameters, GFLOPs at native size, published AP and speed."""
    with reporting_errors(debug):
        importlib.import_module("components.reports.models_table").show(classes)


@app.command(
    "plan",
    epilog=examples_of(
        "scaled-yolov4 plan --latency-ms 15",
        "scaled-yolov4 plan --latency-ms 10 --device H100 --family yolov7 --params 40",
        "scaled-yolov4 plan --latency-ms 40 --benchmark outputs/benchmark/yolov4-tiny/benchmark.json --memory 2",
    ),
)
def plan(
    *,
    latency_ms: Annotated[float, typer.Option(help="Limit of inference at batch 1, milliseconds.")],
    device: Annotated[str, typer.Option(help="Device to plan for, such as V100; auto is this machine's GPU.")] = "auto",
    benchmark: Annotated[list[Path], typer.Option(metavar="FILE", help="Record to predict from; repeatable.")] = [],
    params: Annotated[float | None, typer.Option(help="Limit of the parameters, millions.")] = None,
    memory: Annotated[float | None, typer.Option(help="Limit of inference memory at batch 1, GiB.")] = None,
    train_memory: Annotated[float | None, typer.Option(help="Limit of training memory on one device, GiB.")] = None,
    train_batch: Annotated[int, typer.Option(min=1, help="Images a device trains at once.")] = 1,
    classes: Annotated[int, typer.Option(min=1, help="Number of classes.")] = 80,
    family: Annotated[str, typer.Option(help="yolov4 or yolov7.")] = "yolov4",
    debug: Debug = False,
) -> None:
    """Propose a model, input size, depth and width for a time limit, with the reasons."""
    with reporting_errors(debug):
        importlib.import_module("components.reports.plan").run(
            limits={
                "latency_ms": latency_ms,
                "params_m": params,
                "memory_gib": memory,
                "training_gib": train_memory,
                "training_batch": train_batch,
            },
            family=family,
            device=device,
            benchmarks=benchmark,
            classes=classes,
        )


@app.command(
    "import-weights",
    epilog=examples_of(
        "scaled-yolov4 import-weights --model yolov4-p5 --from yolov4-p5.pt --out yolov4-p5.safetensors",
        "scaled-yolov4 train --model yolov4-p5 --start-from yolov4-p5.safetensors",
    ),
)
def import_weights(
    *,
    model: Annotated[str, typer.Option(help="A name from `scaled-yolov4 models`.")],
    source: Annotated[Path, typer.Option("--from", help="The authors' file: Darknet .weights or PyTorch .pt.")],
    out: Annotated[Path, typer.Option(help="The .safetensors file to write.")],
    names: Annotated[Path | None, typer.Option(help="Class names, one a line; else COCO's 80.")] = None,
    size: Annotated[int | None, typer.Option(min=32, max=4096, help="Input pixels; else as published.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace --out if it is there.")] = False,
    debug: Debug = False,
) -> None:
    """Turn published weights into a detector file, without running any code in them."""
    with reporting_errors(debug):
        stage = importlib.import_module("yolo_core.models.import_weights")
        result = stage.run(model=model, source=source, out=out, names=names, size=size, force=force)
        print(f"import-weights: {_facts(result)} -> {out}")


@app.command("retrain", epilog=examples_of("scaled-yolov4 retrain --dry-run", "scaled-yolov4 retrain"))
def retrain(
    *,
    data: Path | None = DATA,
    out: Annotated[Path, typer.Option(help="Folder of the decisions.")] = Path("outputs/retrain"),
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Decide and record; do nothing.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Train from scratch, whatever changed.")] = False,
    train: Annotated[bool, typer.Option("--train/--no-train", help="Train, or leave that to whoever calls.")] = True,
    params: ParamsFile = Path("params.yaml"),
    overrides: Overrides = [],
    debug: Debug = False,
) -> None:
    """Compare the data with the champion's and do what the change asks for, by DVC."""
    with reporting_errors(debug):
        progress = importlib.import_module("components.monitoring.progress").on_stderr()
        here = data and importlib.import_module("components.storage.stage_paths").local_copy(str(data), progress)
        given = {"out": out, **({"data": Path(here)} if here else {})}
        stage = importlib.import_module("components.stages.retrain")
        how = {"dry_run": dry_run, "force": force, "train": train}
        with importlib.import_module("components.monitoring.metrics").stage("retrain"):
            result = stage.run(_params(params, overrides), progress=progress, **how, **given)
        print(f"retrain: {_facts(result)}")


@app.command("resolve", epilog=examples_of("scaled-yolov4 resolve", "scaled-yolov4 resolve -S prepare.revision=main"))
def resolve(
    *,
    out: Annotated[Path, typer.Option(help="Where that is written.")] = Path("outputs/resolve.json"),
    force: Annotated[bool, typer.Option("--force", help="Count nothing as unchanged.")] = False,
    params: StageParams = Path("params.yaml"),
    overrides: Overrides = [],
    debug: Debug = False,
) -> None:
    """Say where the data stand, and whether all of it has been trained on; nothing is fetched."""
    with reporting_errors(debug):
        stage = importlib.import_module("components.stages.check_source")
        with importlib.import_module("components.monitoring.metrics").stage("resolve"):
            result = stage.run(_params(params, overrides), out=out, force=force)
        print(f"resolve: {_facts(result)}")


@app.command("summary", epilog=examples_of("scaled-yolov4 summary"))
def summary(params: ParamsFile = Path("params.yaml"), overrides: Overrides = [], debug: Debug = False) -> None:
    """Show the results of the last run and where everything lies."""
    with reporting_errors(debug):
        importlib.import_module("components.reports.summary").show(_params(params, overrides))


@app.command("sync", epilog=examples_of("scaled-yolov4 sync"))
def sync(debug: Debug = False) -> None:
    """Deliver results and records that a store or an MLflow server could not take, in order."""
    with reporting_errors(debug):
        progress = importlib.import_module("components.monitoring.progress").on_stderr()
        for place in importlib.import_module("components.storage.stage_paths").deliver_all(progress):
            print(f"sync: results -> {place}", flush=True)
        for path, count in importlib.import_module("components.tracking.journaled_run").deliver_all(progress).items():
            print(f"sync: {count} records of {path.stem} -> MLflow", flush=True)


def _params(path: Path | str, overrides: list[str]) -> Any:
    if ":/" in str(path):
        path = Path(importlib.import_module("components.storage.stage_paths").local_copy(path))
    return importlib.import_module("components.params").load(path, overrides)


def _run(name: str, params_file: Path, overrides: list[str], **options: Any) -> None:
    """Run one stage and print what it says of itself."""
    params = _params(params_file, overrides)
    given = {key: value for key, value in options.items() if value not in (None, "")}
    model = options.get("model") or params.models[0]
    named = {PARAMETER_OPTIONS[key].format(model=model): given.pop(key) for key in PARAMETER_OPTIONS if key in given}
    if named:
        own = [f"{key}={json.dumps(value, default=str)}" for key, value in named.items()]
        params = _params(params_file, [*overrides, *own])
    if (given.get("drop_levels") or given.get("size")) and "out" not in given:
        raise UserError("--drop-levels and --size: give --out as well; the results of the whole model keep their place")
    arguments: dict[str, Any] = {**default_paths(name, model), **given}
    if "model" in options:
        importlib.import_module("yolo_core.models").get_spec(model)  # a wrong name ends here, with the near ones
        arguments["model"] = model
    progress = importlib.import_module("components.monitoring.progress").on_stderr()
    stage = importlib.import_module(f"components.stages.{name}").run
    with importlib.import_module("components.monitoring.metrics").stage(name, arguments.get("model", "")):
        if any(":/" in str(value) for value in arguments.values()):
            stage_paths = importlib.import_module("components.storage.stage_paths")
            result = stage_paths.run(name, stage, params, arguments, progress)
        else:
            result = stage(params, progress=progress, **arguments)
        print(f"{name}: {_facts(result)} -> {arguments['out']}", flush=True)
        importlib.import_module("components.tracking.journaled_run").check_delivered(name, model)


def _facts(result: dict[str, Any]) -> str:
    return ", ".join(f"{key} {_short(value)}" for key, value in result.items())


def _short(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


@contextmanager
def reporting_errors(debug: bool) -> Iterator[None]:
    """Turn a UserError into one line and exit code 2, or 3 where trying again will do; a full disk as well."""
    try:
        with full_disk_told():
            yield
    except UserError as error:
        if debug:
            raise
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(3 if isinstance(error, TryAgain) else 2) from None


def main() -> None:
    app()


if __name__ == "__main__":
    main()
