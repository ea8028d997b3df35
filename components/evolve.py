"""The stage `evolve`: a genetic search of hyperparameters on Ray Tune, continued from its ledger after a kill.

The ledger grows in the work folder, under the digest of what determines the results, and is copied to the results
at the end. More trials or minutes continue the same ledger; anything else starts another.
"""

import dataclasses
import hashlib
import json
import sys
import time
from pathlib import Path
from typing import Any

import yaml

from components.ledger import Ledger, Record, opened
from components.params import Params
from components.train import configure, image_cache
from yolo_core.atomic import replaced, write_bytes
from yolo_core.evolution import EVOLVING, Mutation
from yolo_core.hyperparameters import Hyperparameters
from yolo_core.progress import Progress, silent
from yolo_core.train import Phase, TrainConfig

LEAST_GAIN = 0.005  # of fitness over the starting point; less is the chance of a short training, not an improvement


def run(
    params: Params, *, data: Path, anchors: Path, out: Path, work: Path = Path("runs"), progress: Progress = silent
) -> dict[str, Any]:
    """Search within the budget; write hyp.yaml, ledger.jsonl and fitness.png to `out`.

    anchors: folder of the `anchors` stage. hyp.yaml holds the evolved values of the best trial, or none where no
    trial beat the starting point (the model's recipe with the overrides of train.hyp) by `LEAST_GAIN`.
    Raises UserError for missing inputs, a damaged ledger, and a machine without the resources asked for.
    """
    settings = params.evolve
    config = trial_config(params, data, anchors)
    start = config.phases[0].hyp
    digest = search_digest(params, config)
    with opened(work / "evolve" / digest[:16] / "ledger.jsonl", digest) as ledger:
        if any(trial not in ledger.records for trial in range(settings.trials)):
            _search(params, config, ledger, data, work, progress)
        records = [ledger.records[trial] for trial in sorted(ledger.records) if trial < settings.trials]
        return _write_results(params, records, start, ledger.path.read_bytes(), out)


def trial_config(params: Params, data: Path, anchors: Path) -> TrainConfig:
    """The training of the starting point: as the stage `train` would do it, but shorter.

    The other trials differ in their hyperparameters alone.
    """
    settings = params.evolve
    full = configure(params, settings.model, data, anchors / f"{settings.model}.json", None)
    return dataclasses.replace(
        full,
        phases=(Phase(settings.epochs, full.phases[0].hyp),),
        eval_every=settings.epochs,
        sync_bn=False,
        compile=False,
        device=full.device if settings.gpus_per_trial else "cpu",
        loader_workers=0,
    )


def search_digest(params: Params, config: TrainConfig) -> str:
    """SHA-256 (hex) of what determines each trial's values and figures: not the budget, not the processors."""
    limits = {"trials", "minutes", "cpus_per_trial", "gpus_per_trial"}
    what = {"evolve": params.evolve.model_dump(exclude=limits), "train": config.identity()}
    return hashlib.sha256(json.dumps(what, sort_keys=True).encode()).hexdigest()


def _search(params: Params, config: TrainConfig, ledger: Ledger, data: Path, work: Path, progress: Progress) -> None:
    """Run the trials that the ledger lacks, with one line for each that ends."""
    from components import search  # Ray takes seconds to import

    settings = params.evolve
    began = time.time() - ledger.elapsed
    bar = progress(range(settings.trials), "evolve", settings.trials)
    for _ in range(len(ledger.records) + 1):
        next(bar, None)

    def report(record: Record) -> None:
        next(bar, None)
        print(_line(record, len(ledger.records), settings.trials), file=sys.stderr, flush=True)

    search.search(
        search.TrialPlan(
            config=config,
            data=data.resolve(),
            images=image_cache(params, data, work),
            train_images=settings.train_images,
            val_images=settings.val_images,
            threads=max(1, int(settings.cpus_per_trial)),
        ),
        dataclasses.asdict(config.phases[0].hyp),
        ledger,
        mutation=Mutation(settings.parents, settings.mutation_probability, settings.sigma),
        budget=search.Budget(settings.trials, began + 60 * settings.minutes),
        resources=search.Resources(settings.concurrent, settings.cpus_per_trial, settings.gpus_per_trial),
        began=began,
        on_record=report,
    )


def _line(record: Record, ended: int, trials: int) -> str:
    origin = "the starting point" if record.parent is None else f"child of {record.parent}"
    result = record.reason or f"AP {record.AP:.4f}, AP50 {record.AP50:.4f}, fitness {record.fitness:.4f}"
    return f"evolve: {ended}/{trials}, trial {record.trial}, {origin}: {result}, {record.seconds:.1f} s"


def _write_results(
    params: Params, records: list[Record], start: Hyperparameters, ledger: bytes, out: Path
) -> dict[str, Any]:
    first = next((record.fitness for record in records if record.trial == 0), None)
    best = max(records, key=lambda record: (record.fitness, -record.trial), default=None)
    won = best is not None and first is not None and best.fitness - first >= LEAST_GAIN
    evolved = evolved_values(best, start) if best and won else {}
    result = {
        "model": params.evolve.model,
        "fitness": best.fitness if best else None,
        "start_fitness": first,
        "trials": len(records),
        "hyp": evolved,
    }
    _write(out, {"ledger.jsonl": ledger, "hyp.yaml": yaml.safe_dump(result, sort_keys=False).encode()}, records)
    return {
        "trials": f"{len(records)} of {params.evolve.trials}",
        "failed": sum(record.reason is not None for record in records),
        "fitness": "none" if first is None or best is None else f"{first:.4f} -> {best.fitness:.4f}",
        "evolved": len(evolved),
    }


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
