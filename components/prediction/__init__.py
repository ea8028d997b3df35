"""A detector applied to pictures and videos from the command line, with files of what it found."""
