"""Hints during a training: likely mistakes, each at the first epoch whose curves reveal it."""

from collections.abc import Callable, Sequence

from yolo_core.train.configuration import TrainConfig
from yolo_core.train.records import EpochRow
from yolo_core.train.schedule import Schedule
from yolo_core.train.validation import fitness

NO_AP = 0.0005  # below it, AP is printed as 0.000
NO_AP_FOR = 3  # evaluations
STILL_FOR = 5  # epochs, compared with as many before
STILL_SHARE = 0.99  # of the loss before: noise between epochs is about a percent
STILL_LR = 0.5  # of the highest learning rate; at a low one a constant loss is no mistake

Rows = Sequence[EpochRow]


def hints(rows: Rows, config: TrainConfig, schedule: Schedule) -> list[str]:
    """The hints that the last row adds, one line each. A function of the curves: a resumed training gives the same."""
    found = []
    if _shows_first(rows, lambda part: _has_no_ap(part, schedule.warmup_steps)):
        start = "" if config.start_from else "start from trained weights (train.weights), "
        found.append(
            f"AP is still 0 after {NO_AP_FOR} evaluations: check boxes and classes of both splits, {start}"
            "or train for more epochs"
        )
    if _shows_first(rows, lambda part: _loss_stands_still(part, config, schedule.warmup_steps)):
        lr0 = schedule.phase_at(rows[-1]["epoch"] - 1).hyp.lr0
        less = ", or freeze less (train.freeze)" if config.freeze else ""
        found.append(f"the loss has not fallen for {STILL_FOR} epochs: change train.hyp.lr0 (now {lr0:g}){less}")
    return found


def _shows_first(rows: Rows, shows: Callable[[Rows], bool]) -> bool:
    """Whether these rows show something that no beginning of them did."""
    return shows(rows) and not any(shows(rows[:end]) for end in range(len(rows)))


def _has_no_ap(rows: Rows, warmup_steps: int) -> bool:
    figures = [row["AP"] for row in rows if row["AP"] is not None and row["step"] > warmup_steps]
    return len(figures) >= NO_AP_FOR and max(figures[-NO_AP_FOR:]) < NO_AP


def _loss_stands_still(rows: Rows, config: TrainConfig, warmup_steps: int) -> bool:
    """Whether neither loss nor AP got better lately, within a phase, while the learning rate was high."""
    if len(rows) < 2 * STILL_FOR:
        return False
    before, after = rows[-2 * STILL_FOR : -STILL_FOR], rows[-STILL_FOR:]
    is_one_phase = not any(before[0]["epoch"] <= phase.epochs < after[-1]["epoch"] for phase in config.phases)
    is_comparable = is_one_phase and before[0]["step"] > warmup_steps
    high = rows[-1]["lr"] >= STILL_LR * max(row["lr"] for row in rows)
    still = sum(row["loss"] for row in after) >= STILL_SHARE * sum(row["loss"] for row in before)
    return is_comparable and high and still and not _gained(rows[:-STILL_FOR], after)


def _gained(before: Rows, after: Rows) -> bool:
    """Whether an evaluation of `after` is better than all before."""
    first, second = (
        [fitness(row["AP"], row["AP50"]) for row in part if row["AP"] is not None] for part in (before, after)
    )
    return max(second, default=0.0) > max(first, default=0.0)
