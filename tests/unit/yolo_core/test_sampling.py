"""Repeat-factor sampling: the factors, and how often images are drawn."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from yolo_core.data.sampling import ONE, Repeats, epoch_order, generator, repeats_by_class


def repeats(*factors: float) -> Repeats:
    return Repeats(np.rint(np.array(factors) * ONE).astype(np.int64))


def rows(*classes: int) -> np.ndarray:
    return np.array([(c, 0, 0, 9, 9) for c in classes], np.float32).reshape(-1, 5)


def test_the_factors_by_hand():
    """Eight images: class 0 is in 7 of them, class 1 in 2, class 4 in 1; f = 7/8, 1/4, 1/8; the threshold is 1/2.

    sqrt(1/2 / f) is below 1, sqrt(2) and 2; the rarest class of an image counts, however often the image holds it.
    """
    labels = [rows(0)] * 4 + [rows(0, 1, 1), rows(4, 1, 0), rows(0, 0, 0), rows()]
    found = repeats_by_class(labels, 0.5)
    np.testing.assert_allclose(found.factors / ONE, [1, 1, 1, 1, 2**0.5, 2, 1, 1], atol=1 / ONE)
    assert found.samples == 9  # 6 + 1.41 + 2


def test_without_objects_no_image_is_repeated():
    assert repeats_by_class([rows(), rows()], 1.0).factors.tolist() == [ONE, ONE]


@given(st.lists(st.integers(ONE, 5 * ONE), min_size=1, max_size=30), st.integers(0, 2**62), st.integers(0, 10_000))
def test_every_factor_and_their_sum_are_rounded_down_or_up(factors, seed, epoch):
    drawn = Repeats(np.array(factors)).draw(seed, epoch)
    images, repeat = drawn % len(factors), drawn // len(factors)
    counts = np.bincount(images, minlength=len(factors))
    assert all(f // ONE <= n <= -(-f // ONE) for f, n in zip(factors, counts, strict=True))
    assert len(drawn) - sum(factors) // ONE in (0, 1)
    assert sorted(zip(images, repeat, strict=True)) == [(i, k) for i, n in enumerate(counts) for k in range(n)]
    np.testing.assert_array_equal(drawn, Repeats(np.array(factors)).draw(seed, epoch))


def test_an_image_is_drawn_as_often_as_its_factor_says():
    """The count of an epoch is the floor or one more, up with probability p: over 2,000 epochs the mean has a standard
    deviation of sqrt(p (1 - p) / 2000), at most .0112. Four of them are allowed; the image of factor 2 never varies."""
    factors = np.array([1, 1.25, 2, 2.5, 3.9, 1])
    counts = np.array([np.bincount(repeats(*factors).draw(7, epoch) % 6, minlength=6) for epoch in range(2000)])
    p = factors % 1
    assert (abs(counts.mean(axis=0) - factors) <= 4 * np.sqrt(p * (1 - p) / 2000) + 1e-9).all()
    assert (counts[:, p == 0] == factors[p == 0]).all()
    assert len(np.unique(counts[:, [1, 3, 4]], axis=0)) > 3  # they are not rounded together


def test_an_epoch_has_as_many_batches_whichever_way_its_factors_were_rounded():
    """1.5 + 1.25 + 4 x 1 = 6.75: six or seven samples, three batches of two."""
    six = repeats(1.5, 1.25, 1, 1, 1, 1)
    for epoch in range(20):
        order = epoch_order(6, 2, 0, epoch, six)
        assert order.shape == (3, 2)
        assert len(set(order.flat)) == 6


def test_repeats_that_do_not_fill_a_batch_are_repeated_with_different_draws():
    """Factors 2.5 and 1: three samples, of which a batch of eight takes all twice and two a third time."""
    order = epoch_order(2, 8, 0, 0, repeats(2.5, 1))
    assert order.shape == (1, 8)
    assert len(set(order.flat)) == 8


def test_the_other_tiles_of_a_mosaic_follow_the_factors():
    """1, 2 and 5 of 8: of 8,000 draws 1,000, 2,000 and 5,000, with standard deviations of 30, 39 and 43."""
    drawn = repeats(1, 2, 5).others(generator(0, 0, 0), 8000)
    assert np.bincount(drawn) == pytest.approx([1000, 2000, 5000], abs=4 * 43)
