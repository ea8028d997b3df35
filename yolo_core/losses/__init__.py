"""What training minimises: which predictions are assigned to which box, and how wrong they are."""

from collections.abc import Callable

from torch import Tensor

from yolo_core.errors import UserError
from yolo_core.hyperparameters import Hyperparameters
from yolo_core.losses.detection import DetectionLoss, LeadGuidedLoss, SimOTALoss, alone, targets_per_image
from yolo_core.models.detector import Detector

__all__ = ["make_loss", "targets_per_image"]


def make_loss(
    model: Detector,
    hyp: Hyperparameters,
    *,
    size: int,
    worker_mean: Callable[[Tensor], Tensor] = alone,
    class_weights: Tensor | None = None,
) -> DetectionLoss:
    """The loss of the model's recipe, `model.spec.loss.kind`.

    hyp: gains and largest anchor ratio; size: pixels, side of the training square; worker_mean, class_weights: see
    `DetectionLoss`.
    Raises UserError where the loss and the model's heads do not go together.
    """
    kind = model.spec.loss.kind
    if (kind == "lead-guided") != (model.auxiliary is not None):
        heads = "has no auxiliary heads" if model.auxiliary is None else "has auxiliary heads"
        raise UserError(
            f"{model.spec.name}: loss {kind!r} on a model that {heads}; auxiliary heads and the loss 'lead-guided' "
            "go together"
        )
    if kind == "anchor-ratio":
        return DetectionLoss(model, hyp, worker_mean, class_weights)
    loss = LeadGuidedLoss if kind == "lead-guided" else SimOTALoss
    return loss(model, hyp, size, worker_mean, class_weights)
