"""Where serving finds champions without asking MLflow: a folder or a prefix in the object store.

    <place>/<model>/<version>/model.safetensors
    <place>/<model>/champion.json       version and SHA-256 of the one in service; written last

What serves may read there and nothing else. Versions that were champions stay, so that a rollback finds its own.
"""

import json
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from components.promote import CHAMPION, version_of, version_weights
from components.register import sha256
from components.storage.client import connect, reaching
from components.storage.location import Location, path_or_location
from components.storage.transfer import upload
from components.tracking import connect as connect_mlflow
from components.tracking import reaching as reaching_mlflow
from yolo_core.atomic import replaced

if TYPE_CHECKING:
    from mlflow.entities.model_registry import ModelVersion

POINTER = "champion.json"
WEIGHTS = "model.safetensors"


def publish(model: str, place: str) -> None:
    """Put the champion of a model where `place` says; safe to repeat, and where it is there already nothing changes.

    Raises UserError where access is refused, TryAgain while the store or MLflow is away.
    """
    with reaching_mlflow():
        champion = version_of(connect_mlflow(), model, CHAMPION)
        if champion is None:
            return
        with tempfile.TemporaryDirectory() as folder:
            for file in _files(champion, Path(folder)):
                _put(file, path_or_location(place), f"{model}/{file.relative_to(folder)}")


def _files(champion: "ModelVersion", folder: Path) -> list[Path]:
    """Those of the champion, below `folder` as they are to lie, in the order in which they are to be put there."""
    version = str(champion.version)
    (folder / version).mkdir()
    weights = version_weights(champion, folder / version / WEIGHTS)
    record = {"version": int(version), "weights": f"{version}/{WEIGHTS}", "sha256": sha256(weights)}
    (folder / POINTER).write_text(json.dumps(record) + "\n", encoding="utf-8")
    return [weights, folder / POINTER]


def _put(file: Path, place: Path | Location, path: str) -> None:
    if isinstance(place, Location):
        with reaching(place):
            upload(connect(), file, place / path)
        return
    (place / path).parent.mkdir(parents=True, exist_ok=True)
    with replaced(place / path) as temporary:
        shutil.copyfile(file, temporary)
