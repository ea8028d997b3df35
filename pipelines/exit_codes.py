"""Exit codes of the pipeline's steps, the same as the command line's."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager

from yolo_core.errors import TryAgain, UserError

DONE = 0
FAULT = 1
USER_ERROR = UserError.exit_code  # the user can fix it
TRY_AGAIN = TryAgain.exit_code  # it may succeed later


@contextmanager
def exit_codes() -> Iterator[None]:
    """Turn a UserError into one line on stderr and its exit code."""
    try:
        yield
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
