"""The digest by which trainings, runs and versions tell prepared datasets apart."""

from pathlib import Path

from components.files import MANIFEST, require, sha256


def dataset_digest(data: Path) -> str:
    """SHA-256 (hex) of the manifest of a dataset folder. Raises UserError where there is none."""
    return sha256(require(data / MANIFEST, "prepare"))
