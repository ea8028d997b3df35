"""The source `s3`: a prefix in any S3-compatible store, mirrored to the downloads and read in any layout.

Only what changed is downloaded (`components.storage.folder`).
"""

from pathlib import Path

from components.datasets.raw import RawDataset, Resolved
from components.datasets.sources import layouts
from components.datasets.sources.fingerprint import fingerprint
from components.params import Params
from components.storage import folder, location
from yolo_core.errors import UserError
from yolo_core.progress import Progress


def load(params: Params, *, scratch: Path, downloads: Path, progress: Progress) -> RawDataset:
    """Mirror `prepare.location` (s3://bucket/prefix) and read it."""
    source = _source(params)
    mirror = downloads / "s3" / source.bucket / source.key
    folder.pull(source, mirror, progress)
    return layouts.read(mirror, str(source), progress)


def resolve(params: Params) -> Resolved:
    """Fingerprint the objects by the sizes and ETags in the store's listing."""
    objects = folder.contents(_source(params)).values()
    return Resolved(fingerprint(f"{item.path} {item.size} {item.etag}" for item in objects))


def _source(params: Params) -> location.Location:
    given = params.prepare.location
    if not given or not given.startswith("s3://"):
        raise UserError(f"prepare.location = {given}: source s3 needs s3://bucket/prefix")
    return location.parse(given)
