"""Anchors: the ratio metric, k-means, refinement and the whole fit."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from yolo_core import anchors
from yolo_core.anchors import FitSettings, Quality, best_ratio, better, fit, kmeans, quality, refine, usable

sides = st.floats(2, 2000, allow_nan=False)
shapes = st.lists(st.tuples(sides, sides), min_size=1, max_size=40).map(np.array)


def plain_ratio(boxes: np.ndarray, sets: np.ndarray) -> np.ndarray:
    ratio = boxes[:, None] / sets[None]
    return np.minimum(ratio, 1 / ratio).min(axis=2).max(axis=1)


def spread_boxes(count: int, seed: int = 0) -> np.ndarray:
    """Boxes whose sides span three octaves and whose shapes vary."""
    rng = np.random.default_rng(seed)
    area = rng.uniform(np.log(8), np.log(400), (count, 1))
    return np.exp(area + rng.normal(0, 0.3, (count, 2)))


def test_ratio_of_known_boxes():
    boxes = [[10, 20], [40, 10], [5, 5]]
    sets = [[10, 10], [20, 20]]
    # 10x20: min(1, 1/2) = .5 and min(1/2, 1) = .5; 40x10: min(1/4, 1) and min(1/2, 1/2); 5x5: 1/2 and 1/4
    assert best_ratio(boxes, sets) == pytest.approx([0.5, 0.5, 0.5])


def test_quality_of_known_boxes():
    # ratios 1, 1/2 and 1/5: the last is not above 1/4
    found = quality([[10, 10], [20, 10], [50, 10]], [[10, 10]], anchor_t=4)
    assert found.fitness == pytest.approx((1 + 0.5 + 0) / 3)
    assert found.recall == pytest.approx(2 / 3)


def test_a_ratio_of_exactly_the_threshold_does_not_count():
    assert quality([[40, 10]], [[10, 10]], anchor_t=4) == Quality(0.0, 0.0)


@given(shapes, shapes, st.floats(2, 8))
def test_quality_equals_the_plain_definition(boxes, sets, anchor_t):
    ratio = plain_ratio(boxes, sets)
    np.testing.assert_allclose(best_ratio(boxes, sets), ratio, rtol=1e-5)
    if np.abs(ratio - 1 / anchor_t).min() > 1e-5:  # float32 may fall on either side of the threshold
        found = quality(boxes, sets, anchor_t)
        assert found.fitness == pytest.approx((ratio * (ratio > 1 / anchor_t)).mean(), rel=1e-5)
        assert found.recall == pytest.approx((ratio > 1 / anchor_t).mean())


@given(shapes, shapes)
def test_ratio_ignores_which_side_is_which(boxes, sets):
    np.testing.assert_allclose(best_ratio(boxes[:, ::-1], sets[:, ::-1]), best_ratio(boxes, sets), rtol=1e-5)


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [
        (Quality(0.7, 0.99), Quality(0.6, 1.0), True),  # both reach 0.98: fitness decides
        (Quality(0.7, 0.97), Quality(0.6, 0.975), False),  # not both: recall decides
        (Quality(0.6, 0.985), Quality(0.7, 0.90), True),
        (Quality(0.7, 0.90), Quality(0.6, 0.90), True),  # equal recall: fitness again
        (Quality(0.7, 0.99), Quality(0.7, 0.99), False),  # the default is kept
    ],
)
def test_which_anchors_are_better(first, second, expected):
    assert better(first, second) is expected


def test_usable_drops_specks_and_empty_boxes():
    assert usable([[1, 1], [1, 3], [0, 5], [4, 4]]).tolist() == [[1, 3], [4, 4]]


def test_kmeans_finds_separate_clusters():
    rng = np.random.default_rng(1)
    centres = np.array([[10, 20], [100, 30], [60, 200]])
    boxes = np.concatenate([centre + rng.normal(0, 1, (200, 2)) for centre in centres])
    found = kmeans(boxes, 3, iterations=30, rng=rng)
    np.testing.assert_allclose(found[np.argsort(found.prod(axis=1))], centres, atol=0.5)


def test_kmeans_leaves_no_cluster_empty():
    boxes = np.array([[10.0, 10.0]] * 50 + [[20.0, 20.0], [30.0, 30.0]])
    for seed in range(10):
        found = kmeans(boxes, 3, iterations=30, rng=np.random.default_rng(seed))
        np.testing.assert_allclose(np.unique(found.round(3), axis=0), [[10, 10], [20, 20], [30, 30]], atol=1e-3)


def test_kmeans_takes_boxes_of_one_width():
    boxes = np.array([[10.0, height] for height in (10, 11, 50, 51)])
    found = kmeans(boxes, 2, iterations=30, rng=np.random.default_rng(0))
    np.testing.assert_allclose(sorted(found.tolist()), [[10, 10.5], [10, 50.5]], rtol=1e-5)


def test_refinement_never_loses_fitness():
    boxes = spread_boxes(500)
    start = np.array([[20.0, 20.0], [50.0, 50.0], [150.0, 150.0]])
    found = refine(boxes, start, anchor_t=4, settings=FitSettings(), rng=np.random.default_rng(0))
    assert quality(boxes, found).fitness > quality(boxes, start).fitness
    assert found.min() >= anchors.MIN_SIDE_PX


def test_zero_generations_change_nothing():
    start = np.array([[20.0, 20.0]])
    settings = FitSettings(generations=0)
    found = refine(spread_boxes(50), start, anchor_t=4, settings=settings, rng=np.random.default_rng(0))
    assert found.tolist() == start.tolist()


def test_screening_on_the_grid_finds_as_good_anchors_as_scoring_every_box(monkeypatch):
    boxes = spread_boxes(6000)
    screened = np.concatenate(fit(boxes, [3, 3]) or [])
    monkeypatch.setattr(anchors, "GRID_FROM", len(boxes))
    plain = np.concatenate(fit(boxes, [3, 3]) or [])
    assert quality(boxes, screened).fitness == pytest.approx(quality(boxes, plain).fitness, abs=0.005)


@pytest.mark.parametrize("levels", [[3, 3, 3], [3, 3], [4, 4, 4, 4], [1], [2, 5]])
def test_fit_gives_sorted_anchors_per_level(levels):
    boxes = spread_boxes(400)
    found = fit(boxes, levels, settings=FitSettings(generations=100))
    assert found is not None
    assert [len(level) for level in found] == levels
    areas = np.concatenate(found).prod(axis=1)
    assert (np.diff(areas) >= 0).all()


def test_fit_beats_anchors_of_another_scale():
    boxes = spread_boxes(1000)
    found = fit(boxes, [3, 3])
    assert found is not None
    small = np.array([[10, 14], [23, 27], [37, 58], [81, 82], [135, 169], [344, 319]]) / 4
    assert quality(boxes, np.concatenate(found)).fitness > quality(boxes, small).fitness + 0.1


def test_fit_is_a_function_of_the_seed():
    boxes = spread_boxes(300)
    first, again, other = (np.concatenate(fit(boxes, [2, 2], seed=seed) or []) for seed in (3, 3, 4))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


@pytest.mark.parametrize(
    "boxes",
    [np.empty((0, 2)), [[10, 20]] * 100, [[10, 20], [30, 40]], [[1, 1]] * 10 + [[5, 5], [6, 6]]],
    ids=["none", "identical", "fewer than anchors", "specks"],
)
def test_nothing_to_fit_with_fewer_distinct_boxes_than_anchors(boxes):
    assert fit(boxes, [2, 1]) is None


def test_as_many_boxes_as_anchors_become_the_anchors():
    boxes = [[10, 20], [30, 40], [80, 50]]
    found = fit(boxes, [2, 1])
    assert found is not None
    np.testing.assert_allclose(np.concatenate(found), boxes, rtol=0.02)
