"""The files of OpenVINO that the stage `export` writes."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from components.datasets.prepared import load_prepared
from components.deployment.export_report import OPENVINO_FILES, RuntimeRow
from components.params import ExportParams
from yolo_core import progress as progress_
from yolo_core.data.coco import DetectionDataset
from yolo_core.data.loader import val_batches
from yolo_core.deploy import openvino
from yolo_core.evaluate.predict import to_device
from yolo_core.evaluate.tta import Predictor
from yolo_core.models.detector import Detector


@dataclass(frozen=True)
class Calibration:
    """Training images as a quantiser takes them, each (1, 3, size, size) float32; can be iterated over repeatedly."""

    dataset: DetectionDataset
    """The images to calibrate on."""

    size: int
    """H = W of the canvases, px."""

    progress: progress_.Progress
    """Told of every image."""

    def __iter__(self) -> Iterator[Tensor]:
        batches = val_batches(self.dataset, size=self.size, batch=1, rect=False)
        for part in self.progress(batches, "calibrate int8", total=len(batches)):
            yield to_device(part.images, "cpu")


def build_openvino(
    model: Detector,
    out: Path,
    *,
    classes: list[str],
    size: int,
    data: Path,
    settings: ExportParams,
    progress: progress_.Progress,
) -> tuple[dict[openvino.Precision, RuntimeRow], dict[str, Predictor]]:
    """Write the files of a fused detector in the requested precisions.

    data: the prepared dataset, whose training images INT8 is calibrated on.
    Returns by precision what was built or why not, and the built files opened.
    """
    rows: dict[openvino.Precision, RuntimeRow] = {}
    predictors: dict[str, Predictor] = {}
    source = out / OPENVINO_FILES["fp32"]
    for precision in settings.openvino:
        reason = openvino.why_not_made(precision)
        if reason:
            rows[precision] = {"status": "skipped", "reason": reason}
            continue
        if not predictors:
            openvino.convert(model, source, classes=classes, size=size)
        file = out / OPENVINO_FILES[precision]
        if precision == "int8":
            chosen = load_prepared(data, "train").spread(settings.calibration_images)
            openvino.quantise(source, file, Calibration(chosen, size, progress), len(chosen))
        predictors[precision] = openvino.OpenVINOPredictor(file, precision)
        rows[precision] = {"status": "built", "file": file.name}
    return rows, predictors
