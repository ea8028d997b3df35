"""Folders whose layout is recognised by what lies there: COCO, YOLO or Pascal VOC, as any tool exports them."""

from dataclasses import replace
from pathlib import Path
from typing import Protocol

from components.datasets.raw import RawDataset, Resolved
from components.datasets.sources import coco_dir, coco_layout, voc_dir, yolo_dir
from components.params import Params
from yolo_core.errors import UserError
from yolo_core.progress import Progress


class Layout(Protocol):
    """The functions of a layout's module, which is also the source that its key in `KINDS` names.

    It has a constant `LOOKED_FOR` too: the files it recognises, for the error about an unknown layout.
    """

    def is_layout(self, root: Path) -> bool:
        """Whether the folder has this layout; every layout is asked, so it should be quick."""
        ...

    def read(self, root: Path, progress: Progress, /) -> RawDataset:
        """Read it. Raises UserError naming what was not found, and where."""
        ...

    def resolve(self, params: Params) -> Resolved:
        """Fingerprint the folder `prepare.location`, as every source does."""
        ...


# The first one that fits is read: annotations with sizes in pixels say more than rows of numbers.
KINDS: dict[str, Layout] = {"coco-dir": coco_dir, "yolo-dir": yolo_dir, "voc-dir": voc_dir}
LOOKED_FOR = f"{coco_layout.LOOKED_FOR}; {yolo_dir.LOOKED_FOR}; {voc_dir.LOOKED_FOR}"
DEEPEST = 3  # folders that archives are wrapped in


def read(root: Path, named: str, progress: Progress) -> RawDataset:
    """Read the layout at `root`, or in its only folder. named: its name in an error."""
    source, folder = recognise(root, named)
    raw = KINDS[source].read(folder, progress)
    if raw.reading:
        raw = replace(raw, reading=replace(raw.reading, why=_why(source, folder)))
    return raw


def recognise(root: Path, named: str) -> tuple[str, Path]:
    """The source that reads it, and the folder. Raises UserError listing what was looked for."""
    folder = root
    for _ in range(DEEPEST):
        source = next((source for source, module in KINDS.items() if module.is_layout(folder)), None)
        if source:
            return source, folder
        below = [path for path in folder.iterdir() if not path.name.startswith((".", "__MACOSX"))]
        folders = [path for path in below if path.is_dir()]
        if len(folders) != 1:
            break
        folder = folders[0]
    raise UserError(f"{named}: unknown layout; looked for {LOOKED_FOR}")


def _why(source: str, folder: Path) -> str:
    """Why it is read by this source, if others could read it, too."""
    others = [other for other, module in KINDS.items() if other != source and module.is_layout(folder)]
    if not others:
        return ""
    return f", which is preferred to what {' and '.join(others)} would read there (prepare.source chooses)"
