"""The plot of a search: fitness of every trial, the best so far, and the starting point's as a line."""

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from components.reports.figure import off_screen
from yolo_core.atomic import replaced


class Trial(Protocol):
    """What the plot shows of a trial."""

    @property
    def trial(self) -> int: ...

    @property
    def fitness(self) -> float: ...

    @property
    def reason(self) -> str | None: ...


def plot_fitness(records: Sequence[Trial], path: Path) -> None:
    """Write the plot as PNG. records: the finished trials, by number."""
    figure = off_screen(figsize=(7, 4), layout="constrained")
    from matplotlib.ticker import MaxNLocator

    axes = figure.add_subplot(title="Hyperparameter evolution", xlabel="trial", ylabel="fitness (0.1 AP50 + 0.9 AP)")
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", alpha=0.3)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
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
    if records and records[0].trial == 0:
        axes.axhline(records[0].fitness, color="tab:gray", linestyle=":", label="starting point", zorder=1)
    if records:
        axes.set_ylim(bottom=0)
        axes.legend(frameon=False)
    else:
        axes.text(0.5, 0.5, "no trials", ha="center", va="center", transform=axes.transAxes)
    with replaced(path) as temporary:
        figure.savefig(temporary, dpi=120)
