"""The schedule at steps computed by hand."""

import math

import pytest

from yolo_core.hyperparameters import Hyperparameters
from yolo_core.train.schedule import Phase, Schedule, cosine, ema_decay, full_accumulation

HYP = Hyperparameters(
    lr0=0.01, lrf=0.2, warmup_epochs=3, warmup_iterations=0, warmup_bias_lr=0.1, warmup_momentum=0.8, momentum=0.9
)


def schedule(hyp: Hyperparameters = HYP, epochs: int = 100, batch: int = 16, steps: int = 10) -> Schedule:
    return Schedule((Phase(epochs, hyp),), steps, batch, nominal_batch=64)


@pytest.mark.parametrize(
    ("epochs", "iterations", "expected"),
    [
        (3, 0, 30),  # 3 epochs x 10 steps
        (3, 100, 100),  # the iterations are more
        (0, 0, 0),
        (3, 1000, 500),  # at most half of 100 epochs x 10 steps
    ],
)
def test_warmup_is_the_longer_of_epochs_and_iterations(epochs: float, iterations: float, expected: int) -> None:
    hyp = HYP.replace(warmup_epochs=epochs, warmup_iterations=iterations)
    assert schedule(hyp).warmup_steps == expected


def test_first_step_warms_up_from_zero() -> None:
    values = schedule().at(0)
    assert (values.lr, values.bias_lr, values.momentum, values.accumulate) == (0.0, 0.1, 0.8, 1)


def test_halfway_through_the_warmup() -> None:
    values = schedule().at(15)  # of 30; epoch 1 of 100
    lr = 0.01 * ((1 + math.cos(math.pi * 0.01)) / 2 * 0.8 + 0.2)
    assert values.lr == pytest.approx(lr / 2)
    assert values.bias_lr == pytest.approx((0.1 + lr) / 2)
    assert values.momentum == pytest.approx(0.85)
    assert values.accumulate == 2  # round(1 + (64 / 16 - 1) / 2) = round(2.5), half to even


def test_after_the_warmup() -> None:
    values = schedule().at(500)  # epoch 50 of 100: the cosine is at its middle, (1 + 0.2) / 2
    assert values.lr == values.bias_lr == pytest.approx(0.006)
    assert (values.momentum, values.accumulate) == (0.9, 4)  # 64 / 16


def test_cosine_ends() -> None:
    assert cosine(0, 300, 0.2) == 1.0
    assert cosine(300, 300, 0.2) == pytest.approx(0.2)


def test_second_phase_recomputes_the_cosine_over_its_longer_total() -> None:
    strong = HYP.replace(scale=0.8, momentum=0.95)
    two = Schedule((Phase(300, HYP), Phase(450, strong)), 10, 64, 64)
    assert (two.epochs, two.steps) == (450, 4500)
    assert two.at(2999).lr == pytest.approx(0.01 * cosine(299, 300, 0.2))
    assert two.at(3000).lr == pytest.approx(0.01 * ((1 + math.cos(math.pi * 300 / 450)) / 2 * 0.8 + 0.2))  # = 0.004
    assert two.at(3000).lr == pytest.approx(0.004)
    assert (two.phase_at(299).hyp, two.phase_at(300).hyp) == (HYP, strong)
    assert (two.at(2999).momentum, two.at(3000).momentum) == (0.9, 0.95)


def test_updates_come_once_per_nominal_batch_and_the_last_window_is_not_lost() -> None:
    plan = schedule(HYP.replace(warmup_epochs=0), epochs=1)  # 10 steps, 4 batches an update
    assert [step for step in range(10) if plan.updates_at(step)] == [3, 7, 9]


@pytest.mark.parametrize(("batch", "expected"), [(8, 8), (16, 4), (48, 1), (64, 1), (256, 1)])
def test_accumulation(batch: int, expected: int) -> None:
    assert full_accumulation(batch, 64) == expected


def test_ema_decay_grows_with_updates() -> None:
    assert ema_decay(0, 0.9999, 2000) == 0.0
    assert ema_decay(2000, 0.9999, 2000) == pytest.approx(0.9999 * (1 - 1 / math.e))
    assert ema_decay(100_000, 0.9999, 2000) == pytest.approx(0.9999)


def test_simota_begins_after_its_part_of_a_phase() -> None:
    """0.75 of 8 epochs of 10 steps: from step 60 on."""
    plan = schedule(Hyperparameters(simota_from=0.75, warmup_epochs=0, warmup_iterations=0), epochs=8)
    assert [plan.at(step).simota for step in (0, 59, 60, 79)] == [False, False, True, True]
    assert schedule(epochs=8).at(0).simota
    never = schedule(Hyperparameters(simota_from=1.0), epochs=8)
    assert not any(never.at(step).simota for step in range(80))
