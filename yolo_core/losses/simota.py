"""SimOTA assignment: an image's targets compete for its candidates by how well their predictions already fit.

arXiv 2107.08430, section 2.1 (SimOTA), on the candidates by anchor ratio of `yolo_core.losses.assign`, as YOLOv7
trains (arXiv 2207.02696, section 4.2). A target takes its k cheapest candidates of all in the image, k being the sum
of its best overlaps; a candidate that several targets take goes to the target of the image to which it is cheapest.
A prediction that is a candidate of several targets takes part several times, as in the authors' training.

Images are matched in padded groups, the most crowded first, so that a group is as wide as its images need.
Shapes: B images of a group, M targets of its most crowded image, Q = L S A candidates of a target,
C = Q M candidates of an image, in the order of the assignment; T targets of the batch.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from yolo_core.boxes import cxcywh_to_xyxy, iou
from yolo_core.losses.assign import Assignment

GROUP_MEMORY = 64 * 2**20  # bytes to match a group of images in; an image that needs more is its own group
_PAIR_BYTES = 36  # at the peak, for a target and a candidate
_CLASS_BYTES = 24  # for a candidate and a class
_OVERLAP_WEIGHT = 3.0  # of -log IoU beside the cross-entropy of the classes
_TOUCH = 1e-8  # added to the IoU: the cost of boxes that are apart stays finite


@torch.no_grad()
def match(
    found: Assignment, boxes_cxcywh: Tensor, logits: Tensor, targets: Tensor, counts: Sequence[int], top: int
) -> Assignment:
    """The candidates that are taken, each assigned to the target that takes it.

    found: candidates (L, S, A, T); boxes_cxcywh: (L, S, A, T, 4) their predicted boxes in pixels;
    logits: (L, S, A, T, 1+K) their objectness and classes before the sigmoid;
    targets: (T, 6) image, class, cx, cy, w, h in pixels, those without area take nothing;
    counts: targets of each image of the batch, on the host so that nothing waits for the device;
    top: how many of a target's best overlaps sum to its k.
    Ties in cost go to the first candidate in the order of `found`, and to the first target.
    """
    shape = found.valid.shape
    valid, boxes, logits = (x.flatten(0, 2) for x in (found.valid, boxes_cxcywh, logits))  # (Q, T, ...)
    has_area = (targets[:, 4:] > 0).all(-1)
    answers = torch.full((len(valid), len(targets) + 1), -1, device=targets.device)  # padding writes to the last
    for members, present in _groups(targets[:, 0].long(), counts, len(valid), logits.shape[-1]):
        overlap = _overlaps(targets[members], _of_images(boxes, members))  # (B, M, C)
        cost = _class_costs(targets[members, 1].long(), _of_images(logits, members))
        cost -= _OVERLAP_WEIGHT * (overlap + _TOUCH).log()
        competing = present & has_area[members]  # (B, M)
        usable = _of_images(valid, members) & competing.repeat(1, len(valid))  # (B, C)
        possible = usable[:, None] & competing[..., None]
        takers = _takers(overlap.where(possible, 0), cost.where(possible, torch.inf), top)  # (B, C)
        taken_by = members.gather(1, takers.clamp(min=0)).where(takers >= 0, -1)
        answers[:, members.where(present, len(targets))] = taken_by.unflatten(1, (len(valid), -1)).transpose(0, 1)
    answers = answers[:, :-1].reshape(shape)
    return replace(found, valid=answers >= 0, targets=answers.clamp(min=0))


def _groups(image: Tensor, counts: Sequence[int], per_target: int, outputs: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Targets of a group's images: (B, M) indices, and a mask that is false for padding.

    image: (T,) index of each target's image. The host knows the order that the device sorts into from `counts`.
    """
    order = image.argsort(stable=True)
    per_image = (image == torch.arange(len(counts), device=image.device)[:, None]).sum(1)
    starts = per_image.cumsum(0) - per_image
    crowded_first = per_image.argsort(descending=True, stable=True)
    sizes = sorted(counts, reverse=True)
    first = 0
    while first < len(sizes) and sizes[first]:
        most = sizes[first]
        needed = per_target * most * (most * _PAIR_BYTES + outputs * _CLASS_BYTES)
        group = crowded_first[first : first + max(GROUP_MEMORY // needed, 1)]
        rank = torch.arange(most, device=image.device)
        present = rank < per_image[group, None]
        yield order[(starts[group, None] + rank).clamp(max=len(order) - 1)], present
        first += len(group)


def _of_images(values: Tensor, members: Tensor) -> Tensor:
    """(Q, T, ...) per target -> (B, C, ...) per image."""
    return values[:, members].transpose(0, 1).flatten(1, 2)


def _overlaps(seekers: Tensor, boxes_cxcywh: Tensor) -> Tensor:
    """IoU (B, M, C) of targets (B, M, 6) with predicted boxes (B, C, 4)."""
    wanted, offered = cxcywh_to_xyxy(seekers[:, :, None, 2:]), cxcywh_to_xyxy(boxes_cxcywh[:, None])
    # One coordinate after the other in memory, so that vector instructions run over the candidates.
    wanted, offered = (corners.movedim(-1, 0).contiguous().movedim(0, -1) for corners in (wanted, offered))
    return iou(wanted, offered)


def _class_costs(class_index: Tensor, logits: Tensor) -> Tensor:
    """(B, M, C): cross-entropy of sqrt(class probability x objectness), summed over the classes.

    class_index: (B, M); logits: (B, C, 1+K). Computed as the cost with every class wrong, once per candidate, less that
    of the target's own class wrong, plus that of it right: no tensor has both targets and classes.
    """
    probability = logits.transpose(1, 2).contiguous().sigmoid()  # (B, 1+K, C)
    score = (probability[:, :1] * probability[:, 1:]).sqrt()
    score = score.clamp(torch.finfo(score.dtype).tiny, 1 - torch.finfo(score.dtype).eps)  # finite logarithms
    all_wrong = -(-score).log1p().sum(1, keepdim=True)  # (B, 1, C)
    own = score[torch.arange(len(score), device=score.device)[:, None], class_index]  # (B, M, C)
    return all_wrong + (-own).log1p() - own.log()


def _takers(overlap: Tensor, cost: Tensor, top: int) -> Tensor:
    """(B, C): which of an image's targets takes the candidate, -1 for none.

    overlap: (B, M, C), 0 for pairs that cannot be; cost: (B, M, C), infinite for them.
    """
    top = min(top, cost.shape[-1])
    k = overlap.topk(top).values.sum(-1, keepdim=True).int().clamp(1, top)  # (B, M, 1)
    taken = _cheapest(cost, k, top)
    times = taken.sum(1)  # (B, C)
    open_to = taken | (times > 1)[:, None]
    return cost.where(open_to, torch.inf).argmin(1).where(times > 0, -1)


def _cheapest(cost: Tensor, k: Tensor, top: int) -> Tensor:
    """(B, M, C): the k (B, M, 1) cheapest candidates of each target, at most `top`; of equal ones the first.

    Chosen by the value of the k-th, because which of equal elements `topk` returns depends on the device.
    """
    limit = cost.topk(top, largest=False).values.gather(-1, k.long() - 1)
    below, equal = cost < limit, cost == limit
    first_equal = equal & (equal.cumsum(-1, dtype=torch.int32) <= k - below.sum(-1, keepdim=True))
    return (below | first_equal) & limit.isfinite()
