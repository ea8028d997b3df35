"""Commands about detectors: `models`, `plan`, `import-weights`."""

from pathlib import Path
from typing import Annotated

from components.cli.app import app
from components.cli.command import command
from components.cli.facts import facts
from components.cli.options import typer

Option = typer.Option


@command(app, "models", "scaled-yolov4 models", "scaled-yolov4 models --classes 10")
def models(*, classes: Annotated[int, Option(min=1, help="Number of classes.")] = 80) -> None:
    """List all models with their cost and published AP.

    Parameters and GFLOPs are counted at native size; AP and speed are as published.
    """
    from components.reports.models_table import show

    show(classes)


@command(
    app,
    "plan",
    "scaled-yolov4 plan --latency-ms 15",
    "scaled-yolov4 plan --latency-ms 10 --device H100 --family yolov7 --params 40",
    "scaled-yolov4 plan --latency-ms 40 --benchmark outputs/benchmark/yolov4-tiny/benchmark.json --memory 2",
)
def plan(
    *,
    latency_ms: Annotated[float, Option(help="Maximum latency at batch 1, in ms.")],
    device: Annotated[str, Option(help="Device to plan for, such as V100; auto is this machine's GPU.")] = "auto",
    benchmark: Annotated[list[Path], Option(metavar="FILE", help="Benchmark record to predict from; repeatable.")] = [],
    params: Annotated[float | None, Option(help="Maximum number of parameters, in millions.")] = None,
    memory: Annotated[float | None, Option(help="Maximum inference memory at batch 1, in GiB.")] = None,
    train_memory: Annotated[float | None, Option(help="Maximum training memory per device, in GiB.")] = None,
    train_batch: Annotated[int, Option(min=1, help="Training batch per device.")] = 1,
    classes: Annotated[int, Option(min=1, help="Number of classes.")] = 80,
    family: Annotated[str, Option(help="yolov4 or yolov7.")] = "yolov4",
) -> None:
    """Choose a model for a latency limit.

    Proposes model, input size, depth and width, with the reasons.
    """
    from components.reports.plan import run
    from yolo_core.models.planner import Limits

    run(
        limits=Limits(
            latency_ms=latency_ms,
            params_m=params,
            memory_gib=memory,
            training_gib=train_memory,
            training_batch=train_batch,
        ),
        family=family,
        device=device,
        benchmarks=benchmark,
        classes=classes,
    )


@command(
    app,
    "import-weights",
    "scaled-yolov4 import-weights --model yolov4-p5 --from yolov4-p5.pt --out yolov4-p5.safetensors",
    "scaled-yolov4 train --model yolov4-p5 --start-from yolov4-p5.safetensors",
)
def import_weights(
    *,
    model: Annotated[str, Option(help="A name from `scaled-yolov4 models`.")],
    source: Annotated[
        str,
        Option(
            "--from",
            metavar="PATH|URL|S3",
            help="The authors' file: Darknet .weights or PyTorch .pt; #sha256=HEX after it verifies it.",
        ),
    ],
    out: Annotated[Path, Option(help="The .safetensors file to write.")],
    names: Annotated[Path | None, Option(help="Class names, one per line; default: COCO's 80.")] = None,
    size: Annotated[int | None, Option(min=32, max=4096, help="Input pixels; default: as published.")] = None,
    force: Annotated[bool, Option("--force", help="Overwrite --out if it exists.")] = False,
) -> None:
    """Convert published weights, running no code in them. A download is kept in runs/weights."""
    from components.monitoring.progress import on_stderr
    from components.stages.import_weights import run
    from components.storage.start_weights import local_weights

    file = local_weights(source, on_stderr())
    result = run(model=model, source=file, out=out, names=names, size=size, force=force)
    print(f"import-weights: {facts(result)} -> {out}")
