"""Assignment by anchor ratio: which cells and anchors may predict a target. All targets, anchors and levels at once.

Candidates of a target are all anchors whose sides differ from its own by less than a factor, in the cell of its centre
and in the up to two neighbouring cells nearest to the centre (arXiv 2011.08036; Scaled-YOLOv4's training code).
A coarser assignment takes all four neighbours (the auxiliary heads of arXiv 2207.02696, section 4.2).

Results have a fixed size with a mask instead of a list of matches: nothing waits for the device to count them.
Shapes: L levels, S = 5 cells, A anchors, T targets.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

# Centre, left, above, right, below, as (x, y) steps of one cell.
_STEPS = ((0, 0), (-1, 0), (0, -1), (1, 0), (0, 1))
NEAREST = 0.5  # neighbours within half a cell of the centre: at most two
ALL_AROUND = 1.0  # all four, except for a centre exactly on an edge: the cell beyond is one cell away


@dataclass(frozen=True)
class Assignment:
    """Candidates (L, S, A, T)."""

    valid: Tensor
    """(L, S, A, T) bool: which of them are assigned. The other tensors hold arbitrary cells of the map elsewhere."""
    cells_xy: Tensor
    """(L, S, 1, T, 2) float: column and row."""
    strides: Tensor
    """(L, 1, 1, 1, 1) float: pixels per cell."""
    rows: Tensor
    """(L, S, A, T) int64: index of the prediction in its level's map flattened to (B A H W)."""
    targets: Tensor
    """(T,) or (L, S, A, T) int64: index of the target that a candidate predicts."""


def assign(
    targets: Tensor,
    anchors: Tensor,
    strides: Sequence[int],
    shapes: Sequence[tuple[int, int]],
    ratio: float,
    near: float = NEAREST,
) -> Assignment:
    """The candidates of every target.

    targets: (T, 6) image, class, cx, cy, w, h in pixels; anchors: (L, A, 2) pixels; strides: pixels per cell;
    shapes: (H, W) of each level's map; ratio: sides may differ by less than this factor (hyperparameter anchor_t);
    near: a neighbour is taken when its edge is less than this many cells from the centre.
    """
    stride, size_wh, steps = _constants(tuple(strides), tuple(shapes), targets.device)
    centre_xy = targets[:, 2:4] / stride  # (L, 1, T, 2), in cells
    cells_xy = _clamped(centre_xy.floor() + steps, size_wh)  # (L, S, T, 2)

    fits = _sides_fit(targets[:, 4:6], anchors, ratio)  # (L, A, T)
    near_cells = _near_cells(centre_xy, size_wh, near)  # (L, S, T)
    return Assignment(
        valid=near_cells[:, :, None] & fits[:, None],
        cells_xy=cells_xy[:, :, None],
        strides=stride[..., None],
        rows=_rows(targets[:, 0], cells_xy, size_wh, anchors.shape[1]),
        targets=torch.arange(len(targets), device=targets.device),
    )


@lru_cache(maxsize=64)
def _constants(
    strides: tuple[int, ...], shapes: tuple[tuple[int, int], ...], device: torch.device
) -> tuple[Tensor, Tensor, Tensor]:
    """Strides (L, 1, 1, 1), map sizes as width and height (L, 1, 1, 2), steps (S, 1, 2), float32.

    Cached, because copying numbers to an accelerator waits for it; made outside inference mode, so that a later
    training step may use them.
    """
    with torch.inference_mode(False):
        stride = torch.tensor(strides, dtype=torch.float32, device=device)
        size_wh = torch.tensor([(w, h) for h, w in shapes], dtype=torch.float32, device=device)
        steps = torch.tensor(_STEPS, dtype=torch.float32, device=device)
    return stride[:, None, None, None], size_wh[:, None, None], steps[:, None]


def _sides_fit(wh: Tensor, anchors: Tensor, ratio: float) -> Tensor:
    """(L, A, T): neither side of the target differs from the anchor's by the factor `ratio` or more."""
    r = wh / anchors[:, :, None]
    return torch.maximum(r, 1 / r).amax(-1) < ratio


def _near_cells(centre_xy: Tensor, size_wh: Tensor, near: float) -> Tensor:
    """(L, S, T): the centre's cell, and the neighbours inside the map that are nearer than `near` cells."""
    inside = centre_xy % 1  # 0 at the cell's left or top edge
    before = (inside < near) & (centre_xy > 1)
    after = (inside > 1 - near) & (centre_xy < size_wh - 1)
    own = torch.ones_like(before[..., :1])
    return torch.cat((own, before, after), -1)[:, 0].transpose(1, 2)


def _rows(image: Tensor, cells_xy: Tensor, size_wh: Tensor, anchors: int) -> Tensor:
    """(L, S, A, T): place of image, anchor, row and column in a map flattened to (B A H W)."""
    width, height = size_wh.long()[..., None, :].unbind(-1)  # (L, 1, 1, 1)
    column, row = cells_xy.long()[:, :, None].unbind(-1)  # (L, S, 1, T)
    plane = image.long() * anchors + torch.arange(anchors, device=image.device)[:, None]  # (A, T)
    return (plane * height + row) * width + column


def _clamped(cells_xy: Tensor, size_wh: Tensor) -> Tensor:
    return torch.minimum(cells_xy.clamp(min=0), size_wh - 1)
