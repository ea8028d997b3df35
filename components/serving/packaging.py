"""The detector as an MLflow model that loads and serves without this project installed."""

import base64
import importlib.metadata
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import yolo_core

if TYPE_CHECKING:
    from mlflow.models import ModelSignature

SERVING_CODE = Path(__file__).with_name("detector_model.py")

# What `detector_model.py` imports besides MLflow: no training, no pipeline.
SERVING_PACKAGES = ("torch", "numpy", "numba", "opencv-python-headless", "pandas", "pillow", "safetensors")


def log_model(run_id: str, weights: Path, example: Path, suppression: Mapping[str, float] | None) -> str:
    """Log the detector with its code to a run and return the model's URI.

    example: an image file for the docs; suppression: the fields of `Suppression` it was evaluated with, which `predict`
    uses unless it is told otherwise.
    """
    import mlflow

    from components.serving.detector_model import LEGACY_SUPPRESSION

    suppression = suppression or LEGACY_SUPPRESSION

    with mlflow.start_run(run_id=run_id, log_system_metrics=False):
        logged = mlflow.pyfunc.log_model(
            name="model",
            python_model=str(SERVING_CODE),
            code_paths=[str(Path(yolo_core.__file__).parent)],
            artifacts={"weights": str(weights)},
            model_config=dict(suppression),
            signature=_signature(suppression),
            input_example=[base64.b64encode(example.read_bytes()).decode()],
            pip_requirements=_requirements(),
        )
    return logged.model_uri


def _signature(suppression: Mapping[str, float]) -> "ModelSignature":
    """Outputs and parameters. Inputs stay open: no schema allows bytes, text and arrays at once."""
    from mlflow.models import ModelSignature
    from mlflow.types.schema import Array, ColSpec, DataType, Object, ParamSchema, ParamSpec, Property, Schema

    box = [Property(name, DataType.double) for name in ("x1", "y1", "x2", "y2", "score")]
    box += [Property("class_id", DataType.long), Property("class_name", DataType.string)]
    types = {float: DataType.double, int: DataType.long}
    params = [ParamSpec(name, types[type(value)], value) for name, value in suppression.items()]
    return ModelSignature(outputs=Schema([ColSpec(Array(Array(Object(box))))]), params=ParamSchema(params))


def _requirements() -> list[str]:
    """The packages inference needs, at the installed versions, without local build labels such as +cpu."""

    def pinned(package: str) -> str:
        return f"{package}=={importlib.metadata.version(package).partition('+')[0]}"

    return [pinned(package) for package in ("mlflow", *SERVING_PACKAGES)]
