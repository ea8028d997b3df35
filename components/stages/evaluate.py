"""The stage `evaluate`: COCO metrics of a trained detector on the validation images, plain and with TTA."""

from pathlib import Path

from components import made_of
from components.evaluation import measurement
from components.evaluation.inputs import load_inputs
from components.files import MANIFEST, METRICS
from components.params import Params
from yolo_core import progress as progress_


def run(
    params: Params,
    *,
    model: str,
    data: Path,
    weights: Path,
    out: Path,
    drop_levels: int = 0,
    size: int | None = None,
    progress: progress_.Progress = progress_.silent,
) -> dict[str, float | None]:
    """Measure the detector and write the results to `out` (see `measurement.write`); return the main figures.

    drop_levels, size: see `load_inputs`.
    """
    loaded, dataset = load_inputs(model, data, weights, device=params.train.device, drop_levels=drop_levels, size=size)
    measured = measurement.measure(loaded, dataset, params, progress)
    measurement.write(measured, out)
    made_of.record(out / METRICS, weights=weights, manifest=data / MANIFEST)
    return measured.summary()
