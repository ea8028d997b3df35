"""The stage `evolve`: a genetic search of hyperparameters on Ray Tune, continued from its ledger after a kill.

The ledger grows in the work folder, under the digest of what determines the results, and is copied to the results
at the end. More trials or minutes continue the same ledger; anything else starts another. Before the winner's values
take the place of the starting point's, both may be trained at full length with several seeds (`evolve.confirm`).
"""

import dataclasses
import hashlib
import json
import math
import sys
import time
from pathlib import Path
from typing import Any

import yaml

from components.evolution.ledger import Confirmation, Ledger, Record, opened
from components.params import Params
from components.training.configuration import configure, image_cache
from yolo_core.atomic import replaced, write_bytes
from yolo_core.errors import UserError
from yolo_core.evolution import EVOLVING, Gain, Mutation, gain
from yolo_core.hyperparameters import Hyperparameters
from yolo_core.progress import Progress, silent
from yolo_core.train import Phase, TrainConfig

LEAST_GAIN = 0.005  # of fitness over the starting point; less is the chance of a short training, not an improvement


def run(
    params: Params, *, data: Path, anchors: Path, out: Path, work: Path = Path("runs"), progress: Progress = silent
) -> dict[str, Any]:
    """Search within the budget; write hyp.yaml, ledger.jsonl and fitness.png to `out`.

    anchors: folder of the `anchors` stage. hyp.yaml holds the evolved values of the best trial, or none where no
    trial beat the starting point (the model's recipe with the overrides of train.hyp) by `LEAST_GAIN`, or where that
    was not confirmed.
    Raises UserError for missing inputs, a damaged ledger, and a machine without the resources asked for.
    """
    settings = params.evolve
    config = trial_config(params, data, anchors)
    start = config.phases[0].hyp
    digest = search_digest(params, config)
    with opened(work / "evolve" / digest[:16] / "ledger.jsonl", digest) as ledger:
        _check_names(ledger, start)
        search = Search(params, config, ledger, data, work.absolute(), time.time() - ledger.elapsed)
        if any(trial not in ledger.records for trial in range(settings.trials)):
            _search(search, progress)
        records = [ledger.records[trial] for trial in sorted(ledger.records) if trial < settings.trials]
        best = _winner(records)
        gained = _confirm(search, best) if best and settings.confirm else None
        return _write_results(search, records, best, gained, out)


@dataclasses.dataclass(frozen=True)
class Search:
    """What a search is about. config: the training of the starting point. began: Unix time, had it never stopped."""

    params: Params
    config: TrainConfig
    ledger: Ledger
    data: Path
    work: Path
    began: float

    @property
    def start(self) -> Hyperparameters:
        return self.config.phases[0].hyp


def _check_names(ledger: Ledger, start: Hyperparameters) -> None:
    names = dataclasses.asdict(start).keys()
    for record in ledger.records.values():
        if record.hyp.keys() != names:
            raise UserError(f"{ledger.path}: trial {record.trial} has other hyperparameters; remove its line")


def trial_config(params: Params, data: Path, anchors: Path) -> TrainConfig:
    """The training of the starting point: as the stage `train` would do it, but shorter.

    The other trials differ in their hyperparameters alone.
    """
    settings = params.evolve
    full = configure(params, settings.model, data, anchors / f"{settings.model}.json", None)
    return dataclasses.replace(
        full,
        phases=(Phase(settings.epochs, full.phases[0].hyp),),
        eval_every=math.gcd(settings.epochs, *(settings.halving.epochs if settings.halving else ())),
        sync_bn=False,
        compile=False,
        device=full.device if settings.gpus_per_trial else "cpu",
        loader_workers=0,
    )


def search_digest(params: Params, config: TrainConfig) -> str:
    """SHA-256 (hex) of what determines each trial's values and figures: not the budget, not the processors."""
    limits = {"trials", "minutes", "gpu_hours", "cpus_per_trial", "gpus_per_trial", "confirm"}
    what = {"evolve": params.evolve.model_dump(exclude=limits), "train": config.identity()}
    return hashlib.sha256(json.dumps(what, sort_keys=True).encode()).hexdigest()


def _search(work: Search, progress: Progress) -> None:
    """Run the trials that the ledger lacks, with one line for each that ends."""
    from components.evolution import search  # Ray takes seconds to import

    settings, ledger = work.params.evolve, work.ledger
    bar = progress(range(settings.trials), "evolve", settings.trials)
    for _ in range(len(ledger.records) + 1):
        next(bar, None)

    def report(record: Record) -> None:
        next(bar, None)
        _say(_line(record, len(ledger.records), settings.trials))

    search.search(
        dataclasses.replace(
            _plan(work, work.config),
            train_images=settings.train_images,
            val_images=settings.val_images,
            rungs=tuple(settings.halving.epochs) if settings.halving else (),
            keep=settings.halving.keep if settings.halving else 1.0,
        ),
        dataclasses.asdict(work.start),
        ledger,
        mutation=Mutation(settings.parents, settings.mutation_probability, settings.sigma),
        budget=_budget(work),
        resources=_resources(work.params),
        began=work.began,
        on_record=report,
    )


def _plan(work: Search, config: TrainConfig) -> Any:
    from components.evolution import search

    return search.TrialPlan(
        config=config,
        data=work.data.resolve(),
        images=image_cache(work.params, work.data, work.work),
        train_images=None,
        val_images=None,
        threads=max(1, int(work.params.evolve.cpus_per_trial)),
        work=work.ledger.path.parent.absolute(),
    )


def _budget(work: Search) -> Any:
    from components.evolution import search

    settings = work.params.evolve
    gpu_seconds = math.inf if settings.gpu_hours is None else 3600 * settings.gpu_hours
    return search.Budget(settings.trials, work.began + 60 * settings.minutes, gpu_seconds)


def _resources(params: Params) -> Any:
    from components.evolution import search

    return search.Resources(params.evolve.concurrent, params.evolve.cpus_per_trial, params.evolve.gpus_per_trial)


def _winner(records: list[Record]) -> Record | None:
    """The best trial, None where it is not clearly better than the starting point. One that was stopped cannot win."""
    first = next((record.fitness for record in records if record.trial == 0), None)
    whole = [record for record in records if record.stopped_at is None]
    best = max(whole, key=lambda record: (record.fitness, -record.trial), default=None)
    return best if best and first is not None and best.fitness - first >= LEAST_GAIN else None


def _confirm(work: Search, best: Record) -> Gain | None:
    """The gain of the winner over the starting point at full length; None where the budget ended before it is known.

    Both are trained with the same seeds, none of which is the search's own: by that one the winner was chosen.
    """
    settings, seed = work.params.evolve, work.config.seed
    assert settings.confirm
    epochs = settings.confirm.epochs or work.params.train_settings(settings.model).epochs
    config = dataclasses.replace(work.config, phases=(Phase(epochs, work.start),), eval_every=epochs)
    plan = hashlib.sha256(json.dumps(config.identity(), sort_keys=True).encode()).hexdigest()[:16]
    seeds = [seed + 1 + number for number in range(settings.confirm.seeds)]
    values = {0: dataclasses.asdict(work.start), best.trial: best.hyp}

    def known() -> dict[tuple[int, int], float]:
        return {(one.confirms, one.seed): one.fitness for one in work.ledger.confirmations if one.plan == plan}

    wanted = [(trial, each) for each in seeds for trial in values]
    lacking = [(trial, each) for trial, each in wanted if (trial, each) not in known()]
    if lacking:
        from components.evolution import search

        search.confirm(
            _plan(work, config),
            plan,
            [search.Check(trial, each, values[trial]) for trial, each in lacking],
            work.ledger,
            budget=_budget(work),
            resources=_resources(work.params),
            began=work.began,
            on_record=lambda one: _say(_confirmation_line(one)),
        )
    found = known()
    if any(each not in found for each in wanted):
        return None
    return gain([found[best.trial, each] for each in seeds], [found[0, each] for each in seeds], LEAST_GAIN)


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _confirmation_line(one: Confirmation) -> str:
    what = f"trial {one.confirms}" if one.confirms else "the starting point"
    return f"evolve: {what} at full length, seed {one.seed}: {_result(one)}"


def _line(record: Record, ended: int, trials: int) -> str:
    origin = "the starting point" if record.parent is None else f"child of {record.parent}"
    stopped = "" if record.stopped_at is None else f", stopped after epoch {record.stopped_at}"
    return f"evolve: {ended}/{trials}, trial {record.trial}, {origin}: {_result(record)}{stopped}"


def _result(one: Record | Confirmation) -> str:
    figures = one.reason or f"AP {one.AP:.4f}, AP50 {one.AP50:.4f}, fitness {one.fitness:.4f}"
    return f"{figures}, {one.seconds:.1f} s"


def _write_results(
    search: Search, records: list[Record], best: Record | None, gained: Gain | None, out: Path
) -> dict[str, Any]:
    settings = search.params.evolve
    first = next((record.fitness for record in records if record.trial == 0), None)
    top = max((record.fitness for record in records), default=None)
    holds = gained.holds if gained else not settings.confirm
    evolved = evolved_values(best, search.start) if best and holds else {}
    result = {
        "model": settings.model,
        "fitness": top,
        "start_fitness": first,
        "trials": len(records),
        "confirmed": gained and dataclasses.asdict(gained),
        "hyp": evolved,
    }
    ledger = search.ledger.path.read_bytes()
    _write(out, {"ledger.jsonl": ledger, "hyp.yaml": yaml.safe_dump(result, sort_keys=False).encode()}, records)
    return {
        "trials": f"{len(records)} of {settings.trials}",
        "failed": sum(record.reason is not None for record in records),
        "fitness": "none" if first is None or top is None else f"{first:.4f} -> {top:.4f}",
        **({"confirmed": _verdict(best, gained)} if settings.confirm else {}),
        "evolved": len(evolved),
    }


def _verdict(best: Record | None, gained: Gain | None) -> str:
    if best is None:
        return "nothing to confirm"
    if gained is None:
        return "not within the budget"
    return f"{'yes' if gained.holds else 'no'}, gain {gained.gain:+.4f} with a spread of {gained.spread:.4f}"


def _write(out: Path, files: dict[str, bytes], records: list[Record]) -> None:
    """The files and the plot, unless they are there already: Matplotlib takes a good part of a second to import."""
    plotted = out / "fitness.png"
    if plotted.exists() and all(_content(out / name) == content for name, content in files.items()):
        return
    for name, content in files.items():
        write_bytes(out / name, content)
    plot(records, plotted)


def _content(path: Path) -> bytes | None:
    return path.read_bytes() if path.exists() else None


def evolved_values(best: Record, start: Hyperparameters) -> dict[str, float]:
    """The values in which a trial differs from the starting point."""
    return {name: best.hyp[name] for name in EVOLVING if best.hyp[name] != getattr(start, name)}


def plot(records: list[Record], path: Path) -> None:
    """Fitness of every trial, the best so far, and the starting point's as a line."""
    from matplotlib.figure import Figure  # seconds to import
    from matplotlib.ticker import MaxNLocator

    figure = Figure(figsize=(7, 4), layout="constrained")
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
