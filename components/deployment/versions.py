"""What was installed when a file was made or timed."""

import platform
from importlib import metadata


def versions(*packages: str) -> dict[str, str]:
    """Python's version and that of each package; one that is not installed is left out."""
    found = {"python": platform.python_version()}
    for package in packages:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found
