"""Files of a training on a node of the cluster that is not the driver's."""

import contextlib
import os
import tempfile
from collections.abc import Callable
from pathlib import Path

from components.storage.stage_paths import local_copy
from components.workspace import STORE
from yolo_core.errors import UserError

NODE_VARIABLE = "SCALED_YOLOV4_NODE_FOLDER"


def node_folder() -> Path:
    """Where a node keeps what it fetches: SCALED_YOLOV4_NODE_FOLDER, or a folder in the temporary directory."""
    default = Path(tempfile.gettempdir()) / f"scaled-yolov4-{os.getuid()}"
    folder = Path(os.environ.get(NODE_VARIABLE) or default).absolute()
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def store_address(path: Path) -> str | None:
    """The address in the object store of a working copy; None for another path."""
    try:
        bucket, *key = path.absolute().relative_to(STORE.absolute()).parts
    except ValueError:
        return None
    return f"s3://{bucket}/{'/'.join(key)}"


def path_on_node(path: Path, address: str | None, fetch: Callable[[str], str | Path] = local_copy) -> Path:
    """The path on this node of the driver's `path`: fetched from its address, else the same path.

    Raises UserError where the node has no such path.
    """
    if address:
        with contextlib.chdir(node_folder()):
            return Path(fetch(address)).absolute()
    if not path.exists():
        import ray

        raise UserError(
            f"{path}: not on node {ray.util.get_node_ip_address()}, where a worker runs; put it in the object store "
            "(s3://...), or on a file system that all nodes share"
        )
    return path
