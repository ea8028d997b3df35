"""The command `predict`."""

from pathlib import Path
from typing import Annotated

from components.cli import parameters
from components.cli.app import app
from components.cli.command import command
from components.cli.facts import facts
from components.cli.options import ParamsFile, typer
from components.workspace import OUTPUTS, PARAMS
from yolo_core.errors import UserError, known_as
from yolo_core.model_names import known

Option = typer.Option
OUT = OUTPUTS / "predict"
TILES = 4  # per pass, at most, unless --batch is larger


@command(
    app,
    "predict",
    "scaled-yolov4 predict photo.jpg",
    "scaled-yolov4 predict photos/ clip.mp4 --champion yolov4-tiny --save images --save csv",
    "scaled-yolov4 predict 0 --weights model.onnx --max-frames 100",
)
def predict(
    *,
    sources: Annotated[
        list[str], typer.Argument(metavar="SOURCE...", help="Image, folder, glob, list, video, camera, stream, s3://.")
    ],
    weights: Annotated[
        str,
        Option(metavar="FILE|ADDRESS", help="A .safetensors, .onnx, .xml or .engine; default: newest training."),
    ] = "",
    champion: Annotated[str, Option(metavar="MODEL", help="Use the project's champion of this model.")] = "",
    conf: Annotated[float, Option(help="Lowest score, 0 to 1.")] = 0.25,
    iou: Annotated[float, Option(help="IoU threshold for NMS, per class.")] = 0.65,
    max_detections: Annotated[int, Option(help="Detections per image, at most.")] = 300,
    size: Annotated[int | None, Option(help="Longer side of the input, px; default: as trained.")] = None,
    batch: Annotated[int, Option(min=1, help="Images per pass, at most.")] = 1,
    tile: Annotated[int | None, Option(min=1, help="Look at tiles of this side too, px: for small objects.")] = None,
    overlap: Annotated[float, Option(help="Fraction of a tile that neighbours share, at least.")] = 0.2,
    max_frames: Annotated[int | None, Option(min=1, help="Frames of each video, at most.")] = None,
    save: Annotated[
        list[str], Option(help="images, coco, yolo, csv or crops, repeatable; none: only detections.jsonl.")
    ] = ["images"],
    device: Annotated[str, Option(help="auto, cpu, cuda or cuda:N.")] = "auto",
    out: Annotated[Path | None, Option(show_default=str(OUT), help="Folder of the results.")] = None,
    params: ParamsFile = PARAMS,
) -> None:
    """Detect objects in images and videos.

    Writes a line per image to detections.jsonl, and what --save names. The same command continues if interrupted.
    Without --out, results of another detector or other settings go to a new folder.
    """
    from components.files import WEIGHTS
    from components.monitoring.progress import on_stderr
    from components.prediction.run import SAVED, Settings, free_folder, run
    from components.prediction.weights import detector_file
    from components.stage_table import default_paths
    from yolo_core.inference.detector import Detector, checked

    kinds = tuple(name for name in save if name != "none")
    if unknown := [name for name in kinds if name not in SAVED]:
        raise UserError(f"--save {unknown[0]}: give {', '.join(SAVED)} or none")
    with known_as(conf="--conf", iou="--iou", max_detections="--max-detections", size="--size", overlap="--overlap"):
        settings = Settings(checked(conf, iou, max_detections), batch, max_frames, kinds)
        named = champion and parameters.load(params, []).registered_name(known(champion))
        file = detector_file(weights, named, default_paths("train", "*")["out"] / WEIGHTS)
        opened = Detector.load(file, device=device, size=size)
        detector = opened if tile is None else opened.tiled(tile, overlap, max(batch, TILES))
    folder = out or free_folder(OUT, detector, file, settings)
    result = run(detector, file, sources, settings, folder, on_stderr())
    print(f"predict: {facts(result)} -> {folder}")
