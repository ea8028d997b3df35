"""`python -m benchmarks.peers.fetch FOLDER`: put the peers' code there, at the commits of the committed figures."""

import subprocess
import sys
from pathlib import Path

import typer

from benchmarks.peers import CHECKOUTS, PACKAGES, SITE


def main(folder: Path) -> None:
    """Fetch what is not there yet; needs git and network. Set PEERS to FOLDER afterwards."""
    for name, (repository, commit) in CHECKOUTS.items():
        place = folder / name
        if not place.exists():
            place.mkdir(parents=True)
            for command in (("init", "-q"), ("fetch", "-q", "--depth", "1", repository, commit)):
                subprocess.run(("git", *command), cwd=place, check=True)
            subprocess.run(("git", "checkout", "-q", "FETCH_HEAD"), cwd=place, check=True)
    uv = ("uv", "pip", "install", "--quiet", "--python", sys.executable, "--no-deps", "--target", str(folder / SITE))
    subprocess.run((*uv, *PACKAGES), check=True)
    print(f"export PEERS={folder.absolute()}")


if __name__ == "__main__":
    typer.run(main)
