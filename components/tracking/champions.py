"""Champions for a self-hosted server: a folder, or a prefix in the object store, that it can read without MLflow.

    <location>/<model>/<version>/model.safetensors
    <location>/<model>/champion.json       version, weights and SHA-256 of the one in service; written last

<model> is the registered model's name, without the prefix of the default project.
Former champions stay, so that a rollback finds its version.
"""

import json
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from components.files import WEIGHTS, sha256
from components.storage.client import connect, reaching
from components.storage.download import download
from components.storage.location import Location, parse, path_or_location
from components.storage.objects import head
from components.storage.upload import upload
from components.tracking.model_versions import version_weights
from yolo_core.atomic import replaced
from yolo_core.errors import UserError

if TYPE_CHECKING:
    from mlflow import MlflowClient

LOCATION_TAG = "scaled_yolov4.champions"  # of the registered model: where its champions were published last
POINTER = "champion.json"
PREFIX = "scaled-yolov4-"  # of the default project's models, whose folders are without it


def location_of(client: "MlflowClient", name: str) -> str | None:
    """Where the champions of a registered model were published last; None when they never were."""
    return client.get_registered_model(name).tags.get(LOCATION_TAG)


def publish(client: "MlflowClient", name: str, number: int, location: str) -> None:
    """Publish version `number` of a registered model as the champion; nothing is sent when it is the champion there.

    location: a folder, or an s3:// prefix. Raises UserError when access is refused or the location cannot be written,
    TryAgain while the store is unavailable.
    """
    root = parse(location) if location.startswith("s3:") else path_or_location(location)
    model, version = name.removeprefix(PREFIX), client.get_model_version(name, str(number))
    with tempfile.TemporaryDirectory() as folder:
        if _pointer(root, model, Path(folder)).get("version") != number:
            weights = version_weights(version, Path(folder, WEIGHTS))
            record = {"version": number, "weights": f"{number}/{WEIGHTS}", "sha256": sha256(weights)}
            Path(folder, POINTER).write_text(json.dumps(record) + "\n", encoding="utf-8")
            _put(weights, root, f"{model}/{record['weights']}")
            _put(Path(folder, POINTER), root, f"{model}/{POINTER}")
    client.set_registered_model_tag(name, LOCATION_TAG, location)


def _pointer(root: Path | Location, model: str, folder: Path) -> dict[str, object]:
    """The content of champion.json there; empty while there is none."""
    path, here = f"{model}/{POINTER}", folder / "there.json"
    if isinstance(root, Location):
        with reaching(root):
            client = connect()
            if head(client, root / path):
                download(client, root / path, here)
    else:
        here = root / path
    try:
        return dict(json.loads(here.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return {}


def _put(file: Path, root: Path | Location, path: str) -> None:
    if isinstance(root, Location):
        with reaching(root):
            upload(connect(), file, root / path)
        return
    try:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        with replaced(root / path) as temporary:
            shutil.copyfile(file, temporary)
    except OSError as error:
        raise UserError(f"promote.champions = {root}: cannot be written ({error.strerror or error})") from None
