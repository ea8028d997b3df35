"""The exceptions that end a command with one line: what the person running it can mend, and what time will."""


class UserError(Exception):
    """A mistake in what the user gave: a file, a key, a value.

    The message is one line that says what is wrong, where, and how to mend it.
    The command line prints it alone and exits with code 2.
    """


class TryAgain(UserError):
    """A service is away, or something else that passes by itself: the same command will do later.

    The command line prints it as one line and exits with code 3. What was done is kept, and the message says where.
    """
