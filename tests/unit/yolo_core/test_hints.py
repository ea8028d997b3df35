"""Hints of the curves: AP that stays 0, a loss that stands still; each once."""

from collections.abc import Sequence
from dataclasses import replace

import pytest
from small_training import config

from yolo_core.hyperparameters import Hyperparameters
from yolo_core.train import EpochRow, Phase
from yolo_core.train.hints import hints
from yolo_core.train.schedule import Schedule

PLAIN = replace(config(), phases=(Phase(100, Hyperparameters(lr0=0.02, warmup_epochs=2, warmup_iterations=0)),))


def rows(
    ap: Sequence[float | None] = (), losses: Sequence[float] = (), lr: float = 0.02, count: int = 0
) -> list[EpochRow]:
    """The curves of as many epochs as there are figures, of 4 steps each; the other figures do not change."""
    count = count or max(len(ap), len(losses))
    return [
        EpochRow(
            epoch=epoch,
            step=4 * epoch,
            lr=lr,
            box=0,
            obj=0,
            cls=0,
            loss=losses[epoch - 1] if losses else 100.0 / epoch,
            AP=ap[epoch - 1] if ap else None,
            AP50=ap[epoch - 1] if ap else None,
        )
        for epoch in range(1, count + 1)
    ]


def told(curves: list[EpochRow], settings=PLAIN) -> list[tuple[int, str]]:
    """All hints of a training by epoch."""
    schedule = Schedule(settings.phases, steps_per_epoch=4, batch=4, nominal_batch=8)
    return [
        (end, line.partition(":")[0])
        for end in range(1, len(curves) + 1)
        for line in hints(curves[:end], settings, schedule)
    ]


@pytest.mark.parametrize(
    ("ap", "epochs"),
    [
        ([0.0] * 9, [5]),  # 2 epochs of warm-up, then the evaluations of epochs 3, 4, 5
        ([None, 0.0] * 5, [8]),  # of epochs 4, 6, 8
        ([0.0004] * 6, [5]),  # printed as 0.000
        ([0, 0, 0, 0, 0.001, 0, 0, 0, 0], [8]),
        ([0.1] * 9, []),
        ([None] * 9, []),  # no ground truth
    ],
)
def test_ap_that_stays_0_is_told_once(ap: list[float | None], epochs: list[int]):
    assert told(rows(ap)) == [(epoch, "AP is still 0 after 3 evaluations") for epoch in epochs]


def test_a_loss_that_stands_still_is_told_once_where_its_ten_epochs_after_warm_up_end():
    # The mean of epochs 8 to 12 is that of 3 to 7; with half a percent less each epoch it is 2.5 % lower.
    standing = "the loss has not fallen for 5 epochs"
    assert told(rows(losses=[2.0] * 20)) == [(12, standing)]
    assert told(rows(losses=[2 * 0.995**epoch for epoch in range(20)])) == []
    assert told(rows(losses=[1.0 + epoch for epoch in range(20)])) == [(12, standing)], "nor is a rising one better"


def test_a_loss_may_stand_still_while_ap_rises_or_the_learning_rate_is_low_or_another_phase_began():
    loss = [2.0] * 12
    assert told(rows(ap=[0.1 + 0.01 * epoch for epoch in range(12)], losses=loss)) == []
    low = rows(losses=loss)
    for row in low[-5:]:
        row["lr"] = 0.009
    assert told(low) == []
    hyp = PLAIN.phases[0].hyp
    two = replace(PLAIN, phases=(Phase(7, hyp), Phase(100, hyp)))
    assert told(rows(losses=loss), two) == []


def test_a_hint_says_what_to_change():
    schedule = Schedule(PLAIN.phases, steps_per_epoch=4, batch=4, nominal_batch=8)
    frozen = replace(PLAIN, start_from="a.safetensors", freeze=("body",))
    assert hints(rows(losses=[2.0] * 12), frozen, schedule) == [
        "the loss has not fallen for 5 epochs: change train.hyp.lr0 (now 0.02), or freeze less (train.freeze)"
    ]
    assert hints(rows([0.0] * 5), PLAIN, schedule) == [
        "AP is still 0 after 3 evaluations: check boxes and classes of both splits, start from trained weights "
        "(train.weights), or train for more epochs"
    ]
    assert "weights" not in hints(rows([0.0] * 5), frozen, schedule)[0]
