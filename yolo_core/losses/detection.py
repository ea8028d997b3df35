"""Detection losses: CIoU boxes, objectness that predicts the IoU, binary cross-entropy classes.

They differ in which predictions are assigned to a target: all that the anchor ratio allows (Scaled-YOLOv4), those of
them that SimOTA chooses (YOLOv7), or its choice for two sets of heads (YOLOv7 with auxiliary heads).
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from yolo_core.boxes import ciou, cxcywh_to_xyxy
from yolo_core.hyperparameters import Hyperparameters
from yolo_core.losses.assign import ALL_AROUND, NEAREST, Assignment, assign
from yolo_core.losses.simota import match
from yolo_core.models.decode import decode_boxes
from yolo_core.models.detector import Detector

_GAIN_LEVELS = 3  # the published gains are for three levels
_GAIN_CLASSES = 80  # for the classes of COCO
_GAIN_SIZE = 640  # and, with SimOTA, for squares of this side in pixels

_TOP = 10  # overlaps that sum to a target's number of predictions
_GUIDED_TOP = 20  # and in training with auxiliary heads, for both sets of heads
_AUXILIARY_WEIGHT = 0.25

Parts = dict[str, Tensor]


def alone(tensor: Tensor) -> Tensor:
    """The mean over a single worker."""
    return tensor


class DetectionLoss:
    """The loss of a model's raw maps; every candidate by anchor ratio is assigned (arXiv 2011.08036).

    hyp: gains `box`, `obj`, `cls` and the largest ratio `anchor_t`. Of the model only anchors, strides, box coding and
    loss constants are read.
    worker_mean: the mean of a tensor over data-parallel workers. Each worker then divides by the candidates of all, so
    that the workers' losses average to the loss of their batches taken together.
    class_weights: (K,) factors of the class loss of a target, by its class; None for 1.
    """

    def __init__(
        self,
        model: Detector,
        hyp: Hyperparameters,
        worker_mean: Callable[[Tensor], Tensor] = alone,
        class_weights: Tensor | None = None,
    ):
        levels = len(model.strides)
        share = _GAIN_LEVELS / levels
        self.model = model
        self.ratio = hyp.anchor_t
        self.worker_mean = worker_mean
        self.class_weights = class_weights
        self.box_gain = hyp.box * share
        self.obj_gain = hyp.obj * share * model.spec.loss.obj_factor
        power = hyp.cls_count_power
        self.cls_gain = hyp.cls * share * model.num_classes**power / _GAIN_CLASSES**power

    def __call__(
        self,
        raw_maps: Sequence[Tensor],
        targets: Tensor,
        counts: Sequence[int] | None = None,
        simota: bool = True,
    ) -> tuple[Tensor, Parts]:
        """The loss of one batch and its parts.

        raw_maps: what `model.training_maps` returns, per level (B, A, H, W, 5+K), any float type;
        targets: (T, 6) image index, class index, cx, cy, w, h in pixels of the batch's canvas; T may be 0.
        counts: targets of each image, for the losses that match image by image; None counts them, which waits for the
        device. simota: whether those losses select among the candidates; if not, all are assigned, as without SimOTA.
        Returns the loss times B (scalar, float32, to be differentiated) and its parts "box", "obj", "cls" per
        image, detached. Computes in float32 whatever the type of the maps.
        """
        parts = self._parts(raw_maps, targets.float(), counts, simota)
        loss = (parts["box"] + parts["obj"] + parts["cls"]) * len(raw_maps[0])
        return loss, {name: part.detach() for name, part in parts.items()}

    def _parts(self, raw_maps: Sequence[Tensor], targets: Tensor, counts: Sequence[int] | None, simota: bool) -> Parts:
        """The weighted parts, to be differentiated."""
        return self._compare(raw_maps, targets, self._candidates(raw_maps, targets, NEAREST))

    def _candidates(self, raw_maps: Sequence[Tensor], targets: Tensor, near: float) -> Assignment:
        shapes = [(raw.shape[2], raw.shape[3]) for raw in raw_maps]
        return assign(targets, self.model.anchors, self.model.strides, shapes, self.ratio, near)

    def _predictions(self, raw_maps: Sequence[Tensor], found: Assignment) -> tuple[Tensor, Tensor]:
        """The predictions at the candidates: boxes cx, cy, w, h in pixels, and logits of objectness and classes.

        Shapes (L, S, A, T, 4) and (L, S, A, T, 1+K).
        """
        rows = found.rows.flatten(1)  # (L, N), N = S A T candidates
        raw = torch.stack([_take(m, r) for m, r in zip(raw_maps, rows, strict=True)])  # (L, N, 5+K)
        raw = raw.view(*found.valid.shape, raw.shape[-1]).float()  # (L, S, A, T, 5+K)
        anchors = self.model.anchors[:, None, :, None]
        boxes = decode_boxes(raw[..., :4], found.cells_xy, anchors, found.strides, self.model.spec.coding)
        return boxes, raw[..., 4:]

    def _compare(self, raw_maps: Sequence[Tensor], targets: Tensor, found: Assignment) -> Parts:
        """Box, objectness and class loss of the assigned predictions, times their gains."""
        boxes, logits = self._predictions(raw_maps, found)
        goals = targets[found.targets]  # (T, 6) or (L, S, A, T, 6)
        valid = found.valid.flatten(1)
        counts = self.worker_mean(valid.sum(1).float())
        overlap = ciou(cxcywh_to_xyxy(boxes), cxcywh_to_xyxy(goals[..., 2:])).flatten(1)  # (L, N)

        box = _mean_of_valid(1 - overlap, valid, counts).sum()
        obj = self._objectness(raw_maps, overlap.detach().clamp(min=0), found.rows.flatten(1), valid)
        cls = self._classes(logits[..., 1:], goals[..., 1], valid, counts)
        return {"box": box * self.box_gain, "obj": obj * self.obj_gain, "cls": cls * self.cls_gain}

    def _objectness(self, raw_maps: Sequence[Tensor], overlap: Tensor, rows: Tensor, valid: Tensor) -> Tensor:
        total = overlap.new_zeros(())
        for level, balance in enumerate(self.model.spec.loss.balance):
            raw = raw_maps[level][..., 4].float()
            goal = _spread(overlap[level], rows[level], valid[level], raw.numel()).view_as(raw)
            total = total + F.binary_cross_entropy_with_logits(raw, goal) * balance
        return total

    def _classes(self, raw: Tensor, class_index: Tensor, valid: Tensor, counts: Tensor) -> Tensor:
        """Mean cross-entropy per level, summed; 0 for a single class, where objectness suffices."""
        if self.model.num_classes == 1:
            return raw.new_zeros(())
        classes = torch.arange(self.model.num_classes, device=raw.device)
        goal = (class_index[..., None] == classes).to(raw.dtype).expand_as(raw)
        entropy = F.binary_cross_entropy_with_logits(raw, goal, reduction="none").mean(-1)
        if self.class_weights is not None:
            entropy = entropy * self.class_weights[class_index.long()]
        return _mean_of_valid(entropy.flatten(1), valid, counts).sum()


class SimOTALoss(DetectionLoss):
    """The same for the candidates that SimOTA chooses (arXiv 2207.02696, as YOLOv7 trains).

    size: pixels, side of the training square; the objectness gain grows with its area.
    """

    def __init__(
        self,
        model: Detector,
        hyp: Hyperparameters,
        size: int,
        worker_mean: Callable[[Tensor], Tensor] = alone,
        class_weights: Tensor | None = None,
    ):
        super().__init__(model, hyp, worker_mean, class_weights)
        self.obj_gain *= (size / _GAIN_SIZE) ** hyp.obj_size_power

    def _parts(self, raw_maps: Sequence[Tensor], targets: Tensor, counts: Sequence[int] | None, simota: bool) -> Parts:
        return self._compare(raw_maps, targets, self._assigned(raw_maps, targets, counts, simota, NEAREST, _TOP))

    @torch.no_grad()
    def _assigned(
        self,
        raw_maps: Sequence[Tensor],
        targets: Tensor,
        counts: Sequence[int] | None,
        simota: bool,
        near: float,
        top: int,
    ) -> Assignment:
        found = self._candidates(raw_maps, targets, near)
        if not simota:
            return found
        boxes, logits = self._predictions(raw_maps, found)
        if counts is None:
            counts = targets_per_image(targets, len(raw_maps[0]))
        return match(found, boxes, logits, targets, counts, top)


class LeadGuidedLoss(SimOTALoss):
    """SimOTA for a model with auxiliary heads: coarse-to-fine lead guided assignment (arXiv 2207.02696, section 4.2).

    Both sets of heads are assigned by the lead heads' predictions: few cells for the lead heads, more for the auxiliary
    heads, whose loss is weighted by a quarter.
    """

    def _parts(self, raw_maps: Sequence[Tensor], targets: Tensor, counts: Sequence[int] | None, simota: bool) -> Parts:
        levels = len(self.model.strides)
        lead, auxiliary = raw_maps[:levels], raw_maps[levels:]
        fine = self._assigned(lead, targets, counts, simota, NEAREST, _GUIDED_TOP)
        coarse = self._assigned(lead, targets, counts, simota, ALL_AROUND, _GUIDED_TOP)
        fine, coarse = self._compare(lead, targets, fine), self._compare(auxiliary, targets, coarse)
        return {name: fine[name] + coarse[name] * _AUXILIARY_WEIGHT for name in fine}


def targets_per_image(targets: Tensor, images: int) -> list[int]:
    """Number of targets (T, 6) of each image of a batch; waits for the device where the targets are on one."""
    return torch.bincount(targets[:, 0].long(), minlength=images).tolist()


def _take(raw_map: Tensor, rows: Tensor) -> Tensor:
    """Predictions (N, 5+K) at `rows` of a map flattened to (B A H W, 5+K).

    An embedding look-up, because its backward pass adds the gradients of a row taken twice in a fixed order, on every
    device; plain indexing adds them in the order in which threads happen to finish.
    """
    return F.embedding(rows, raw_map.reshape(-1, raw_map.shape[-1]))


def _mean_of_valid(values: Tensor, valid: Tensor, counts: Tensor) -> Tensor:
    """(L, N) -> (L,): the sum over valid entries divided by `counts` (L,), 0 where there is none."""
    return torch.where(valid, values, 0).sum(1) / torch.where(counts > 0, counts, 1)


def _spread(values: Tensor, rows: Tensor, valid: Tensor, size: int) -> Tensor:
    """(N,) values at their rows of a vector of `size` zeros.

    When candidates share a row the last one in the order cell, anchor, target wins, on every device, as in the original
    code on a CPU. Invalid candidates and those that lost are written to one extra row.
    """
    order = torch.arange(len(rows), device=rows.device)
    last = order.new_full((size + 1,), -1).scatter_reduce(0, rows.where(valid, size), order, "amax")
    wins = valid & (last[rows] == order)
    return values.new_zeros(size + 1).scatter(0, rows.where(wins, size), values)[:size]
