"""The source `coco2017`: the official archives, downloaded, verified, unpacked and read as a COCO layout."""

import json
import os
from dataclasses import dataclass
from pathlib import Path

from components.datasets.raw import RawDataset, Resolved
from components.datasets.sources import coco_dir
from components.datasets.sources.archive import extract
from components.params import Params
from components.storage.web import Download, fetch
from yolo_core.atomic import write_json
from yolo_core.errors import UserError
from yolo_core.progress import Progress

BASE_URL = "http://images.cocodataset.org"
BASE_URL_VARIABLE = "COCO_BASE_URL"  # address of a mirror with the same paths


@dataclass(frozen=True)
class Archive:
    """An archive of COCO."""

    path: str
    """Below the base address."""
    size: int
    """Size in bytes."""
    md5: str
    """MD5, hex."""
    folders: tuple[str, ...]
    """Top-level folders it may unpack into."""

    @property
    def name(self) -> str:
        return self.path.rsplit("/", 1)[-1]


# Sizes as the host sends them. The COCO site publishes no checksums: these MD5s are those that PaddlePaddle, MLPerf's
# and other public download scripts have long checked the same files against.
ARCHIVES = (
    Archive(
        "annotations/annotations_trainval2017.zip", 252_907_541, "f4bbac642086de4f52a3fdda2de5fa2c", ("annotations",)
    ),
    Archive("zips/val2017.zip", 815_585_330, "442b8da7639aecaf257c1dceb8ba8c80", ("val2017",)),
    Archive("zips/train2017.zip", 19_336_861_798, "cced6f7f71b7629ddf16f17bbcfab6b2", ("train2017",)),
)


def load(params: Params, *, scratch: Path, downloads: Path, progress: Progress) -> RawDataset:
    """Download and unpack what is missing to `prepare.location` (default: the download folder)."""
    folder = Path(params.prepare.location).expanduser() if params.prepare.location else downloads / "coco2017"
    base = os.environ.get(BASE_URL_VARIABLE, BASE_URL).rstrip("/")
    if not base.startswith(("http://", "https://")):
        raise UserError(f"{BASE_URL_VARIABLE} = {base}: expected an http:// or https:// address")
    for archive in ARCHIVES:
        _provide(archive, base, folder, progress)
    return coco_dir.read(folder, progress)


def resolve(params: Params) -> Resolved:
    """Fingerprint the archives by their checksums, which never change."""
    return Resolved(" ".join(archive.md5 for archive in ARCHIVES))


def _provide(archive: Archive, base: str, folder: Path, progress: Progress) -> None:
    """Unpack an archive, unless a marker says that this very archive has been unpacked completely."""
    marker = folder / f".{archive.name}.unpacked.json"
    content = {"size": archive.size, "md5": archive.md5}
    try:
        if json.loads(marker.read_bytes()) == content:
            return
    except (OSError, ValueError):
        pass
    target = folder / archive.name
    more_room = "set prepare.location to a folder with more room"
    fetch(Download(f"{base}/{archive.path}", target, archive.size, archive.md5, more_room=more_room), progress)
    extract(target, folder, archive.folders, progress)
    write_json(marker, content)
