"""A bucket of any S3-compatible store: mirrored into the download folder, then read as a COCO or YOLO layout.

Objects that lie here already are not fetched again (`components.storage.folder`).
"""

from pathlib import Path

from components.params import Params
from components.raw_dataset import RawDataset
from components.sources import coco_dir, yolo_dir
from components.storage import folder, location
from yolo_core.errors import UserError
from yolo_core.progress import Progress


def load(params: Params, *, scratch: Path, downloads: Path, progress: Progress) -> RawDataset:
    """Mirror `prepare.location` (s3://bucket/prefix) and read what lies there."""
    given = params.prepare.location
    if not given or not given.startswith("s3://"):
        raise UserError(f"prepare.location = {given}: source s3 needs s3://bucket/prefix")
    place = location.parse(given)
    mirror = downloads / "s3" / place.bucket / place.key
    folder.pull(place, mirror, progress)
    if coco_dir.is_layout(mirror):
        return coco_dir.read(mirror, progress)
    if yolo_dir.is_layout(mirror):
        return yolo_dir.read(mirror, progress)
    looked_for = "annotations/instances_train.json (COCO), data.yaml or classes.txt (YOLO)"
    raise UserError(f"{place}: no known layout there; looked for {looked_for}")
