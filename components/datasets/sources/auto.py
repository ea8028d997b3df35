"""The source `auto`: a folder whose layout is recognised, COCO, YOLO or Pascal VOC as any tool exports it."""

from pathlib import Path

from components.datasets.raw import RawDataset, Resolved
from components.datasets.sources import layouts, yolo_dir
from components.params import Params
from yolo_core.errors import UserError
from yolo_core.progress import Progress

ARCHIVES = (".zip", ".tar", ".gz", ".tgz", ".7z", ".rar")


def load(params: Params, *, scratch: Path, downloads: Path, progress: Progress) -> RawDataset:
    """Read the layout at `prepare.location`, a folder or a dataset yaml."""
    location = _location(params)
    return yolo_dir.read(location, progress) if location.is_file() else layouts.read(location, str(location), progress)


def resolve(params: Params) -> Resolved:
    """Delegate to the source that reads this layout."""
    location = _location(params)
    if location.is_file():
        return yolo_dir.resolve(params)
    source, folder = layouts.recognise(location, str(location))
    prepare = params.prepare.model_copy(update={"location": str(folder)})
    return layouts.KINDS[source].resolve(params.model_copy(update={"prepare": prepare}))


def _location(params: Params) -> Path:
    if not params.prepare.location:
        raise UserError("prepare.location: not set; source auto needs the folder of a dataset, or its data.yaml")
    location = Path(params.prepare.location).expanduser()
    if not location.exists():
        raise UserError(f"prepare.location = {location}: no such folder")
    if location.suffix.lower() in ARCHIVES and location.is_file():
        raise UserError(f"prepare.location = {location}: is an archive; unpack it and give the folder")
    return location
