"""Decodes raw maps into boxes in pixels. Pure functions, shared by the loss, evaluation, export and serving."""

from collections.abc import Sequence

import torch
from torch import Tensor

from yolo_core.models.detector import Detector
from yolo_core.models.spec import BoxCoding


def decode(raw_maps: Sequence[Tensor], model: Detector) -> Tensor:
    """All predictions of a batch.

    raw_maps: per level (B, A, H, W, 5+K), as returned by `model`.
    Returns (B, N, 5+K) float32: cx, cy, w, h in input pixels, objectness and class probabilities (0 to 1).
    N is ordered by level (finest first), then anchor, row and column.
    """
    levels = zip(raw_maps, model.anchors, model.strides, strict=True)
    return torch.cat([_decode_level(raw.float(), wh, stride, model.spec.coding) for raw, wh, stride in levels], 1)


def _decode_level(raw: Tensor, anchors_wh: Tensor, stride: int, coding: BoxCoding) -> Tensor:
    height, width = raw.shape[2:4]
    columns = torch.arange(width, device=raw.device, dtype=raw.dtype)
    rows = torch.arange(height, device=raw.device, dtype=raw.dtype)
    cells_xy = torch.stack(torch.meshgrid(columns, rows, indexing="xy"), -1)  # (H, W, 2)
    sigmoids = raw.contiguous().sigmoid()  # one call: per part it is slower and rounds differently
    boxes = _boxes(sigmoids[..., :4], raw[..., 2:4], cells_xy, anchors_wh[:, None, None], stride, coding)
    return torch.cat((boxes, sigmoids[..., 4:]), -1).flatten(1, 3)


def decode_boxes(
    raw_xywh: Tensor, cells_xy: Tensor, anchors_wh: Tensor, strides: Tensor | int, coding: BoxCoding
) -> Tensor:
    """Boxes of individual predictions.

    raw_xywh: (..., 4); cells_xy: (..., 2) column and row; anchors_wh: (..., 2) pixels; strides: pixels per cell;
    all broadcast. Returns (..., 4): cx, cy, w, h in pixels.
    """
    return _boxes(raw_xywh.sigmoid(), raw_xywh[..., 2:], cells_xy, anchors_wh, strides, coding)


def _boxes(
    sigmoids_xywh: Tensor,
    raw_wh: Tensor,
    cells_xy: Tensor,
    anchors_wh: Tensor,
    strides: Tensor | int,
    coding: BoxCoding,
) -> Tensor:
    offset_xy = sigmoids_xywh[..., :2] * coding.scale_xy - (coding.scale_xy - 1) / 2
    factor_wh = (sigmoids_xywh[..., 2:] * 2).square() if coding.wh == "sigmoid" else raw_wh.exp()
    return torch.cat(((offset_xy + cells_xy) * strides, factor_wh * anchors_wh), -1)
