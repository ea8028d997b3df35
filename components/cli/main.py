"""The application with all commands for the stages and around them."""

import sys

# In the order of `--help`:
# isort: off
from components.cli import stages  # noqa: F401
from components.cli import predict  # noqa: F401
from components.cli import models  # noqa: F401
from components.cli import runs  # noqa: F401
from components.cli import project  # noqa: F401

# isort: on
from components import telemetry
from components.cli.app import app
from components.monitoring import logs
from yolo_core.errors import UserError


def main() -> None:
    """The command line without the Kubeflow commands."""
    prepare_process()
    app()


def prepare_process() -> None:
    """Process-wide setup: show the log, disable telemetry, and require docstrings, without which Ray fails."""
    logs.show()
    telemetry.turn_off()
    if sys.flags.optimize > 1:
        print("error: PYTHONOPTIMIZE=2 removes docstrings, which Ray needs; unset it, or use 1", file=sys.stderr)
        sys.exit(UserError.exit_code)
