"""The application with all commands for the stages and around them."""

# In the order of `--help`:
# isort: off
from components.cli import stages  # noqa: F401
from components.cli import models  # noqa: F401
from components.cli import runs  # noqa: F401

# isort: on
from components import telemetry
from components.cli.app import app


def main() -> None:
    """The command line without the Kubeflow commands."""
    telemetry.turn_off()
    app()
