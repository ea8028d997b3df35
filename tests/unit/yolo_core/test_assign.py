"""Assignment by anchor ratio, worked out by hand on a 4 x 4 map of stride 16."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from yolo_core.losses.assign import assign

ANCHORS = torch.tensor([[[16.0, 16.0], [64.0, 64.0]]])  # one level, two anchors


def found(target: list[float], anchors: torch.Tensor = ANCHORS, ratio: float = 4.0) -> set[tuple[int, int, int]]:
    """(anchor, column, row) of the candidates of one target of image 0."""
    result = assign(torch.tensor([target]), anchors, (16,), [(4, 4)], ratio)
    rows = result.rows[result.valid]
    return {(row // 16, row % 4, row // 4 % 4) for row in rows.tolist()}


def test_centre_cell_and_the_two_nearest_neighbours():
    # centre (26, 20) px = (1.625, 1.25) cells: cell (1, 1), nearer to the right and above
    # 20 x 12: ratios to 16 x 16 are 1.25 and 1.33; to 64 x 64 they are 3.2 and 5.33, which is too far
    assert found([0, 0, 26, 20, 20, 12]) == {(0, 1, 1), (0, 2, 1), (0, 1, 0)}


def test_a_target_between_two_anchors_is_assigned_to_both():
    # 32 / 16 = 2 and 64 / 32 = 2; centre (1.25, 1.75): neighbours left and below
    assert found([0, 0, 20, 28, 32, 32]) == {(a, x, y) for a in (0, 1) for x, y in ((1, 1), (0, 1), (1, 2))}


def test_a_centre_in_the_middle_of_its_cell_has_no_neighbour():
    assert found([0, 0, 24, 40, 16, 16]) == {(0, 1, 2)}


def test_a_centre_on_a_cell_border_takes_the_two_cells_that_share_it():
    # x = 32 px = 2.0 cells is the left edge of column 2; y = 24 px = 1.5 cells is a middle
    assert found([0, 0, 32, 24, 16, 16]) == {(0, 2, 1), (0, 1, 1)}


@pytest.mark.parametrize(
    ("centre", "cells"),
    [
        ((4, 4), {(0, 0)}),  # nothing left of or above the corner
        ((60, 60), {(3, 3)}),  # nor right of or below the last
        ((64, 24), {(3, 1)}),  # a centre on the map's edge stays inside: the centre cell is also the left one
        ((0, 64), {(0, 3)}),
    ],
)
def test_the_map_has_an_edge(centre, cells):
    assert found([0, 0, *centre, 16, 16]) == {(0, x, y) for x, y in cells}


def test_the_ratio_is_a_strict_bound_on_both_sides():
    assert found([0, 0, 24, 24, 64, 16], ANCHORS[:, :1]) == set()  # exactly 4 times as wide
    assert found([0, 0, 24, 24, 16, 4], ANCHORS[:, :1]) == set()  # exactly a quarter as high
    assert found([0, 0, 24, 24, 63.9, 16], ANCHORS[:, :1]) == {(0, 1, 1)}
    assert found([0, 0, 24, 24, 31, 16], ANCHORS[:, :1], ratio=2.0) == {(0, 1, 1)}
    assert found([0, 0, 24, 24, 33, 16], ANCHORS[:, :1], ratio=2.0) == set()


def test_boxes_without_area_are_not_assigned():
    assert found([0, 0, 24, 24, 0, 16]) == set()
    assert found([0, 0, 24, 24, float("nan"), 16]) == set()


def test_rows_count_images_anchors_rows_and_columns():
    target = torch.tensor([[1.0, 0, 24, 40, 16, 16]])
    result = assign(target, ANCHORS, (16,), [(3, 4)], 4.0)
    # image 1, anchor 0, row 2, column 1 of a map with 2 anchors, 3 rows, 4 columns: ((1 x 2 + 0) x 3 + 2) x 4 + 1 = 33
    assert result.rows[result.valid].tolist() == [33]
    assert result.cells_xy[0, 0, 0, 0].tolist() == [1, 2]


def test_levels_are_independent():
    anchors = torch.tensor([[[16.0, 16.0]], [[32.0, 32.0]]])
    target = torch.tensor([[0.0, 0, 24, 40, 20, 20]])
    both = assign(target, anchors, (16, 32), [(4, 4), (2, 2)], 4.0)
    for level, (stride, side) in enumerate(((16, 4), (32, 2))):
        alone = assign(target, anchors[level : level + 1], (stride,), [(side, side)], 4.0)
        assert torch.equal(both.valid[level], alone.valid[0])
        assert torch.equal(both.rows[level], alone.rows[0])


def test_no_targets():
    result = assign(torch.zeros(0, 6), ANCHORS, (16,), [(4, 4)], 4.0)
    assert result.valid.shape == result.rows.shape == (1, 5, 2, 0)


@given(
    st.lists(
        st.tuples(st.floats(0, 64), st.floats(0, 64), st.floats(1, 300), st.floats(1, 300)), min_size=1, max_size=8
    )
)
def test_every_fitting_anchor_gets_one_to_three_cells_within_a_cell_of_the_centre(boxes_cxcywh_px):
    targets = torch.tensor([[0, 0, *box] for box in boxes_cxcywh_px], dtype=torch.float32)
    result = assign(targets, ANCHORS, (16,), [(4, 4)], 4.0)
    r = targets[None, :, 4:] / ANCHORS[0][:, None]
    fits = torch.maximum(r, 1 / r).amax(-1) < 4  # (A, T)
    counts = result.valid[0].sum(0)
    assert torch.equal(counts > 0, fits)
    assert counts.max() <= 3
    assert (result.rows >= 0).all()
    assert (result.rows < 2 * 16).all()
    distance = (targets[:, 2:4] / 16 - result.cells_xy[0, :, 0] - 0.5).abs().amax(-1)  # (S, T)
    assert (distance[:, None].expand_as(result.valid[0])[result.valid[0]] <= 1).all()
