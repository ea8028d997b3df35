"""Evolution: parents, mutation by name, and proposals that depend on the ledger alone."""

import dataclasses
import math
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from yolo_core.evolution import (
    EVOLVING,
    FACTOR_CLIP,
    Individual,
    Mutation,
    choose_parent,
    mutate,
    propose,
    rung_limits,
)
from yolo_core.hyperparameters import RANGES, Hyperparameters, Range

START = dataclasses.asdict(Hyperparameters())
MUTATION = Mutation()


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def within(name: str) -> st.SearchStrategy[float]:
    return st.floats(RANGES[name].low, RANGES[name].high)


@given(
    st.fixed_dictionaries({name: within(name) for name in RANGES}),
    st.integers(0, 2**32),
    st.floats(0.01, 1),
    st.floats(0.01, 1),
)
def test_children_stay_in_bounds_and_change(values, seed, probability, sigma):
    child = mutate(values, rng(seed), probability=probability, sigma=sigma)
    assert child.keys() == values.keys()
    for name, value in child.items():
        assert RANGES[name].low <= value <= RANGES[name].high
        if name not in EVOLVING or values[name] == 0:
            assert value == values[name]
        else:
            clipped = value in (RANGES[name].low, RANGES[name].high)
            assert clipped or FACTOR_CLIP[0] * 0.999 <= value / values[name] <= FACTOR_CLIP[1] * 1.001
    assert any(child[name] != values[name] for name in EVOLVING)


@given(st.permutations(list(START)), st.integers(0, 1000))
def test_names_matter_and_positions_do_not(order, seed):
    shuffled = {name: START[name] for name in order}
    expected = mutate(START, rng(seed), probability=0.5, sigma=0.2)
    assert mutate(shuffled, rng(seed), probability=0.5, sigma=0.2) == expected


def test_a_value_mutates_within_its_own_range_at_any_position():
    ranges = {"wide": Range(0, 1000), "narrow": Range(0.9, 1.1)}
    for values in ({"wide": 100.0, "narrow": 1.0}, {"narrow": 1.0, "wide": 100.0}):
        children = [mutate(values, rng(seed), probability=1, sigma=1, ranges=ranges) for seed in range(50)]
        assert all(30 <= child["wide"] <= 300 and 0.9 <= child["narrow"] <= 1.1 for child in children)


def test_zero_means_off_and_stays_off():
    child = mutate({"translate": 0.0, "scale": 0.5}, rng(), probability=1, sigma=0.2)
    assert child["translate"] == 0
    assert child["scale"] != 0.5


def test_nothing_can_change():
    assert mutate({"translate": 0.0}, rng(), probability=1, sigma=0.2) == {"translate": 0.0}


def test_mutation_changes_about_the_requested_fraction_by_about_sigma():
    factors = [mutate(START, rng(seed), probability=0.5, sigma=0.1)["box"] / START["box"] for seed in range(2000)]
    changed = [factor for factor in factors if factor != 1]
    assert len(changed) / 2000 == pytest.approx(0.5, abs=0.05)
    assert np.std(changed) == pytest.approx(0.1, abs=0.01)


def test_parents_are_the_best_by_their_lead():
    population = [Individual(trial, {}, fitness) for trial, fitness in enumerate([0.1, 0.5, 0.3, 0.2])]
    drawn = Counter(choose_parent(population, rng(seed), parents=3).trial for seed in range(3000))
    # the best three: 0.5, 0.3, 0.2; leads over the last of them 0.3, 0.1 and about 0
    assert drawn[0] == 0
    assert drawn[1] / 3000 == pytest.approx(0.75, abs=0.04)
    assert drawn[2] / 3000 == pytest.approx(0.25, abs=0.04)


def test_equal_parents_are_drawn_equally():
    population = [Individual(trial, {}, 0.0) for trial in range(3)]
    drawn = Counter(choose_parent(population, rng(seed), parents=2).trial for seed in range(1000))
    assert drawn.keys() == {0, 1}
    assert drawn[0] / 1000 == pytest.approx(0.5, abs=0.06)


def proposal(finished: list[Individual], trial: int, lag: int = 2, seed: int = 0):
    return propose(finished, START, seed=seed, trial=trial, lag=lag, mutation=MUTATION)


def test_the_first_trial_is_the_starting_point():
    assert proposal([], 0) == (None, START)


def test_trials_that_start_together_descend_from_the_starting_point():
    parent, values = proposal([], 1) or (None, {})
    assert parent == 0
    assert values != START


def test_a_trial_waits_for_those_it_may_descend_from():
    first, second, third = (Individual(trial, START, 0.1 * trial) for trial in range(3))
    assert proposal([first], 3) is None  # trial 3 of lag 2 needs trials 0 and 1
    assert proposal([first, third], 3) is None
    assert proposal([first, second], 3) is not None


def test_proposals_depend_on_neither_order_nor_later_trials():
    known = [Individual(trial, START | {"lr0": 0.01 + trial / 1000}, 0.1 * trial) for trial in range(5)]
    expected = proposal(known[:3], 4)
    assert expected is not None
    assert proposal(known[2::-1], 4) == expected
    assert proposal(known, 4) == expected
    assert proposal(known, 4, seed=1) != expected


def test_failed_trials_have_no_children():
    known = [Individual(0, START, 0.2), *(Individual(trial, START, 0.0, failed=True) for trial in range(1, 4))]
    parents = {(proposal(known, 4, lag=1, seed=seed) or (None,))[0] for seed in range(30)}
    assert parents == {0}


def test_the_search_continues_from_the_starting_point_when_all_have_failed():
    known = [Individual(trial, {"lr0": 1.0}, 0.0, failed=True) for trial in range(3)]
    parent, values = proposal(known, 3, lag=1) or (None, {})
    assert parent == 0
    assert values.keys() == START.keys()


@pytest.mark.parametrize(
    ("reached", "keep", "limits"),
    [
        ([], 0.5, [-math.inf, -math.inf]),
        ([[0.3, 0.4]], 0.5, [0.3, 0.4]),  # the better one of two
        ([[0.3, 0.4], [0.1]], 0.5, [0.1, 0.4]),  # the best two of three; one reached the second rung
        ([[0.3, 0.4], [0.1], [0.2, 0.5]], 0.5, [0.2, 0.4]),  # the best two of four; the best two of three
        ([[0.3, 0.4], [0.1], [0.2, 0.5]], 0.25, [0.3, 0.5]),
        ([[0.3, 0.4], [0.1], [0.2, 0.5]], 0.9, [-math.inf, -math.inf]),  # four of four
    ],
)
def test_a_rung_requires_a_rank_among_the_best(reached, keep, limits):
    assert rung_limits(reached, 2, keep) == limits
    assert rung_limits(reached[::-1], 2, keep) == limits


def test_one_that_was_stopped_or_failed_is_not_a_parent():
    finished = [Individual(0, START, 0.1), Individual(1, START, 0.9, failed=True)]
    parents = {propose(finished, START, seed=seed, trial=2, lag=1, mutation=MUTATION)[0] for seed in range(20)}  # pyright: ignore
    assert parents == {0}
