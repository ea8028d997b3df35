"""Reads Darknet's description of a dataset, `obj.data`, as CVAT and Datumaro export it (YOLO 1.1).

Its lines are `key = value`: `names` is a file of class names, and any key that is not Darknet's own is a subset, with a
file that lists its images. Paths start with `data/`, the folder that Darknet runs beside, which an export lacks.
"""

from pathlib import Path

from components.datasets.sources import text_file
from components.datasets.sources.image_files import DARKNETS
from yolo_core.errors import UserError

NAME = "obj.data"
NOT_SUBSETS = {"classes", "names", "backup", "eval", "results", "top", "labels"}


def files(path: Path) -> tuple[Path, dict[str, Path]]:
    """The file of class names, and the list of images of each subset. Raises UserError naming what is missing."""
    pairs = [line.partition("=") for line in text_file.read_lines(path) if not line.startswith("#")]
    values = {key.strip(): value.strip() for key, _, value in pairs if value.strip()}
    lists = {key: value for key, value in values.items() if key not in NOT_SUBSETS}
    if not lists:
        raise UserError(f"{path}: lists no images; expected a line such as train = data/train.txt")
    names = _existing(path, values.get("names") or "obj.names")
    return names, {subset: _existing(path, value) for subset, value in lists.items()}


def _existing(path: Path, value: str) -> Path:
    candidates = list(
        dict.fromkeys(path.parent / one for one in (value, value.removeprefix(DARKNETS), Path(value).name))
    )
    found = next((candidate for candidate in candidates if candidate.is_file()), None)
    if found is None:
        raise UserError(f"{path}: {value!r} not found; searched {', '.join(map(str, candidates))}")
    return found
