"""The exceptions that end a command with one line: those that the user can fix, and those that pass by themselves."""

import errno
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

LONGEST = 1500  # characters of a message
_REFUSED = (errno.EACCES, errno.EPERM, errno.EROFS)
_REMEDIES = {
    **dict.fromkeys((errno.ENOSPC, errno.EDQUOT), "free some space, then the same command continues"),
    **dict.fromkeys(_REFUSED, "change its permissions, or name another path"),
    **dict.fromkeys((errno.EMFILE, errno.ENFILE), "raise the limit on open files (`ulimit -n 4096`)"),
    errno.EFBIG: "raise the limit on file sizes (`ulimit -f unlimited`)",
}
# User name and password in an address, which has lost a slash if a Path held it; models:/NAME@ALIAS has none.
_CREDENTIALS = re.compile(r"(?<=\w\w)(?<!\bmodels)(:/{1,2})[^/\s]*@")
_WEB_ADDRESS = re.compile(r"https?:/\S+")


def without_credentials(text: str) -> str:
    """The text without user names and passwords in its addresses, and without the queries of web addresses."""
    return _WEB_ADDRESS.sub(_without_query, _CREDENTIALS.sub(r"\1", text))


def _without_query(found: re.Match[str]) -> str:
    """A web address without its query, which may hold a signature or a token; punctuation after it stays."""
    address, _, query = found[0].partition("?")
    return address + query[len(query.rstrip(":;,.)")) :]


class UserError(Exception):
    """A mistake in what the user gave: a file, a key, a value.

    The message is one line that says what is wrong, where, and how to fix it.
    The command line prints it alone and exits with `exit_code`.
    """

    exit_code = 2

    def __init__(self, message: str) -> None:
        super().__init__(_one_line(message))


def _one_line(text: str) -> str:
    """The text as one printable line, whatever a hostile file put into it; a long one loses its middle.

    Addresses lose their credentials: messages end up in logs and tickets.
    """
    text = without_credentials(text)
    if len(text) > LONGEST:
        text = f"{text[: LONGEST // 2]} ... {text[-LONGEST // 2 :]}"
    line = " ".join(part.strip() for part in text.splitlines())
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in line)


class BadFile(UserError):
    """A file that is missing, damaged or not what it should be.

    Whoever knows how the user gets a good one says so with `advised`.
    """


@contextmanager
def advised(advice: str) -> Iterator[None]:
    """End the message of a `BadFile` with what the user can do; "" adds nothing."""
    try:
        yield
    except BadFile as error:
        if not advice:
            raise
        raise BadFile(f"{error}; {advice}") from None


class BadArgument(UserError):
    """A wrong value of one argument, named as the function names it.

    The caller that knows the user's name for it adds that with `known_as`. problem: what follows the name, such as
    "= 100: must be a multiple of 32".
    """

    def __init__(self, argument: str, problem: str) -> None:
        self.argument, self.problem = argument, problem
        super().__init__(f"{argument} {problem}")

    def __reduce__(self) -> tuple[type, tuple[str, str]]:
        """Pickled by its two arguments; `Exception` would keep the message alone."""
        return type(self), (self.argument, self.problem)


@contextmanager
def known_as(**names: str) -> Iterator[None]:
    """Name the arguments of a `BadArgument` as the user knows them: `known_as(size="train.size")`."""
    try:
        yield
    except BadArgument as error:
        if error.argument not in names:
            raise
        raise BadArgument(names[error.argument], error.problem) from None


class Stopped(Exception):
    """Work ended unfinished because its `should_stop` returned true."""


class Diverged(UserError):
    """The loss of a training is no longer finite."""


class TryAgain(UserError):
    """A service is unavailable, or another problem that passes by itself: the same command works later.

    The command line prints it as one line and exits with `exit_code`. Finished work is kept; the message says where.
    """

    exit_code = 3


@contextmanager
def reporting_machine_limits() -> Iterator[None]:
    """Raise a full disk, a refused write or too many open files, wherever the block meets them, as a UserError."""
    try:
        yield
    except OSError as error:
        if error.errno not in _REMEDIES or (error.errno in _REFUSED and not error.filename):
            raise
        where = Path(os.fsdecode(error.filename)) if error.filename else "this machine"
        if error.errno in _REFUSED and isinstance(where, Path) and not os.path.lexists(where):
            where = where.parent  # it refused a new file
        raise UserError(f"{where}: {error.strerror}; {_REMEDIES[error.errno]}") from error
