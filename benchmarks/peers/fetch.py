"""`python -m benchmarks.peers.fetch FOLDER`: fetch the peers' code, at the commits of the committed figures.

FOLDER then holds a checkout per entry of `CHECKOUTS`, and in `site` the packages of `PACKAGES`.
"""

import shutil
import subprocess
import sys
from pathlib import Path

import typer

from benchmarks.peers import CHECKOUTS, PACKAGES, SITE


def main(folder: Path) -> None:
    """Fetch what is missing; needs git and network access. Set PEERS to FOLDER afterwards."""
    for name, (repository, commit) in CHECKOUTS.items():
        if not (folder / name).exists():
            checkout(repository, commit, folder / name)
    uv = ("uv", "pip", "install", "--quiet", "--python", sys.executable, "--no-deps", "--target", str(folder / SITE))
    subprocess.run((*uv, *PACKAGES), check=True)
    print(f"export PEERS={folder.absolute()}")


def checkout(repository: str, commit: str, target: Path) -> None:
    """Fetch one commit into `target`, which appears only once it is complete."""
    partial = target.with_name(f"{target.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    for command in (
        ("init", "-q"),
        ("fetch", "-q", "--depth", "1", repository, commit),
        ("checkout", "-q", "FETCH_HEAD"),
    ):
        subprocess.run(("git", *command), cwd=partial, check=True)
    partial.rename(target)


if __name__ == "__main__":
    typer.run(main)
