"""Box formats and the IoU family.

A box is four numbers in the last dimension; names carry the format: `xyxy` two corners, `cxcywh` centre and size,
`xywh` top left corner and size (COCO). The conversions take NumPy arrays and torch tensors alike and keep the unit.
"""

import math
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

Boxes = TypeVar("Boxes", Tensor, np.ndarray)

# Keeps the quotients of empty boxes finite; far below the area of a pixel.
_EPS = 1e-9


def cxcywh_to_xyxy(cxcywh: Boxes) -> Boxes:
    """(..., 4) centre and size -> (..., 4) corners."""
    centre, half = cxcywh[..., :2], cxcywh[..., 2:] / 2
    return _joined(centre - half, centre + half)


def xyxy_to_cxcywh(xyxy: Boxes) -> Boxes:
    """(..., 4) corners -> (..., 4) centre and size."""
    low, high = xyxy[..., :2], xyxy[..., 2:]
    return _joined((low + high) / 2, high - low)


def xywh_to_xyxy(xywh: Boxes) -> Boxes:
    """(..., 4) top left corner and size -> (..., 4) corners."""
    low = xywh[..., :2]
    return _joined(low, low + xywh[..., 2:])


def xyxy_to_xywh(xyxy: Boxes) -> Boxes:
    """(..., 4) corners -> (..., 4) top left corner and size."""
    low = xyxy[..., :2]
    return _joined(low, xyxy[..., 2:] - low)


def cxcywh_to_xywh(cxcywh: Boxes) -> Boxes:
    """(..., 4) centre and size -> (..., 4) top left corner and size."""
    size = cxcywh[..., 2:]
    return _joined(cxcywh[..., :2] - size / 2, size)


def xywh_to_cxcywh(xywh: Boxes) -> Boxes:
    """(..., 4) top left corner and size -> (..., 4) centre and size."""
    size = xywh[..., 2:]
    return _joined(xywh[..., :2] + size / 2, size)


def _joined(first: Boxes, second: Boxes) -> Boxes:
    if isinstance(first, Tensor) and isinstance(second, Tensor):
        return torch.cat((first, second), -1)
    return np.concatenate((first, second), -1)


def iou(a_xyxy: Tensor, b_xyxy: Tensor) -> Tensor:
    """Intersection over union of pairs of boxes.

    a_xyxy, b_xyxy: (..., 4), broadcast against each other, one unit. Returns (...), 0 to 1; 0 when both are empty.
    """
    overlap, union = _overlap_and_union(a_xyxy, b_xyxy)
    return overlap / (union + _EPS)


def giou(a_xyxy: Tensor, b_xyxy: Tensor) -> Tensor:
    """Generalized IoU (arXiv 1902.09630), -1 to 1: the IoU less the share of the hull that is in neither box."""
    overlap, union = _overlap_and_union(a_xyxy, b_xyxy)
    hull = _hull_size(a_xyxy, b_xyxy).prod(-1) + _EPS
    return overlap / (union + _EPS) - (hull - union) / hull


def diou(a_xyxy: Tensor, b_xyxy: Tensor) -> Tensor:
    """Distance IoU (arXiv 1911.08287), -1 to 1: the IoU less (distance of the centres / diagonal of the hull)^2."""
    return iou(a_xyxy, b_xyxy) - _centre_distance(a_xyxy, b_xyxy)


def ciou(a_xyxy: Tensor, b_xyxy: Tensor) -> Tensor:
    """Complete IoU (arXiv 1911.08287): the distance IoU less alpha v, where v measures the difference in aspect ratio.

    alpha = v / (1 - IoU + v) is a weight: no gradient flows through it.
    """
    overlap = iou(a_xyxy, b_xyxy)
    v = (4 / math.pi**2) * (_aspect_angle(a_xyxy) - _aspect_angle(b_xyxy)) ** 2
    with torch.no_grad():
        alpha = v / (1 - overlap + v + _EPS)
    return overlap - _centre_distance(a_xyxy, b_xyxy) - alpha * v


def box_iou(a_xyxy: Tensor, b_xyxy: Tensor) -> Tensor:
    """IoU of every box with every other: (N, 4), (M, 4) -> (N, M)."""
    return iou(a_xyxy[:, None], b_xyxy[None])


def _area(xyxy: Tensor) -> Tensor:
    return (xyxy[..., 2] - xyxy[..., 0]) * (xyxy[..., 3] - xyxy[..., 1])


def _overlap_and_union(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    sides = torch.minimum(a[..., 2:], b[..., 2:]) - torch.maximum(a[..., :2], b[..., :2])
    overlap = sides.clamp(min=0).prod(-1)
    return overlap, _area(a) + _area(b) - overlap


def _hull_size(a: Tensor, b: Tensor) -> Tensor:
    return torch.maximum(a[..., 2:], b[..., 2:]) - torch.minimum(a[..., :2], b[..., :2])


def _centre_distance(a: Tensor, b: Tensor) -> Tensor:
    """Squared distance of the centres over the squared diagonal of the hull."""
    shift = (a[..., :2] + a[..., 2:] - b[..., :2] - b[..., 2:]) / 2
    return shift.square().sum(-1) / (_hull_size(a, b).square().sum(-1) + _EPS)


def _aspect_angle(xyxy: Tensor) -> Tensor:
    return torch.atan((xyxy[..., 2] - xyxy[..., 0]) / (xyxy[..., 3] - xyxy[..., 1] + _EPS))
