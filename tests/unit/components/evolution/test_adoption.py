"""Whether a winner is adopted: the arithmetic of the rank test, and how often it is wrong."""

from collections import Counter
from itertools import combinations
from math import comb
from typing import Any

import numpy as np
import pytest

from components.evolution.adoption import CHANCE, Gain, chance, compare


def approx(value: float) -> Any:
    return pytest.approx(value)


@pytest.mark.parametrize("seeds", [2, 3, 4, 5])
def test_the_chance_counts_every_ranking(seeds: int):
    places = range(2 * seeds)
    pairs_won = Counter(
        sum(one > other for one in winner for other in set(places) - set(winner))
        for winner in combinations(places, seeds)
    )
    for won in range(seeds**2 + 1):
        ways = sum(count for number, count in pairs_won.items() if number >= won)
        assert chance(won, seeds) == pytest.approx(ways / comb(2 * seeds, seeds), abs=1e-15)


def test_three_seeds_are_the_fewest_that_can_tell():
    assert chance(9, 3) == 1 / 20 == CHANCE
    assert chance(8, 3) == 2 / 20
    assert chance(4, 2) == 1 / 6


def test_gain_and_spread_are_those_of_the_repeats():
    # means 0.32 and 0.21; deviations of the start -0.01, 0, 0.01: variance 0.0002 / 2
    found = compare([0.30, 0.32, 0.34], [0.20, 0.21, 0.22], seeds=3)
    assert found == Gain([0.30, 0.32, 0.34], [0.20, 0.21, 0.22], approx(0.11), approx(0.01), True)


def test_more_seeds_need_not_win_every_pair():
    """Of 5 seeds 21 pairs of 25 suffice: 1 + 1 + 2 + 3 + 5 = 12 ways of 252, 0.0476."""
    start = [0.20, 0.21, 0.22, 0.23, 0.24]
    winner = [0.2005, 0.30, 0.31, 0.32, 0.33]  # 1 + 4 * 5
    found = compare(winner, start, seeds=5)
    assert found
    assert found.holds
    assert chance(21, 5) == pytest.approx(12 / 252)
    worse = compare([0.1995, *winner[1:]], start, seeds=5)
    assert worse
    assert not worse.holds


def test_it_is_decided_as_soon_as_the_rest_cannot_change_it():
    assert compare([0.3], [0.4], seeds=3) is None  # no spread yet
    assert compare([0.3, 0.3], [0.2, 0.2], seeds=3) is None
    decided = compare([0.3, 0.5, 0.9], [0.2, 0.4, 0.1], seeds=3)  # 3 of 4 pairs
    assert decided == Gain([0.3, 0.5], [0.2, 0.4], approx(0.1), approx(0.02**0.5), False)


def test_failed_trainings_lose_and_ties_are_lost():
    for winner, start in (([0.0] * 3, [0.0] * 3), ([0.0, 0.3, 0.3], [0.2] * 3), ([0.2] * 3, [0.2] * 3)):
        found = compare(winner, start, seeds=3)
        assert found
        assert not found.holds
    found = compare([0.2, 0.3, 0.3], [0.0] * 3, seeds=3)  # the starting point diverges
    assert found
    assert found.holds


def adopted(rng: np.random.Generator, gain: float, shared: float = 0.0, searches: int = 4000) -> float:
    """How many searches adopt their best of 20 trials. Of them, one trains better by `gain` standard deviations.

    shared: share of the variance of fitness that the start and a trial with the same seed have in common.
    """
    deviation, trials, seeds, count = 0.02, 20, 3, 0
    for _ in range(searches):
        gains = np.zeros(trials)
        gains[-1] = gain
        best = int(np.argmax(gains + rng.normal(size=trials)))  # chosen by one noisy training each
        common = shared**0.5 * rng.normal(size=seeds)
        winner, start = (
            0.4 + deviation * (true + common + (1 - shared) ** 0.5 * rng.normal(size=seeds))
            for true in (gains[best], 0.0)
        )
        found = compare(winner.tolist(), start.tolist(), seeds)
        count += found is not None and found.holds
    return count / searches


def test_the_best_of_equal_trials_is_adopted_at_most_as_often_as_stated():
    # 4000 searches: a standard error of sqrt(0.05 * 0.95 / 4000) = 0.0034; three of them are allowed
    rng = np.random.default_rng(0)
    assert adopted(rng, 0.0) <= CHANCE + 0.0103
    assert adopted(rng, 0.0, shared=0.5) <= CHANCE


def test_a_true_gain_is_adopted():
    # far beyond the others, so that it is the best trial: P(min of 3 with +4 > max of 3) = 0.98
    assert adopted(np.random.default_rng(0), 8.0) > 0.99
    assert adopted(np.random.default_rng(0), 4.0) > 0.9
