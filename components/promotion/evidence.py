"""What a version is judged by: its detections and latency, as registered or measured again on other images."""

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from components.files import DETECTIONS, METRICS, SPEED, WEIGHTS, read_json
from components.params import Params
from components.tracking.model_versions import evidence_of, version_weights
from yolo_core.errors import UserError
from yolo_core.evaluate.detections import Detections
from yolo_core.evaluate.suppression import Suppression
from yolo_core.progress import Progress

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion


@dataclass(frozen=True)
class Evidence:
    """What a version was registered with."""

    detections: Detections
    """On the validation images it was evaluated on."""
    suppression: Suppression | None
    """What they were kept by; None in results of earlier releases."""
    ap: float | None
    """AP (0..1) on those images; None where they have no objects."""
    latency_ms: float | None
    """p50 at batch 1; None when it was not measured, or on a backend whose AP was not."""
    device: object
    """The device of that measurement, as benchmark.json describes it."""


def registered_evidence(client: "MlflowClient", version: "ModelVersion", remedy: str) -> Evidence:
    """The evidence that was stored with a version at its registration. UserError if it is gone; remedy: what to do."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = evidence_of(client, version, Path(temporary), remedy)
        try:
            return _evidence(*(read_json(folder / name) for name in (DETECTIONS, METRICS, SPEED)))
        except (OSError, UserError, LookupError, TypeError, ValueError, AttributeError):
            raise UserError(
                f"{version.name}: the evidence of version {version.version} in its run {version.run_id} is damaged; "
                f"{remedy}"
            ) from None


def _evidence(detections: Any, metrics: Any, benchmark: Any) -> Evidence:
    kept = metrics.get("suppression")
    # Reports of earlier releases have no AP in their rows: their latency may be of something never scored.
    scored = all("ap" in row for row in benchmark["rows"])
    return Evidence(
        detections=Detections.of(detections),
        suppression=Suppression(**kept) if kept else None,
        ap=metrics["plain"].get("AP"),
        latency_ms=benchmark.get("latency_ms_b1") if scored else None,
        device=benchmark.get("device"),
    )


def latency_ratio(champion: Evidence, challenger: Evidence) -> float | None:
    """Challenger / champion; None when one was not measured or they were measured on different devices."""
    if not champion.latency_ms or not challenger.latency_ms or champion.device != challenger.device:
        return None
    return challenger.latency_ms / champion.latency_ms


def detect_again(
    params: Params, version: "ModelVersion", data: Path, suppression: Suppression, progress: Progress
) -> Detections:
    """Detections of a registered version's weights on the current validation images.

    suppression: that of the version it is compared with.
    Classes are matched by name; detections of classes that this dataset does not have are dropped.
    """
    from components.datasets.prepared import load_prepared
    from yolo_core.device import pick_device
    from yolo_core.evaluate.predict import predict
    from yolo_core.evaluate.tta import Plain
    from yolo_core.models.fuse import fuse
    from yolo_core.models.weights import load_detector

    dataset, device = load_prepared(data, "val"), pick_device(params.train.device)
    with tempfile.TemporaryDirectory() as temporary:
        loaded = load_detector(version_weights(version, Path(temporary, WEIGHTS)), device=device)
    ids = dict(zip(dataset.classes, dataset.category_ids, strict=True))
    dataset.category_ids = [ids.get(name, -1) for name in loaded.classes]  # of the classes it detects
    fused = fuse(loaded.model)
    found = predict(
        Plain(fused),
        dataset,
        size=loaded.size,
        batch=params.evaluate.batch,
        suppression=suppression,
        stride=fused.input_stride,
        device=device,
        label="evaluate champion",
        progress=progress,
    )
    return found.where(found.category_id >= 0)
