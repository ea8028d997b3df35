"""Genetic search of hyperparameters: which trial becomes a parent and how its values mutate. Pure functions.

Values are a dict by hyperparameter name, and every step goes by name, never by position. A child is a function of
(population, seed, trial number) alone, so that a search that was killed proposes the same children again.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from yolo_core.hyperparameters import RANGES, Range

FACTOR_CLIP = (0.3, 3.0)  # smallest and largest factor of one mutation
TRIES = 1000  # draws before giving up on a change, as where every range is a single value
MIN_WEIGHT = 1e-6  # so that the worst of the candidate parents can be drawn too

EVOLVING: dict[str, Range] = {name: allowed for name, allowed in RANGES.items() if allowed.evolves}


@dataclass(frozen=True)
class Individual:
    """A finished trial."""

    trial: int
    """Number of the trial."""
    values: Mapping[str, float]
    """Values by hyperparameter name."""
    fitness: float
    failed: bool = False
    """Whether it has no children, because it failed or was stopped early."""


@dataclass(frozen=True)
class Mutation:
    """How children are made."""

    parents: int = 5
    """A parent is drawn among this many of the fittest."""
    probability: float = 0.9
    """Probability that a value mutates."""
    sigma: float = 0.2
    """Standard deviation of the factor it is multiplied by."""


def rung_limits(reached: Sequence[Sequence[float]], rungs: int, keep: float) -> list[float]:
    """The fitness a trial needs at each rung to be in the top share `keep` of itself and the earlier trials there.

    reached: of each earlier trial, its fitness at the rungs that it reached. Minus infinity lets anything pass.
    """
    limits = []
    for rung in range(rungs):
        there = sorted((one[rung] for one in reached if len(one) > rung), reverse=True)
        places = math.ceil(keep * (len(there) + 1))
        limits.append(there[places - 1] if places <= len(there) else -math.inf)
    return limits


def propose(
    finished: Sequence[Individual],
    start: Mapping[str, float],
    *,
    seed: int,
    trial: int,
    lag: int,
    mutation: Mutation,
) -> tuple[int | None, dict[str, float]] | None:
    """The parent's number and the values of trial number `trial`; None while it must wait for an earlier one.

    Trial 0 is `start`. Trial k descends from the finished ones up to k - lag: with `lag` trials at a time workers
    hardly ever wait, and the children do not depend on which of the running trials ends first.
    """
    if trial == 0:
        return None, dict(start)
    known = {one.trial: one for one in finished if one.trial <= trial - lag}
    if len(known) < trial - lag + 1:
        return None
    healthy = [one for one in known.values() if not one.failed] or [Individual(0, start, 0.0)]
    parent, values = child(healthy, seed=seed, trial=trial, mutation=mutation)
    return parent.trial, values


def child(
    population: Sequence[Individual],
    *,
    seed: int,
    trial: int,
    mutation: Mutation,
    ranges: Mapping[str, Range] = EVOLVING,
) -> tuple[Individual, dict[str, float]]:
    """The parent drawn for trial number `trial` and the child's values.

    population: not empty, in any order.
    """
    rng = np.random.default_rng((seed, trial))
    parent = choose_parent(population, rng, parents=mutation.parents)
    values = mutate(parent.values, rng, probability=mutation.probability, sigma=mutation.sigma, ranges=ranges)
    return parent, values


def choose_parent(population: Sequence[Individual], rng: np.random.Generator, *, parents: int) -> Individual:
    """One of the `parents` fittest, drawn with a weight of its lead over the worst of them."""
    best = sorted(population, key=lambda one: (-one.fitness, one.trial))[:parents]
    weights = np.array([one.fitness - best[-1].fitness + MIN_WEIGHT for one in best])
    return best[int(rng.choice(len(best), p=weights / weights.sum()))]


def mutate(
    values: Mapping[str, float],
    rng: np.random.Generator,
    *,
    probability: float,
    sigma: float,
    ranges: Mapping[str, Range] = EVOLVING,
) -> dict[str, float]:
    """A copy of `values` in which each name of `ranges` is multiplied, with `probability`, by about 1 +- `sigma`.

    Factors are clipped to `FACTOR_CLIP`, results to their range. A value of 0 means off and stays off; names outside
    `ranges` keep their values. At least one value changes, unless none can.
    """
    names = sorted(name for name in ranges.keys() & values.keys() if values[name] != 0)
    result = dict(values)
    for _ in range(TRIES if names else 0):
        if result != values:
            break
        draw = rng.random(len(names))
        changes = draw <= max(probability, draw.min())
        factors = np.clip(1 + changes * sigma * rng.standard_normal(len(names)), *FACTOR_CLIP)
        for name, factor in zip(names, factors, strict=True):
            result[name] = float(np.clip(values[name] * factor, ranges[name].low, ranges[name].high))
    return result
