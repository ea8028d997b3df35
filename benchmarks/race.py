"""Contenders take turns, round by round, so that all share the machine's conditions. Medians are reported."""

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from statistics import median

from benchmarks.contender import Contender, Figures, Missing, Running


@dataclass(frozen=True)
class Result:
    name: str
    figures: Figures
    """Medians over the rounds; empty if the contender did not run."""

    missing: str = ""
    """Why it did not run."""


def race(contenders: Sequence[Contender], rounds: int, warmup: int = 1) -> list[Result]:
    """Run `rounds` rounds of every contender in turn, after `warmup` uncounted ones; results in the order given.

    The first contender is ours: if it fails, the race fails. Any other that cannot run is reported as missing.
    """
    with ExitStack() as stack:
        running, missing = _start(contenders, stack)
        measured: dict[str, list[Figures]] = {name: [] for name in running}
        for number in range(warmup + rounds):
            for name, contender in running.items():
                figures = contender.round()
                if number >= warmup:
                    measured[name].append(figures)
    return [
        Result(c.name, _medians(measured[c.name])) if c.name in measured else Result(c.name, {}, missing[c.name])
        for c in contenders
    ]


def _start(contenders: Sequence[Contender], stack: ExitStack) -> tuple[dict[str, Running], dict[str, str]]:
    """The contenders that can run, prepared one after the other, and the reasons of the rest."""
    running, missing = {}, {}
    for contender in contenders:
        process = Running(contender)
        stack.callback(process.stop)
        try:
            process.ready()
            running[contender.name] = process
        except Missing as reason:
            if contender is contenders[0]:
                raise
            missing[contender.name] = str(reason)
    return running, missing


def _medians(rounds: list[Figures]) -> Figures:
    return {name: median(figures[name] for figures in rounds) for name in rounds[0]}
