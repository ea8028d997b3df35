"""The detector that `predict` uses: a file, the champion of the registry, or the newest training."""

from pathlib import Path

from components.tracking.model_versions import CHAMPION
from yolo_core.errors import UserError
from yolo_core.inference.weights_file import local_file


def detector_file(weights: str, champion: str, trainings: Path) -> Path:
    """The file to open: `weights`, a path or an address; else a registered champion; else the newest of `trainings`.

    champion: name of the registered model.
    trainings: the pattern of the files that trainings write. Raises UserError when there is none.
    """
    if weights and champion:
        raise UserError("--weights and --champion: give one of them")
    if champion:
        weights = f"models:/{champion}@{CHAMPION}"
    if weights:
        return local_file(weights)
    found = sorted(Path().glob(str(trainings)), key=lambda path: path.stat().st_mtime)
    if not found:
        raise UserError(f"{trainings}: no trained model here; train one, or give --weights FILE or --champion MODEL")
    return found[-1]
