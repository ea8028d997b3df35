"""The sources of `prepare`: one module each, with two functions

    load(params, *, scratch, downloads, progress) -> RawDataset
    resolve(params) -> Resolved

`scratch` is an empty folder that is removed when `prepare` ends; `downloads` keeps what was downloaded.
A source checks its layout; images and boxes are checked afterwards, in the same way for all. `resolve` fingerprints the
data without fetching them, to tell whether they changed.
"""

from pathlib import Path
from typing import Protocol

from components.datasets.raw import RawDataset, Resolved
from components.params import Params
from yolo_core.progress import Progress


class Source(Protocol):
    """The functions of a source's module."""

    def load(self, params: Params, *, scratch: Path, downloads: Path, progress: Progress) -> RawDataset: ...

    def resolve(self, params: Params) -> Resolved: ...


def module(source: str) -> Source:
    """The module of a value of `prepare.source`, imported only if chosen: boto3, DVC and scikit-learn take seconds."""
    match source:
        case "digits":
            from components.datasets.sources import digits as chosen
        case "auto":
            from components.datasets.sources import auto as chosen
        case "coco-dir":
            from components.datasets.sources import coco_dir as chosen
        case "yolo-dir":
            from components.datasets.sources import yolo_dir as chosen
        case "voc-dir":
            from components.datasets.sources import voc_dir as chosen
        case "coco2017":
            from components.datasets.sources import coco2017 as chosen
        case "s3":
            from components.datasets.sources import s3 as chosen
        case "dvc":
            from components.datasets.sources import dvc_repo as chosen
        case _:
            raise ValueError(f"no source {source!r}")
    return chosen
