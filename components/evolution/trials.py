"""Runs the trials of a search, with a line and a step of the progress bar for each that ends."""

from dataclasses import asdict

from components.evolution import ray_settings
from components.evolution.budget import BudgetTracker
from components.evolution.ledger import Record
from components.evolution.messages import say, trial_line
from components.evolution.setup import Search
from yolo_core.evolution import Mutation
from yolo_core.progress import Progress


def trials_due(search: Search) -> bool:
    """Whether there are trials to run and a budget for them."""
    return (
        not search.is_finished and BudgetTracker(search.trial_budget, search.resources, search.ledger).seconds_left > 0
    )


def run_trials(search: Search, progress: Progress) -> None:
    """Run the trials missing from the ledger until the budget is spent."""
    ray_settings.apply()
    from components.evolution import search as tune_search  # Ray takes seconds to import

    settings, ledger = search.settings, search.ledger
    bar = progress(range(settings.trials), "evolve", settings.trials)
    for _ in range(len(ledger.records) + 1):
        next(bar, None)

    def report(record: Record) -> None:
        next(bar, None)
        say(trial_line(record, len(ledger.records), settings.trials))

    tune_search.search(
        search.trial_plan(),
        asdict(search.start),
        ledger,
        mutation=Mutation(settings.parents, settings.mutation_probability, settings.sigma),
        budget=search.trial_budget,
        resources=search.resources,
        began=search.began,
        on_record=report,
    )
