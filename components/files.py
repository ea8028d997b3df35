"""Files that one stage leaves and another reads: named, found, read as JSON, hashed."""

import hashlib
import json
from pathlib import Path
from typing import Any

from yolo_core.errors import UserError

MANIFEST = "manifest.json"  # of `prepare`
HYP, LEDGER, FITNESS_PLOT = "hyp.yaml", "ledger.jsonl", "fitness.png"  # of `evolve`
WEIGHTS, CURVES, TRAINING = "model.safetensors", "curves.csv", "train.json"  # of `train`
METRICS, DETECTIONS, CONFUSION = "metrics.json", "detections.json", "confusion.json"  # of `evaluate`
EXPORT, GRAPH, GRAPH_WITH_NMS = "export.json", "model.onnx", "model_nms.onnx"  # of `export`
SPEED = "benchmark.json"  # of `benchmark`
DECISION, DECISION_PAGE = "decision.json", "decision.md"  # of `retrain`


def annotation_file(split: str) -> str:
    """The COCO file of a split below a dataset folder, where `yolo_core.data.coco.load_split` reads it."""
    return f"annotations/instances_{split}.json"


def require(path: Path, stage: str) -> Path:
    """`path` when it exists; otherwise UserError naming it and the stage that makes it."""
    if not path.exists():
        raise UserError(f"{path}: not found; run `scaled-yolov4 {stage}` (or `dvc repro`) first, or name another path")
    return path


def read_json(path: Path) -> Any:
    """The content of a JSON file; UserError when it is damaged."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path}: not valid JSON ({error}); run the stage that makes it again") from None


def sha256(path: Path) -> str:
    """SHA-256 (hex) of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
