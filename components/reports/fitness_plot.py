"""The plot of a search: fitness of every trial and the best so far, and how far the starting point's spreads."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from components.reports.figure import off_screen
from yolo_core.atomic import replaced

if TYPE_CHECKING:
    from matplotlib.axes import Axes

START, SPREAD = "tab:gray", "spread of the starting point"


class Trial(Protocol):
    """What the plot shows of a trial."""

    @property
    def trial(self) -> int: ...

    @property
    def fitness(self) -> float: ...

    @property
    def reason(self) -> str | None: ...


@dataclass(frozen=True)
class Repeats:
    """Fitness of the starting point and of the winner when trained with other seeds."""

    trial: int
    """Number of the winning trial."""
    start: Sequence[float]
    winner: Sequence[float]
    as_trials: bool
    """Whether they were trained like the trials, so that all share a scale."""


def plot_fitness(records: Sequence[Trial], path: Path, repeats: Repeats | None = None) -> None:
    """Write the plot as PNG. records: the finished trials, by number. repeats: shown beside them."""
    figure = off_screen(figsize=(7, 4), layout="constrained")
    figure.suptitle("Hyperparameter evolution")
    if repeats:
        share = repeats.as_trials
        axes, beside = figure.subplots(1, 2, sharey=share, gridspec_kw={"width_ratios": [4, 1]})
        _plot_repeats(beside, repeats)
        if share:
            axes.axhspan(min(repeats.start), max(repeats.start), color=START, alpha=0.2, lw=0, label=SPREAD, zorder=0)
    else:
        axes = figure.subplots()
    _plot_trials(axes, records)
    for each in figure.axes:
        each.spines[["top", "right"]].set_visible(False)
        each.grid(axis="y", alpha=0.3)
        if records:
            each.set_ylim(bottom=0)
    with replaced(path) as temporary:
        figure.savefig(temporary, dpi=120)


def _plot_trials(axes: "Axes", records: Sequence[Trial]) -> None:
    from matplotlib.ticker import MaxNLocator

    axes.set(xlabel="trial", ylabel="fitness (0.1 AP50 + 0.9 AP)")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    if not records:
        axes.text(0.5, 0.5, "no trials", ha="center", va="center", transform=axes.transAxes)
        return
    trials, best, top = [record.trial for record in records], [], 0.0
    for record in records:
        top = max(top, record.fitness)
        best.append(top)
    axes.step(trials, best, where="post", color="tab:orange", label="best so far", zorder=2)
    for label, marker, color, shown in (
        ("trial", "o", "tab:blue", [record for record in records if record.reason is None]),
        ("failed", "x", "tab:red", [record for record in records if record.reason is not None]),
    ):
        if shown:
            axes.scatter(
                [record.trial for record in shown],
                [record.fitness for record in shown],
                marker=marker, color=color, label=label, zorder=3, clip_on=False,
            )  # fmt: skip
    if records[0].trial == 0:
        axes.axhline(records[0].fitness, color=START, linestyle=":", label="starting point", zorder=1)
    axes.legend(frameon=False)


def _plot_repeats(axes: "Axes", repeats: Repeats) -> None:
    """The repeated trainings of both, and the starting point's spread as a band."""
    axes.set(xlabel="other seeds", xlim=(-0.5, 1.5), xticks=[0, 1], xticklabels=["start", f"trial {repeats.trial}"])
    axes.axhspan(min(repeats.start), max(repeats.start), color=START, alpha=0.2, lw=0, label=SPREAD, zorder=0)
    for place, fitness, color in ((0, repeats.start, START), (1, repeats.winner, "tab:blue")):
        axes.scatter([place] * len(fitness), fitness, color=color, zorder=3, clip_on=False)
