"""The stage `evolve`: a genetic hyperparameter search on Ray Tune, resumed from its ledger after a kill.

The ledger grows in the work folder, under the digest of what determines the results, and is copied to the results
at the end. More trials or minutes continue the same ledger; any other change starts a new one. Before the winner's
values replace the starting point's, both are trained with other seeds (`evolve.confirm`), within the same budget.
"""

import time
from contextlib import nullcontext
from pathlib import Path

from components.evolution.cluster import cluster
from components.evolution.confirmation import confirmed_gain
from components.evolution.ledger import opened
from components.evolution.results import write_results
from components.evolution.setup import Search, search_digest, trial_config
from components.evolution.trials import run_trials, trials_due
from components.evolution.winner import winner
from components.files import LEDGER
from components.params import Params
from yolo_core.progress import Progress, silent


def run(
    params: Params, *, data: Path, anchors: Path, out: Path, work: Path = Path("runs"), progress: Progress = silent
) -> dict[str, object]:
    """Search within the budget; write hyp.yaml, ledger.jsonl and fitness.png to `out`.

    anchors: folder of the `anchors` stage. hyp.yaml holds the evolved values of the best trial, or none if no trial
    beat the starting point (the model's recipe with the overrides of train.hyp) by `MIN_GAIN`, or if the gain was
    within the spread of the starting point (`components.evolution.adoption`).
    Raises UserError for missing inputs, a damaged ledger, and a machine without the requested resources.
    """
    config = trial_config(params, data, anchors, progress)
    digest = search_digest(params, config)
    with opened(work / "evolve" / digest[:16] / LEDGER, digest) as ledger:
        search = Search(params, config, ledger, data, work.absolute(), time.time() - ledger.elapsed)
        search.check_names()
        missing = trials_due(search)
        with cluster(search.resources) if missing else nullcontext():  # one for trials and checks
            if missing:
                run_trials(search, progress)
            best = winner(search.records)
            gained = confirmed_gain(search, best) if best else None
        return write_results(search, best, gained, out)
