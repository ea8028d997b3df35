"""Where the file of a detector is: on this machine, or at an address that an installed package can fetch."""

import re
from importlib.metadata import entry_points
from pathlib import Path

from yolo_core.errors import UserError

GROUP = "scaled_yolov4.weights"  # entry points named by scheme; each takes an address and returns a local path
_SCHEME = re.compile(r"([a-z][a-z0-9]+):/")


def local_file(weights: str | Path) -> Path:
    """The file itself, or a local copy of what is at an address such as models:/NAME@champion or s3://bucket/file.

    Raises UserError for an address that nothing installed can fetch.
    """
    scheme = _SCHEME.match(str(weights))
    if scheme is None:
        return Path(weights)
    found = entry_points(group=GROUP)
    for entry in found.select(name=scheme[1]):
        try:
            fetch = entry.load()
        except ImportError as error:
            fix = "pip install 'scaled-yolov4[train]'"
            raise UserError(f"{weights}: needs more than the detector ({error}); {fix}") from None
        return fetch(str(weights))
    known = ", ".join(sorted(f"{name}:/" for name in found.names)) or "none"
    raise UserError(f"{weights}: unknown kind of address (known: {known}); give the path of a file")
