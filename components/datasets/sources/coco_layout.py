"""Finds the instances files of a COCO dataset and their images, as COCO and the tools that export it lay them out."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from components.datasets.sources import subsets

LOOKED_FOR = (
    "annotations/instances_SPLIT.json (COCO, CVAT), SPLIT/_annotations.coco.json (Roboflow), "
    "result.json with images/ (Label Studio), labels.json with data/ (FiftyOne)"
)


@dataclass(frozen=True)
class Layout:
    """Instances files found on the disk."""

    name: str
    """Human-readable name of the layout."""
    files: dict[str, Path]
    """Annotation files by subset."""
    folders: tuple[str, ...]
    """Where images may lie below the root, "{}" standing for the subset; "." is the last resort."""


def find(root: Path) -> Layout | None:
    """The layout at `root`, or None if it is none of COCO's."""
    return next((layout for layout in _layouts(root) if layout.files), None)


def _layouts(root: Path) -> Iterator[Layout]:
    usual = ("images/{}", "{}", "images", ".")
    files = {path.stem.removeprefix("instances_"): path for path in _files(root, "annotations/instances_*.json")}
    yield Layout("COCO (annotations/instances_*.json)", files, usual)
    files = {path.parent.name: path for path in _files(root, "*/_annotations.coco.json")}
    yield Layout("COCO as Roboflow exports it (*/_annotations.coco.json)", files, ("{}",))
    yield Layout("COCO as Roboflow exports it (_annotations.coco.json)", _alone(root, "_annotations.coco.json"), (".",))
    files = {path.stem: path for path in _files(root, "annotations/*.json") if subsets.role(path.stem)}
    yield Layout("COCO (annotations/*.json)", files, usual)
    yield Layout("COCO as Label Studio exports it (result.json)", _alone(root, "result.json"), ("images", "."))
    files = _alone(root, "labels.json") if (root / "data").is_dir() else {}
    yield Layout("COCO as FiftyOne exports it (labels.json)", files, ("data", "."))


def _files(root: Path, pattern: str) -> Iterator[Path]:
    return (path for path in sorted(root.glob(pattern)) if path.is_file())


def _alone(root: Path, name: str) -> dict[str, Path]:
    return {path.stem: path for path in _files(root, name)}


def image_folders(root: Path, layout: Layout, subset: str) -> list[Path]:
    """Where the images of a subset may lie, by preference."""
    synonyms = [subset, *subsets.NAMES.get(subsets.role(subset) or "", ())]
    return [root / folder for pattern in layout.folders for folder in _filled(pattern, synonyms)]


def _filled(pattern: str, synonyms: list[str]) -> list[str]:
    return list(dict.fromkeys(pattern.format(name) for name in synonyms))
