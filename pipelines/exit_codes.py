"""The exit codes of a step are those of the command line: 1 a fault, 2 something the user can mend, 3 try again."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager

from yolo_core.errors import TryAgain, UserError

USER_ERROR, TRY_AGAIN = 2, 3


@contextmanager
def exit_codes() -> Iterator[None]:
    """End the process with one line and the code of a UserError."""
    try:
        yield
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(TRY_AGAIN if isinstance(error, TryAgain) else USER_ERROR)
