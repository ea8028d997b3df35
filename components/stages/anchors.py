"""The stage `anchors`: fit anchors to the training boxes, for every model that will be trained or evolved."""

from pathlib import Path
from typing import Literal, TypedDict

from components.datasets.prepared import load_prepared
from components.files import MANIFEST, require
from components.params import Params, hyperparameters
from yolo_core.anchors import FitSettings, Quality, choose
from yolo_core.atomic import write_json
from yolo_core.data.coco import DetectionDataset
from yolo_core.errors import advised, known_as
from yolo_core.models import get_spec
from yolo_core.progress import Progress, silent


class Report(TypedDict):
    """The content of <model>.json."""

    model: str
    """Name of the model."""

    size: int
    """Training input size, px."""

    anchors: list[list[list[float]]]
    """Per level: w and h of each anchor, px."""

    chosen: Literal["default", "fitted"]
    """Which set these are."""

    fitness: dict[str, float | None]
    """Of both sets; None for one that was not fitted."""

    best_possible_recall: dict[str, float | None]
    """Likewise."""

    boxes: int
    """Number of training boxes."""


def run(params: Params, *, data: Path, out: Path, progress: Progress = silent) -> dict[str, object]:
    """Write <out>/<model>.json for every model; the published anchors are kept unless the fitted ones are better.

    Raises UserError when the dataset is missing or its training images hold no boxes, and for an unknown model.
    """
    require(data / MANIFEST, "prepare")
    train_set = load_prepared(data, "train")
    models: list[str] = list(dict.fromkeys([*params.models, params.evolve.model]))
    chosen = {}
    for model in progress(models, "anchors"):
        report = fit_model(params, model, train_set)
        write_json(out / f"{model}.json", report)
        kept = report["fitness"][report["chosen"]]
        chosen[model] = f"{report['chosen']} (fitness {report['fitness']['default']:.3f} -> {kept:.3f})"
    return chosen


def fit_model(params: Params, model: str, train_set: DetectionDataset) -> Report:
    """The report on one model: anchors per level at the training size, which set was chosen, and how both score."""
    spec = get_spec(model)
    settings = params.train_settings(model)
    with known_as(size="train.size"):
        spec.checked_size(settings.size)
    anchor_t = hyperparameters(spec.hyp, settings).anchor_t
    with advised("give `prepare` a labelled source"):
        choice = choose(
            spec,
            train_set,
            settings.size,
            anchor_t=anchor_t,
            settings=FitSettings(**params.anchors.model_dump()),
            seed=params.seed,
        )
    before, after = choice.published_quality, choice.fitted_quality
    return {
        "model": model,
        "size": settings.size,
        "anchors": [level.tolist() for level in choice.levels],
        "chosen": "fitted" if choice.fitted else "default",
        "fitness": _figures("fitness", before, after),
        "best_possible_recall": _figures("recall", before, after),
        "boxes": choice.boxes,
    }


def _figures(name: str, default: Quality, fitted: Quality | None) -> dict[str, float | None]:
    return {"default": getattr(default, name), "fitted": getattr(fitted, name) if fitted else None}
