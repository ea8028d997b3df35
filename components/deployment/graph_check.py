"""Exported graphs against PyTorch: how far their numbers are off, and what that costs in AP."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypedDict

import numpy as np
import torch
from torch import Tensor

from components.params import EvaluateParams
from yolo_core import progress as progress_
from yolo_core.data.coco import DetectionDataset
from yolo_core.data.loader import EvalBatch, val_batches
from yolo_core.deploy.onnx import run_nms
from yolo_core.evaluate.coco_metrics import score
from yolo_core.evaluate.detections import Detections
from yolo_core.evaluate.nms import nms
from yolo_core.evaluate.predict import batch_results, to_device
from yolo_core.evaluate.suppression import Suppression
from yolo_core.evaluate.tta import Predictor

if TYPE_CHECKING:
    from onnxruntime import InferenceSession

BATCH = 4  # images


class ApDifference(TypedDict):
    """AP of a graph and of PyTorch on the same images, 0..1; None where there is no ground truth."""

    ap_pytorch: float | None
    """AP of PyTorch (0..1)."""

    ap: float | None
    """AP of the graph (0..1)."""

    ap_difference: float | None
    """Distance of the two."""


class PredictionDifference(ApDifference):
    """The largest differences of a graph's predictions to PyTorch's."""

    box_error_px: float
    """Largest difference of cx, cy, w and h, px."""

    probability_error: float
    """Largest difference of objectness and class probabilities."""

    relative_error: float
    """The larger of the two, each as a fraction of its range; see `differences`."""


class NmsDifference(ApDifference):
    """How far the detections of a graph with NMS are off PyTorch's."""

    detections: int
    """The most that the graph returned for an image."""

    max_detections: int
    """The most that it may return."""


@dataclass(frozen=True)
class GraphCheck:
    """Measures graphs against PyTorch on validation images, on square canvases of the exported size."""

    dataset: DetectionDataset
    """The images to check on."""

    size: int
    """H = W of the canvases, px."""

    evaluation: EvaluateParams
    """NMS and judge of the AP."""

    progress: progress_.Progress
    """Told of every batch."""

    @torch.no_grad()
    def predictions(
        self, reference: Predictor, candidates: Mapping[str, Predictor], label: str, device: torch.device | str = "cpu"
    ) -> dict[str, PredictionDifference]:
        """For each candidate by name: its differences from the reference, and the AP of both."""
        errors: dict[str, list[tuple[float, float, float]]] = {name: [] for name in candidates}
        got: dict[str, list[Detections]] = {name: [] for name in candidates}
        wanted = []
        suppression = self.evaluation.suppression
        for part, images in self._batches(label, device):
            expected = reference(images).cpu()
            wanted += self._results(part, nms(expected, suppression))
            for name, candidate in candidates.items():
                found = candidate(images).cpu()
                errors[name].append(differences(expected, found))
                got[name] += self._results(part, nms(found, suppression))
        return {name: self._difference(errors[name], wanted, got[name]) for name in candidates}

    @torch.no_grad()
    def detections(
        self, reference: Predictor, session: "InferenceSession", label: str, suppression: Suppression
    ) -> NmsDifference:
        """Compare the exported graph, which contains this NMS, with PyTorch plus our NMS."""
        wanted, got, most = [], [], 0
        for part, images in self._batches(label, "cpu"):
            wanted += self._results(part, nms(reference(images), suppression))
            found = run_nms(session, images)
            got += self._results(part, found)
            most = max(most, *map(len, found))
        return {**self._ap(wanted, got), "detections": most, "max_detections": suppression.max_detections}

    def _batches(self, label: str, device: torch.device | str) -> Iterator[tuple[EvalBatch, Tensor]]:
        batches = val_batches(self.dataset, size=self.size, batch=BATCH, rect=False)
        for part in self.progress(batches, label, total=len(batches)):
            yield part, to_device(part.images, device)

    def _results(self, part: EvalBatch, kept: list[Tensor]) -> list[Detections]:
        return list(batch_results(part, kept, self.dataset).values())

    def _difference(
        self, errors: list[tuple[float, float, float]], wanted: list[Detections], got: list[Detections]
    ) -> PredictionDifference:
        box, probability, relative = np.max(errors, 0).tolist()
        return {
            "box_error_px": box,
            "probability_error": probability,
            "relative_error": relative,
            **self._ap(wanted, got),
        }

    def _ap(self, wanted: list[Detections], got: list[Detections]) -> ApDifference:
        ids, judge = [record.id for record in self.dataset.images], self.evaluation.judge
        expected, found = (
            score(self.dataset.annotation_path, Detections.joined(parts), ids, judge).figures["AP"]
            for parts in (wanted, got)
        )
        difference = None if expected is None or found is None else abs(found - expected)
        return {"ap_pytorch": expected, "ap": found, "ap_difference": difference}


def differences(expected: Tensor, found: Tensor) -> tuple[float, float, float]:
    """The largest differences of two (B, N, 5+K): of boxes in px, of probabilities, and relative.

    Relative is the larger of the two, boxes taken as a fraction of their largest number.
    """
    gap = (expected - found).abs()
    box, probability = gap[..., :4].max().item(), gap[..., 4:].max().item()
    return box, probability, max(box / max(expected[..., :4].abs().max().item(), 1), probability)
