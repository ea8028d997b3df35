"""The stages, one row each, in the order they run.

Default paths, the command line, `dvc.yaml`, the Kubeflow pipeline, its resources and the table in docs/stages.md all
follow from these rows. A new stage is a module in `components/stages` with a `run` function, a row here and its
section in `components/params.py`; CONTRIBUTING.md shows one.
"""

from dataclasses import replace
from pathlib import Path

from components import files
from components.stage_row import MODEL, File, Input, Option, Resources, Result, Run, Stage
from components.workspace import DATA, WORK


def _prepare() -> Run:
    from components.stages.prepare import run

    return run


def _anchors() -> Run:
    from components.stages.anchors import run

    return run


def _evolve() -> Run:
    from components.stages.evolve import run

    return run


def _train() -> Run:
    from components.stages.train import run

    return run


def _evaluate() -> Run:
    from components.stages.evaluate import run

    return run


def _export() -> Run:
    from components.stages.export import run

    return run


def _benchmark() -> Run:
    from components.stages.benchmark import run

    return run


def _register() -> Run:
    from components.stages.register import run

    return run


def _promote() -> Run:
    from components.stages.promote import run

    return run


def _compare() -> Run:
    from components.stages.compare import run

    return run


DATASET = Input("prepare", "Dataset folder made by `prepare`.")
ANCHORS = Input("anchors", "Anchors of the model.", "{model}.json")
HYP = Input("evolve", "Evolved hyperparameters.", files.HYP)
WEIGHTS = Input("train", "Trained detector.", files.WEIGHTS)
CHANGED_MODEL = (
    Option("drop_levels", int, "Coarsest levels of P6 or P7 to drop.", 0, {"min": 0}, own_result=True),
    Option("size", int, "Input size in pixels; default: that of the training.", limits={"min": 32, "max": 4096},
           own_result=True),
)  # fmt: skip
SCORING = tuple(f"evaluate.{key}" for key in ("batch", "conf", "iou", "max_detections", "judge"))
LINEAGE = ("seed", "anchors", "evolve", "train", *SCORING)  # what a version records of its training
RECORDED = "it acts on the registry, so a cached result must not stand in for running it"

STAGES = (
    Stage(
        name="prepare",
        summary="Check a dataset and convert it to COCO format",
        details="Bad images and boxes are quarantined with a reason. Only new or changed images are read again.",
        title="Dataset",
        load=_prepare,
        result=Result(
            str(DATA),
            "dataset",
            "Dataset",
            shown=files.MANIFEST,
            persist="the stage replaces the folder itself and keeps the images that did not change",
        ),
        work="Index of the images checked so far.",
        params=("seed", "prepare"),
        resources=Resources("2", "4Gi"),
        examples=(
            "scaled-yolov4 prepare",
            "scaled-yolov4 prepare -S prepare.source=yolo-dir -S prepare.location=/data/mine --out data/mine",
        ),
    ),
    Stage(
        name="anchors",
        summary="Fit anchors to the training boxes",
        details="k-means, then genetic refinement, at the training size of every model in the parameters.",
        title="Anchors",
        load=_anchors,
        inputs={"data": DATASET},
        result=Result("outputs/anchors", "anchors"),
        params=(
            "seed",
            "models",
            "anchors",
            "evolve.model",
            *(f"train.{key}" for key in ("size", "recipe", "hyp", "per_model")),
        ),
        resources=Resources("1", "4Gi"),
        examples=("scaled-yolov4 anchors --data data/mine -S train.size=416",),
    ),
    Stage(
        name="evolve",
        summary="Evolve the hyperparameters with Ray Tune",
        details="A genetic search that the same command resumes from its ledger after a kill. Its winner is trained "
        "again with other seeds and adopted only if its gain exceeds seed-to-seed variation.",
        title="Evolution",
        load=_evolve,
        inputs={"data": DATASET, "anchors": Input("anchors", "Folder made by `anchors`.")},
        result=Result(
            "outputs/evolve",
            "hyp",
            files=(File(files.HYP), File(files.LEDGER), File(files.FITNESS_PLOT, "plots")),
            shown=files.HYP,
        ),
        work="Unfinished work, from which a killed run resumes.",
        params=(
            "seed",
            "evolve",
            *(
                f"train.{key}"
                for key in (
                    "size",
                    "epochs",
                    "width",
                    "depth",
                    "weights",
                    "freeze",
                    "batch",
                    "nominal_batch",
                    "multi_scale",
                    "repeat_factor",
                    "class_weights",
                    "recipe",
                    "hyp",
                    "device",
                    "amp",
                    "ema_decay",
                    "ema_tau",
                    "per_model",
                )
            ),
            *SCORING,
        ),
        resources=None,
        examples=("scaled-yolov4 evolve -S evolve.trials=300 -S evolve.minutes=600",),
    ),
    Stage(
        name="train",
        summary="Train a detector with Ray Train",
        details="A plain PyTorch loop with EMA, mosaic, AMP and DDP; the same command resumes it after a kill.",
        title="Training of {model}",
        load=_train,
        inputs={
            "data": DATASET,
            "anchors": replace(ANCHORS, default="the published anchors"),
            "hyp": replace(HYP, default="the recipe's hyperparameters with train.hyp"),
        },
        result=Result(
            "outputs/train/{model}",
            "detector",
            "Model",
            metadata={"framework": "pytorch", "file": files.WEIGHTS},
            files=(
                File(files.WEIGHTS),
                File(files.TRAINING),
                File(files.CURVES, "plots", {"x": "epoch", "y": "AP50", "title": "Validation AP50, {model}"}),
            ),
            shown=files.TRAINING,
        ),
        work="Unfinished work, from which a killed run resumes.",
        options=(
            Option("width", float, "Width multiplier; sets train.width.", sets="train.per_model.{model}.width"),
            Option("depth", float, "Depth multiplier; sets train.depth.", sets="train.per_model.{model}.depth"),
            Option(
                "start_from",
                Path,
                "Detector to fine-tune, also https://...#sha256=HEX; sets train.weights.",
                sets="train.per_model.{model}.weights",
            ),
        ),
        logs_epochs=True,
        params=("seed", "train", *SCORING),
        resources=None,
        examples=(
            "scaled-yolov4 train --model yolov4-tiny",
            "scaled-yolov4 train --model yolov4-csp --width 0.25",
            "scaled-yolov4 train --model yolov4-p5 --start-from yolov4-p5.safetensors -S train.epochs=30",
            "scaled-yolov4 train --model yolov4-tiny -S train.workers=4 -S train.gpus_per_worker=1",
            "scaled-yolov4 train --log-format json > epochs.jsonl",
        ),
    ),
    Stage(
        name="evaluate",
        summary="Measure COCO AP, with and without TTA",
        details="Also writes plots, a confusion matrix, sample pictures and the detections in COCO's result format.",
        title="Evaluation of {model}",
        load=_evaluate,
        inputs={"data": DATASET, "weights": WEIGHTS},
        result=Result(
            "outputs/evaluate/{model}",
            "evaluation",
            files=(
                File(files.DETECTIONS),
                File("detections_tta.json"),
                File(files.CONFUSION),
                File("samples.jpg"),
                File(files.METRICS, "metrics"),
                File("pr_curve.png", "plots"),
                File("confusion.png", "plots"),
            ),
            shown=files.METRICS,
            confusion=files.CONFUSION,
        ),
        options=(
            *CHANGED_MODEL,
            Option(
                "judge",
                str,
                "hotcoco, or pycocotools: slower, same figures; sets evaluate.judge.",
                sets="evaluate.judge",
            ),
        ),
        params=("evaluate", "train.device"),
        resources=Resources("2", "8Gi", gpu=True),
        examples=(
            "scaled-yolov4 evaluate --model yolov4-tiny",
            "scaled-yolov4 evaluate --model yolov4-p7 --drop-levels 1 --size 1280 --out /tmp/scores",
            "scaled-yolov4 evaluate --judge pycocotools",
        ),
    ),
    Stage(
        name="export",
        summary="Export to ONNX, OpenVINO and TensorRT",
        details="ONNX with and without NMS; runtimes that are not installed are skipped. Checked against PyTorch.",
        title="Export of {model}",
        load=_export,
        inputs={"data": DATASET, "weights": WEIGHTS},
        result=Result(
            "outputs/export/{model}",
            "exported",
            "Model",
            metadata={"framework": "onnx", "file": "model.onnx"},
            shown=files.EXPORT,
        ),
        options=CHANGED_MODEL,
        params=("export", "evaluate", "train.device", "benchmark.batches"),
        resources=Resources("2", "8Gi", gpu=True),
        examples=("scaled-yolov4 export --model yolov4-tiny", "scaled-yolov4 export -S 'export.tensorrt=[fp16]'"),
    ),
    Stage(
        name="benchmark",
        summary="Measure latency and throughput in each runtime",
        details="Latency percentiles for pre-processing, inference, post-processing and the total; AP per runtime.",
        title="Speed of {model}",
        load=_benchmark,
        inputs={"data": DATASET, "weights": WEIGHTS, "export": Input("export", "Results of `export`.")},
        result=Result("outputs/benchmark/{model}", "speed", files=(File(files.SPEED, "metrics"),), shown=files.SPEED),
        options=CHANGED_MODEL,
        params=("benchmark", "evaluate", "export.nms_conf", "export.ap_tolerance", "train.device"),
        resources=Resources("2", "8Gi", gpu=True),
        examples=(
            "scaled-yolov4 benchmark --model yolov4-tiny",
            "scaled-yolov4 benchmark -S 'benchmark.batches=[1, 8]'",
        ),
    ),
    Stage(
        name="register",
        summary="Record the results in MLflow, register the model",
        details="Logs everything as one MLflow run tree, and a model version that takes images and returns boxes.",
        title="Registration of {model}",
        load=_register,
        inputs={
            "data": DATASET,
            "anchors": ANCHORS,
            "hyp": HYP,
            "train": Input("train", "Results of `train`."),
            "evaluate": Input("evaluate", "Results of `evaluate`."),
            "export": Input("export", "Results of `export`."),
            "benchmark": Input("benchmark", "Results of `benchmark`."),
        },
        result=Result("outputs/register/{model}.json", "registered", persist=RECORDED),
        params=("project", "register", "prepare", *LINEAGE),
        records=("anchors", "evolve", "train"),
        resources=Resources("500m", "4Gi"),
        examples=("scaled-yolov4 register --model yolov4-tiny",),
    ),
    Stage(
        name="promote",
        summary="Promote the model if it beats the champion",
        details="The AP gain on the same images decides; sets the aliases `champion` and `challenger`.",
        title="Promotion of {model}",
        load=_promote,
        inputs={"registered": Input("register", "File written by `register`."), "data": DATASET},
        result=Result("outputs/promote/{model}.json", "decision", persist=RECORDED),
        options=(
            Option("rollback", bool, "Make the previous champion the champion again.", False),
            Option("force", bool, "Make the registered version the champion without judging it.", False),
        ),
        params=("project", "seed", "promote", "train.device", *SCORING),
        resources=Resources("500m", "4Gi"),
        examples=("scaled-yolov4 promote --model yolov4-tiny", "scaled-yolov4 promote --model yolov4-tiny --rollback"),
    ),
    Stage(
        name="compare",
        summary="Compare all models on speed and AP",
        details="A table and a plot, with each decision and the Pareto-optimal models.",
        title="Models",
        load=_compare,
        inputs={
            "evaluate": Input("evaluate", "Results of `evaluate`, a folder per model."),
            "benchmark": Input("benchmark", "Results of `benchmark`, a folder per model."),
            "promote": Input("promote", "Decisions of `promote`, a file per model."),
        },
        result=Result(
            "outputs/compare",
            "comparison",
            files=(File("comparison.json", "metrics"), File("comparison.png", "plots")),
            shown="comparison.json",
        ),
        params=("models",),
        resources=Resources("500m", "2Gi"),
        examples=("scaled-yolov4 compare",),
    ),
)
_BY_NAME = {stage.name: stage for stage in STAGES}


def get_stage(name: str) -> Stage:
    """The row of a stage; KeyError if there is none."""
    return _BY_NAME[name]


def default_paths(name: str, model: str) -> dict[str, Path]:
    """Defaults of a stage's path options; `model` only matters if the stage runs once per model."""
    stage = get_stage(name)
    inputs = {option: Path(input_path(stage, given).format(model=model)) for option, given in stage.inputs.items()}
    work = {"work": WORK} if stage.work else {}
    return {**inputs, "out": Path(stage.result.path.format(model=model)), **work}


def input_path(stage: Stage, given: Input) -> str:
    """Default path of a stage's input; may contain `{model}`."""
    source = get_stage(given.stage)
    if not source.per_model or stage.per_model:
        return str(Path(source.result.path, given.file))
    folder, _, name = source.result.path.rpartition("/")
    if given.file or MODEL in folder or MODEL not in name:
        raise ValueError(f"{stage.name} reads {given.stage} of all models: that is one folder with an entry per model")
    return folder
