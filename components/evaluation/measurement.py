"""A detector measured on validation images, plain and with test-time augmentation, and the files that show it."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import NotRequired, TypedDict

from components.evaluation.tiles import passes_per_image, predict_tiled
from components.files import CONFUSION, DETECTIONS, METRICS
from components.params import Params
from components.reports import plots
from yolo_core import progress as progress_
from yolo_core.atomic import write_json
from yolo_core.data.coco import DetectionDataset
from yolo_core.device import pick_device
from yolo_core.evaluate.coco_metrics import score
from yolo_core.evaluate.coco_score import CocoScore
from yolo_core.evaluate.confusion import confusion_matrix
from yolo_core.evaluate.detections import Detections
from yolo_core.evaluate.predict import predict
from yolo_core.evaluate.suppression import Suppression
from yolo_core.evaluate.tta import TTA, Plain
from yolo_core.inference.detector import Detector
from yolo_core.inference.runtimes import Runtime
from yolo_core.models.fuse import for_inference
from yolo_core.models.weights import LoadedDetector

Figures = dict[str, float | None]  # COCO figure by name, 0..1; None where there is no ground truth
ClassFigures = TypedDict("ClassFigures", {"class": str, "AP": float | None, "AP50": float | None})


class TiledFigures(TypedDict):
    """Each image seen whole and in tiles: what that gains, and at what cost."""

    figures: Figures
    """The 12 COCO figures."""

    passes_per_image: float
    """Tiles and whole images that the network saw, a mean over the images; 1 without tiles."""


class Metrics(TypedDict):
    """The content of metrics.json."""

    model: str
    """Name of the detector."""

    size: int
    """Longer side of the input, px."""

    strides: list[int]
    """Strides of the detection levels in use, px."""

    images: int
    """Number of validation images."""

    suppression: dict[str, float]
    """The fields of `Suppression` that the detections were made with."""

    plain: Figures
    """The 12 COCO figures."""

    tta: Figures
    """The same with test-time augmentation."""

    tiled: NotRequired[TiledFigures]
    """The same with tiles, where `evaluate.tile` asks for them."""

    per_class: list[ClassFigures]
    """Without test-time augmentation. A list: `dvc metrics show` would give each value of a mapping a column."""


@dataclass(frozen=True)
class Measured:
    """Detections and how they score."""

    detections: Detections
    """Detections on every validation image."""

    score: CocoScore
    """COCO score of these detections."""


@dataclass(frozen=True)
class Measurement:
    """One detector on one set of validation images."""

    loaded: LoadedDetector
    """The detector, at the size it was measured at."""

    dataset: DetectionDataset
    """The validation images."""

    suppression: Suppression
    """Thresholds of NMS in both passes."""

    plain: Measured
    """One pass over each image."""

    tta: Measured
    """The measurement with test-time augmentation."""

    tiled: Measured | None
    """The measurement with tiles, if asked for."""

    passes_per_image: float
    """Tiles and whole images that it took, a mean over the images."""

    def summary(self) -> dict[str, float | None]:
        """The figures that the command line shows."""
        rows = {"": self.plain, " with TTA": self.tta, " with tiles": self.tiled}
        return {
            f"{key}{row}": found.score.figures[key] for row, found in rows.items() if found for key in ("AP", "AP50")
        }

    def metrics(self) -> Metrics:
        """The content of metrics.json."""
        per_class = self.plain.score.per_class
        metrics: Metrics = {
            "model": self.loaded.model.spec.name,
            "size": self.loaded.size,
            "strides": list(self.loaded.model.strides),
            "images": len(self.dataset),
            "suppression": asdict(self.suppression),
            "plain": self.plain.score.figures,
            "tta": self.tta.score.figures,
            "per_class": [{"class": name, "AP": row["AP"], "AP50": row["AP50"]} for name, row in per_class.items()],
        }
        if self.tiled:
            metrics["tiled"] = {"figures": self.tiled.score.figures, "passes_per_image": self.passes_per_image}
        return metrics


def measure(
    loaded: LoadedDetector,
    dataset: DetectionDataset,
    params: Params,
    progress: progress_.Progress = progress_.silent,
) -> Measurement:
    """Detect on every image and score it: the fused model in float32, at `loaded.size`."""
    settings, device = params.evaluate, pick_device(params.train.device)
    fused = for_inference(loaded.model)
    predictors = {"plain": Plain(fused), "tta": TTA(fused, settings.tta.scales, settings.tta.flips)}
    found = {
        row: predict(
            predictor,
            dataset,
            size=loaded.size,
            batch=settings.batch,
            suppression=settings.suppression,
            stride=fused.input_stride,
            device=device,
            label=f"evaluate {row}",
            progress=progress,
        )
        for row, predictor in predictors.items()
    }
    passes = 1.0
    if settings.tile:
        detector = Detector(
            Runtime("PyTorch", Plain(fused), tuple(loaded.classes), loaded.size, fused.input_stride, False, device)
        ).tiled(settings.tile.size, settings.tile.overlap, settings.batch)
        found["tiled"] = predict_tiled(detector, dataset, settings.suppression, progress)
        passes = passes_per_image(detector, dataset)
    measured = {
        row: Measured(detections, score(dataset.annotation_path, detections, judge=settings.judge))
        for row, detections in found.items()
    }
    return Measurement(
        loaded, dataset, settings.suppression, measured["plain"], measured["tta"], measured.get("tiled"), passes
    )


def write(measurement: Measurement, out: Path) -> None:
    """Write metrics.json, detections.json, detections_tta.json, confusion.json and pictures of them to `out`."""
    dataset, plain = measurement.dataset, measurement.plain
    model = measurement.loaded.model.spec.name
    write_json(out / METRICS, measurement.metrics())
    plain.detections.write(out / DETECTIONS)
    measurement.tta.detections.write(out / "detections_tta.json")
    plots.pr_curves(out / "pr_curve.png", plain.score, f"{model}: precision and recall at IoU .50")
    matrix = confusion_matrix(dataset, plain.detections)
    names = [*dataset.classes, "background"]
    write_json(out / CONFUSION, {"categories": names, "matrix": matrix.tolist()})
    plots.confusion(out / "confusion.png", matrix, dataset.classes, f"{model}: score from .25, IoU from .45")
    plots.sample_sheet(out / "samples.jpg", dataset, plain.detections)
