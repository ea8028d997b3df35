"""What the digests of a prepared dataset tell: whether two are the same, and whether its splits share images."""

from pathlib import Path

from components.files import MANIFEST, read_json, require, sha256


def dataset_digest(data: Path) -> str:
    """SHA-256 (hex) of the manifest of a dataset folder. Raises UserError where there is none."""
    return sha256(require(data / MANIFEST, "prepare"))


def shared_images(data: Path) -> tuple[int, int]:
    """How many validation images have the content of a training image, and how many there are."""
    files: dict[str, str] = read_json(require(data / MANIFEST, "prepare")).get("files", {})
    train, val = (
        [sha for path, sha in files.items() if path.startswith(f"images/{split}/")] for split in ("train", "val")
    )
    known = set(train)
    return sum(digest in known for digest in val), len(val)
