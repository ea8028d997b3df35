"""Parameters with which the whole job takes seconds per stage."""

from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[2]
MODEL = "yolov4-tiny"
TINY = {
    "models": [MODEL],
    "prepare": {"digits": {"train_images": 24, "val_images": 12, "image_size": 96}},
    "anchors": {"kmeans_iterations": 5, "generations": 20},
    "evolve": {"trials": 0},
    "train": {"size": 64, "epochs": 1, "batch": 8, "nominal_batch": 8, "device": "cpu", "hyp": {"warmup_epochs": 0}},
    "export": {"check_images": 4, "openvino": ["fp32", "int8"]},
    "benchmark": {"batches": [1], "warmup": 0, "runs": 2, "threads": 1},
    "promote": {"bootstrap_samples": 100},
}


def write_params(folder: Path, **sections: dict[str, Any]) -> None:
    """The project's params.yaml at its smallest, with other values in some sections."""
    text = (ROOT / "params.yaml").read_text()
    params = _merged(_merged(yaml.safe_load(text), TINY), sections)
    (folder / "params.yaml").write_text(yaml.safe_dump(params, sort_keys=False))


def _merged(base: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    return {
        **base,
        **{k: _merged(base[k], v) if isinstance(v, dict) and base.get(k) else v for k, v in changes.items()},
    }
