"""Whether a winner is adopted: an exact rank test of repeated trainings.

A winner is the best of many trials with one seed, so its own fitness flatters it. It and the starting point are trained
again with n other seeds, which had no part in choosing it; so there is nothing to correct for the number of trials.
Each of the n * n pairs of one training of either counts as won if the winner's is fitter; a tie is lost. If both train
equally well, all C(2n, n) ways in which the n trainings of the winner may rank among the 2n are equally likely, and

    chance(won) = ways with at least `won` pairs won / C(2n, n)        (Mann and Whitney, 1947)

The winner is adopted if this is at most `CHANCE`, and if the means differ by at least `MIN_GAIN`. With n = 3 it must
win all 9 pairs, that is, lie beyond the starting point's spread: 1 way of C(6, 3) = 20, a chance of 0.05. Two seeds
cannot tell: 1 way of C(4, 2) = 6.

Nothing is assumed about the distribution of fitness. That both use the same seeds, and so may rise and fall together,
only lowers the chance. What raises it is a spread that differs: for normal noise of equal mean and n = 3, to 0.06 if
one standard deviation is twice the other, and towards 1 / 2^3 = 0.125 if one is zero. A true gain of two standard
deviations is adopted in 62 % of the cases, one of three in 89 %.
"""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

CHANCE = 0.05  # of adopting values that train no better than the starting point's
MIN_GAIN = 0.005  # of fitness over the starting point; a smaller one is not worth a change
MIN_SEEDS = 2  # before a winner is rejected, so that the starting point has a spread


@dataclass(frozen=True)
class Gain:
    """How a winner compares with the starting point when both are trained with other seeds."""

    winner: list[float]
    """Fitness by seed."""
    start: list[float]
    gain: float
    """Difference of the means."""
    spread: float
    """Standard deviation of the starting point's fitness."""
    holds: bool
    """Whether the winner is adopted."""


def compare(winner: Sequence[float], start: Sequence[float], seeds: int) -> Gain | None:
    """The gain of `winner` over `start`, fitness by seed; None while it takes more of the planned `seeds`.

    It is decided by the first seeds after which the rest cannot change a rejection; later ones do not count, so that
    the result does not depend on which of several concurrent trainings ended first.
    """
    for done in range(MIN_SEEDS, min(len(winner), len(start)) + 1):
        found = _gain(list(winner[:done]), list(start[:done]), seeds)
        if done == seeds or not found.holds:
            return found
    return None


def _gain(winner: list[float], start: list[float], seeds: int) -> Gain:
    """The gain so far; it holds if it would, should the remaining seeds win all their pairs."""
    difference = statistics.fmean(winner) - statistics.fmean(start)
    open_pairs = seeds**2 - len(winner) ** 2
    won = sum(one > other for one in winner for other in start) + open_pairs
    enough = difference >= MIN_GAIN or open_pairs > 0
    return Gain(winner, start, difference, statistics.stdev(start), enough and chance(won, seeds) <= CHANCE)


def chance(won: int, seeds: int) -> float:
    """Probability that two equally good settings win at least `won` of the `seeds` * `seeds` pairs."""
    ways = _ways(seeds)
    return sum(ways[won:]) / sum(ways)


@cache
def _ways(seeds: int) -> list[int]:
    """How many of the C(2n, n) rankings win 0, 1, ..., n * n pairs.

    These are the coefficients of the Gaussian binomial, the product of (1 - q^(n + k)) / (1 - q^k) over k = 1 to n.
    """
    pairs = seeds**2
    ways = [1] + [0] * pairs
    for factor in range(1, seeds + 1):
        for won in range(pairs, seeds + factor - 1, -1):
            ways[won] -= ways[won - seeds - factor]
        for won in range(factor, pairs + 1):
            ways[won] += ways[won - factor]
    return ways
