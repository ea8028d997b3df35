"""The one exception that means: the person running this can mend it."""


class UserError(Exception):
    """A mistake in what the user gave: a file, a key, a value.

    The message is one line that says what is wrong, where, and how to mend it.
    The command line prints it alone and exits with code 2.
    """
