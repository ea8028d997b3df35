"""Folders whose layout is detected: COCO or YOLO."""

from pathlib import Path

from components.datasets.raw import RawDataset
from components.datasets.sources import coco_dir, yolo_dir
from yolo_core.errors import UserError
from yolo_core.progress import Progress


def read(root: Path, named: str, progress: Progress) -> RawDataset:
    """Read both splits of the layout at `root`. named: its name in an error."""
    if coco_dir.is_layout(root):
        return coco_dir.read(root, progress)
    if yolo_dir.is_layout(root):
        return yolo_dir.read(root, progress)
    looked_for = "annotations/instances_train.json (COCO), data.yaml or classes.txt (YOLO)"
    raise UserError(f"{named}: unknown layout; looked for {looked_for}")
