"""Detector files fetched from the object store: what `Detector.load("s3://bucket/model.safetensors")` calls."""

from pathlib import Path

from components.storage.stage_paths import local_copy


def fetch(address: str) -> Path:
    """An up-to-date local copy of an object.

    Raises UserError if there is none, TryAgain if the store is unavailable.
    """
    return Path(local_copy(address))
