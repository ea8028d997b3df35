"""What a stage needs from the stages before it."""

from pathlib import Path

from yolo_core.errors import UserError


def require(path: Path, stage: str) -> Path:
    """`path` when it exists; otherwise UserError naming it and the stage that makes it."""
    if not path.exists():
        raise UserError(f"{path}: not found; run `scaled-yolov4 {stage}` (or `dvc repro`) first, or name another path")
    return path
