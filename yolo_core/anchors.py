"""Anchor fitting: the ratio metric, whitened k-means and genetic refinement, in NumPy.

The ratio metric of a box and an anchor is min(w / aw, aw / w, h / ah, ah / h): 1 for equal, towards 0 for unlike sides.
In logarithms it is exp(-d), d the larger of the two side differences; everything below works there, where a candidate
costs one subtraction and one comparison per side.

Shapes: N boxes, A anchors in all. Boxes and anchors are (w, h) in pixels at the training size.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike, NDArray

from yolo_core.data.coco import DetectionDataset
from yolo_core.errors import BadFile

if TYPE_CHECKING:
    from yolo_core.models.spec import ModelSpec

Array = NDArray[np.floating]

MIN_SIDE_PX = 2.0  # boxes with both sides below it are ignored, and no anchor side is smaller
ENOUGH_RECALL = 0.98  # below it, too many boxes match no anchor (authors' repository, autoanchor)
MIN_LOG_SIDE = np.float32(np.log(MIN_SIDE_PX))
GRID_STEP = 0.045  # in ln(side): boxes closer than this are scored as one weighted point
GRID_FROM = 4096  # boxes; fewer are cheap enough to score one by one
STARTS = 12  # restarts: refinement ends in one of many local optima; the best is kept
GROWTH = 1.5  # factor on the mutation spread at each success
MIN_SPREAD = 0.003  # in ln(side)
KMEANS_SAMPLE = 4000  # boxes sampled for each start, plenty for its centres
BLOCK = 8192  # boxes scored at a time, to stay within the CPU cache


@dataclass(frozen=True)
class Quality:
    """How well a set of anchors fits a set of boxes, both 0 to 1."""

    fitness: float
    """Mean over boxes of the best ratio, counted as 0 where it does not exceed 1 / anchor_t."""
    recall: float
    """Fraction of boxes whose best ratio exceeds 1 / anchor_t (best possible recall)."""


@dataclass(frozen=True)
class FitSettings:
    """Settings of k-means and of the refinement."""

    kmeans_iterations: int = 30
    """Maximum iterations of k-means."""
    generations: int = 1000
    """Generations of refinement from each start."""
    mutation_probability: float = 0.05
    """Probability that a generation changes an anchor."""
    mutation_sigma: float = 0.3
    """Largest standard deviation of the changes, in ln(side)."""


def training_boxes(dataset: DetectionDataset, size: int) -> Array:
    """(N, 2) w, h in px of the boxes usable for fitting, with every image's longer side scaled to `size`."""
    sides = [
        (labels[:, 3:5] - labels[:, 1:3]) * (size / max(image.width, image.height))
        for image, labels in zip(dataset.images, dataset.labels, strict=True)
    ]
    return usable(np.concatenate(sides)) if sides else np.empty((0, 2))


def best_ratio(boxes_wh: ArrayLike, anchors_wh: ArrayLike) -> Array:
    """(N,) the ratio metric of every box to its best anchor, for (N, 2) boxes and (A, 2) anchors, sides above 0."""
    return np.exp(-_distance(_log_columns(boxes_wh), _log_columns(anchors_wh)))


def quality(boxes_wh: ArrayLike, anchors_wh: ArrayLike, anchor_t: float = 4.0) -> Quality:
    """Fitness and best possible recall of (A, 2) anchors on (N, 2) boxes, N > 0."""
    ratio = best_ratio(boxes_wh, anchors_wh)
    near = ratio > 1 / anchor_t
    return Quality(fitness=float(np.mean(ratio * near)), recall=float(np.mean(near)))


def better(first: Quality, second: Quality) -> bool:
    """Whether `first` is strictly better than `second`.

    Recall decides while either is below `ENOUGH_RECALL`, fitness otherwise.
    """
    if min(first.recall, second.recall) < ENOUGH_RECALL and first.recall != second.recall:
        return first.recall > second.recall
    return first.fitness > second.fitness


def usable(boxes_wh: ArrayLike) -> Array:
    """The (N', 2) boxes large enough to fit anchors to: at least one side >= `MIN_SIDE_PX`, none 0."""
    boxes = np.asarray(boxes_wh, np.float64).reshape(-1, 2)
    return boxes[(boxes > 0).all(axis=1) & (boxes >= MIN_SIDE_PX).any(axis=1)]


@dataclass(frozen=True)
class Choice:
    """The better of the published anchors and those fitted to a dataset."""

    levels: list[Array]
    """Per level (A, 2) px at the training size, finest first."""
    fitted: bool
    """Whether they are the fitted ones."""
    published_quality: Quality
    """Of the published anchors, scaled to the training size."""
    fitted_quality: Quality | None
    """Of the fitted ones; None if there were too few different boxes to fit any."""
    boxes: int
    """Number of boxes they were compared on."""


def choose(
    spec: "ModelSpec", dataset: DetectionDataset, size: int, *, anchor_t: float, settings: FitSettings, seed: int
) -> Choice:
    """Fit anchors to the training boxes at `size` px, and keep the published ones unless the fitted are better.

    Raises UserError when the dataset holds no usable box.
    """
    boxes = training_boxes(dataset, size)
    if not len(boxes):
        raise BadFile(f"{dataset.annotation_path}: no boxes to train on")
    published = [np.array(level) for level in spec.anchors_at(size)]
    fitted = fit(boxes, [len(level) for level in spec.anchors], anchor_t=anchor_t, settings=settings, seed=seed)
    before = quality(boxes, np.concatenate(published), anchor_t)
    after = quality(boxes, np.concatenate(fitted), anchor_t) if fitted else None
    use_fitted = fitted is not None and after is not None and better(after, before)
    levels = fitted if use_fitted and fitted else published
    return Choice([level.round(2) for level in levels], use_fitted, before, after, len(boxes))


def fit(
    boxes_wh: ArrayLike,
    levels: Sequence[int],
    *,
    anchor_t: float = 4.0,
    settings: FitSettings | None = None,
    seed: int = 0,
) -> list[Array] | None:
    """Anchors for a detector whose pyramid has `levels` anchors per level, finest level first.

    boxes_wh: (N, 2) px.  Returns one (levels[i], 2) array per level, sorted by area over all levels, rounded to
    0.01 px; None if there are fewer distinct boxes than anchors, so that there is nothing to fit.
    """
    settings = settings or FitSettings()
    boxes = np.maximum(usable(boxes_wh), 1e-3)
    count = sum(levels)
    if len(np.unique(boxes @ (1, 1j))) < count:
        return None
    rng = np.random.default_rng(seed)
    tries = [_fit_once(boxes, count, anchor_t, settings, rng) for _ in range(STARTS)]
    anchors = max(tries, key=lambda found: quality(boxes, found, anchor_t).fitness)
    anchors = anchors[np.argsort(anchors.prod(axis=1), kind="stable")]
    return np.split(anchors, np.cumsum(levels)[:-1])


def _fit_once(boxes: Array, count: int, anchor_t: float, settings: FitSettings, rng: np.random.Generator) -> Array:
    sample = rng.choice(boxes, min(KMEANS_SAMPLE, len(boxes)), replace=False)
    start = np.maximum(kmeans(sample, count, iterations=settings.kmeans_iterations, rng=rng), MIN_SIDE_PX)
    return refine(boxes, start, anchor_t=anchor_t, settings=settings, rng=rng).round(2)


def kmeans(boxes_wh: ArrayLike, count: int, *, iterations: int, rng: np.random.Generator) -> Array:
    """(count, 2) centres of (N, 2) boxes: Lloyd's iterations on sides divided by their standard deviation.

    Starts from k-means++ seeds. An empty cluster is re-initialised at the box farthest from its centre.
    """
    boxes = np.asarray(boxes_wh, np.float64)
    spread = boxes.std(axis=0)
    spread[spread == 0] = 1
    points = np.ascontiguousarray((boxes / spread).T, dtype=np.float32)
    centres = _spread_seeds(points, count, rng)
    for _ in range(iterations):
        distance, nearest = _nearest(points, centres)
        members = np.bincount(nearest, minlength=count)
        sums = np.stack([np.bincount(nearest, weights=side, minlength=count) for side in points])
        moved = (sums / np.maximum(members, 1)).astype(np.float32)
        empty = np.flatnonzero(members == 0)
        moved[:, empty] = points[:, np.argsort(distance)[len(distance) - len(empty) :]]
        if np.array_equal(moved, centres):
            break
        centres = moved
    return centres.T.astype(np.float64) * spread


def refine(
    boxes_wh: ArrayLike, anchors_wh: ArrayLike, *, anchor_t: float, settings: FitSettings, rng: np.random.Generator
) -> Array:
    """(A, 2) anchors after generations of mutation, each kept if it improves fitness; never worse than those given.

    Generations are scored on a grid of ln(w), ln(h) that holds the boxes as weighted points; a generation changes some
    anchors, and only their distances are recomputed. The spread of the changes adapts: it grows with a success and
    shrinks with a failure, so that one success in five keeps it constant (Rechenberg's rule).
    """
    boxes = _log_columns(boxes_wh)
    weights = np.ones(boxes.shape[1], np.float32)
    points, weights = _grid(boxes) if len(weights) > GRID_FROM else (boxes, weights)
    limit = float(np.log(anchor_t))
    anchors = _log_columns(anchors_wh).T  # (A, 2)
    distances = _distances(points, anchors)
    best, spread = _fitness(distances, weights, limit), settings.mutation_sigma
    for changed, direction in zip(*_mutations(len(anchors), settings, rng), strict=True):
        candidates = np.maximum(anchors[changed] + np.float32(spread) * direction[changed], MIN_LOG_SIDE)
        before, distances[changed] = distances[changed], _distances(points, candidates)
        fitness = _fitness(distances, weights, limit)
        if fitness > best:
            anchors[changed], best = candidates, fitness
            spread = min(spread * GROWTH, settings.mutation_sigma)
        else:
            distances[changed] = before
            spread *= GROWTH**-0.25
            if spread < MIN_SPREAD:  # nothing more to gain nearby: widen the search again
                spread = settings.mutation_sigma
    start, found = np.asarray(anchors_wh, np.float64), np.exp(anchors.astype(np.float64))
    return max(start, found, key=lambda sides: quality(boxes_wh, sides, anchor_t).fitness)


def _mutations(count: int, settings: FitSettings, rng: np.random.Generator) -> tuple[Array, Array]:
    """Anchors each generation changes, (generations, count), at least one; directions, (generations, count, 2)."""
    draw = rng.random((settings.generations, count))
    changed = draw <= np.maximum(settings.mutation_probability, draw.min(axis=1, keepdims=True))
    return changed, rng.standard_normal((settings.generations, count, 2), np.float32)


def _distances(points: Array, anchors: Array) -> Array:
    """(A, N) larger side difference between each of (A, 2) anchors and each of (2, N) points, all in logarithms."""
    wide, high = np.abs(points[:, None] - anchors.T[:, :, None])
    return np.maximum(wide, high, out=wide)


def _fitness(distances: Array, weights: Array, limit: float) -> float:
    """Weighted mean over points of exp(-distance) to the nearest anchor, 0 from `limit` on."""
    nearest = distances.min(axis=0)
    np.copyto(nearest, np.inf, where=nearest >= limit)
    return float(np.dot(np.exp(-nearest), weights) / weights.sum())


def _distance(log_boxes: Array, log_anchors: Array) -> Array:
    """(N,) minimum over anchors of the larger side difference, for (2, N) boxes and (2, A) anchors."""
    nearest = np.full(log_boxes.shape[1], np.inf, np.float32)
    wide, high = np.empty((2, min(BLOCK, len(nearest))), np.float32)
    for start in range(0, len(nearest), BLOCK):
        widths, heights = log_boxes[:, start : start + BLOCK]
        least = nearest[start : start + BLOCK]
        dw, dh = wide[: len(least)], high[: len(least)]
        for width, height in log_anchors.T:
            np.abs(np.subtract(widths, width, out=dw), out=dw)
            np.abs(np.subtract(heights, height, out=dh), out=dh)
            np.minimum(least, np.maximum(dw, dh, out=dw), out=least)
    return nearest


def _log_columns(sides: ArrayLike) -> Array:
    """(2, N) contiguous float32 logarithms of (N, 2) sides."""
    return np.ascontiguousarray(np.log(np.asarray(sides, np.float64).reshape(-1, 2)).T, dtype=np.float32)


def _grid(log_boxes: Array) -> tuple[Array, Array]:
    """(2, M) means and (M,) counts of the boxes in each occupied cell."""
    cells = np.floor((log_boxes - log_boxes.min(axis=1, keepdims=True)) / GRID_STEP).astype(np.int64)
    _, cell, number = np.unique(cells[0] * (cells[1].max() + 1) + cells[1], return_inverse=True, return_counts=True)
    means = np.stack([np.bincount(cell, weights=side) for side in log_boxes]) / number
    return means.astype(np.float32), number.astype(np.float32)


def _spread_seeds(points: Array, count: int, rng: np.random.Generator) -> Array:
    """(2, count) points drawn with probability proportional to squared distance from earlier ones (k-means++)."""
    chosen = [int(rng.integers(points.shape[1]))]
    distance = np.full(points.shape[1], np.inf, np.float32)
    while len(chosen) < count:
        distance = np.minimum(distance, ((points - points[:, chosen[-1:]]) ** 2).sum(axis=0))
        cumulative = np.cumsum(distance, dtype=np.float64)
        drawn = np.searchsorted(cumulative, rng.random() * cumulative[-1], side="right")
        chosen.append(min(int(drawn), len(distance) - 1))
    return points[:, chosen]


def _nearest(points: Array, centres: Array) -> tuple[Array, NDArray[np.intp]]:
    """(N,) squared distance and index of the nearest of (2, A) centres for (2, N) points."""
    best = np.full(points.shape[1], np.inf, np.float32)
    index = np.zeros(points.shape[1], np.intp)
    for number, (x, y) in enumerate(centres.T):
        distance = (points[0] - x) ** 2 + (points[1] - y) ** 2
        closer = distance < best
        best[closer], index[closer] = distance[closer], number
    return best, index
