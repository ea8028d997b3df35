"""The detection loss of Scaled-YOLOv4: CIoU boxes, objectness that predicts the IoU, binary cross-entropy classes."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from yolo_core.boxes import ciou, cxcywh_to_xyxy
from yolo_core.hyperparameters import Hyperparameters
from yolo_core.losses.assign import assign
from yolo_core.models.decode import decode_boxes
from yolo_core.models.detector import Detector

_GAIN_LEVELS = 3  # the published gains are for three levels
_GAIN_CLASSES = 80  # and for the classes of COCO


class DetectionLoss:
    """How far a model's raw maps are from the targets.

    hyp: gains `box`, `obj`, `cls` and the largest ratio `anchor_t`. The model is only read: its anchors, strides,
    box coding and loss constants.
    worker_mean: the mean of a tensor over data-parallel workers. Each worker then divides by the candidates of all,
    so that the workers' losses average to the loss of their batches taken together.
    """

    def __init__(
        self, model: Detector, hyp: Hyperparameters, worker_mean: Callable[[Tensor], Tensor] = lambda tensor: tensor
    ):
        levels = len(model.strides)
        share = _GAIN_LEVELS / levels
        self.model = model
        self.ratio = hyp.anchor_t
        self.worker_mean = worker_mean
        self.box_gain = hyp.box * share
        self.obj_gain = hyp.obj * share * model.spec.loss.obj_factor
        self.cls_gain = hyp.cls * share * model.num_classes / _GAIN_CLASSES

    def __call__(self, raw_maps: Sequence[Tensor], targets: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss of one batch and its parts.

        raw_maps: per level (B, A, H, W, 5+K), any float type; targets: (T, 6) image index, class index,
        cx, cy, w, h in pixels of the batch's canvas; T may be 0.
        Returns the loss times B (scalar, float32, to be differentiated) and its parts "box", "obj", "cls" per image,
        detached. Works in float32 whatever the type of the maps.
        """
        model = self.model
        targets = targets.float()
        shapes = [(raw.shape[2], raw.shape[3]) for raw in raw_maps]
        found = assign(targets, model.anchors, model.strides, shapes, self.ratio)
        rows = found.rows.flatten(1)  # (L, N), N = S A T candidates
        valid = found.valid.flatten(1)
        counts = self.worker_mean(valid.sum(1).float())
        raw = torch.stack([_take(m, r) for m, r in zip(raw_maps, rows, strict=True)])  # (L, N, 5+K)
        raw = raw.view(*found.valid.shape, raw.shape[-1]).float()  # (L, S, A, T, 5+K)

        anchors = model.anchors[:, None, :, None]
        boxes = decode_boxes(raw[..., :4], found.cells_xy, anchors, found.strides, model.spec.coding)
        overlap = ciou(cxcywh_to_xyxy(boxes), cxcywh_to_xyxy(targets[:, 2:])).flatten(1)  # (L, N)

        box = _mean_of_valid(1 - overlap, valid, counts).sum() * self.box_gain
        obj = self._objectness(raw_maps, overlap.detach().clamp(min=0), rows, valid) * self.obj_gain
        cls = self._classes(raw[..., 5:], targets[:, 1], valid, counts) * self.cls_gain
        parts = {"box": box.detach(), "obj": obj.detach(), "cls": cls.detach()}
        return (box + obj + cls) * raw_maps[0].shape[0], parts

    def _objectness(self, raw_maps: Sequence[Tensor], overlap: Tensor, rows: Tensor, valid: Tensor) -> Tensor:
        total = overlap.new_zeros(())
        for level, balance in enumerate(self.model.spec.loss.balance):
            raw = raw_maps[level][..., 4].float()
            goal = _spread(overlap[level], rows[level], valid[level], raw.numel()).view_as(raw)
            total = total + F.binary_cross_entropy_with_logits(raw, goal) * balance
        return total

    def _classes(self, raw: Tensor, class_index: Tensor, valid: Tensor, counts: Tensor) -> Tensor:
        """Mean cross-entropy per level, summed; 0 for a single class, which objectness already tells."""
        if self.model.num_classes == 1:
            return raw.new_zeros(())
        goal = F.one_hot(class_index.long(), self.model.num_classes).to(raw.dtype).expand_as(raw)
        entropy = F.binary_cross_entropy_with_logits(raw, goal, reduction="none").mean(-1).flatten(1)
        return _mean_of_valid(entropy, valid, counts).sum()


def _take(raw_map: Tensor, rows: Tensor) -> Tensor:
    """Predictions (N, 5+K) at `rows` of a map flattened to (B A H W, 5+K).

    An embedding look-up, because its backward adds the gradients of a row taken twice in a fixed order, on every
    device; plain indexing adds them in the order threads happen to finish.
    """
    return F.embedding(rows, raw_map.reshape(-1, raw_map.shape[-1]))


def _mean_of_valid(values: Tensor, valid: Tensor, counts: Tensor) -> Tensor:
    """(L, N) -> (L,): the sum over valid entries divided by `counts` (L,), 0 where there is none."""
    return torch.where(valid, values, 0).sum(1) / torch.where(counts > 0, counts, 1)


def _spread(values: Tensor, rows: Tensor, valid: Tensor, size: int) -> Tensor:
    """(N,) values at their rows of a vector of `size` zeros.

    When candidates share a row the last one in the order cell, anchor, target holds it, on every device: as the
    original's assignment does on a CPU. Invalid candidates and those that lost write into one extra row.
    """
    order = torch.arange(len(rows), device=rows.device)
    last = order.new_full((size + 1,), -1).scatter_reduce(0, rows.where(valid, size), order, "amax")
    wins = valid & (last[rows] == order)
    return values.new_zeros(size + 1).scatter(0, rows.where(wins, size), values)[:size]
