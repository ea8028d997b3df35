"""Where tables are printed."""

from rich.console import Console

WIDTH = 160  # where there is no terminal to fit


def console() -> Console:
    """Standard output: as wide as its terminal, or wide enough for every table."""
    terminal = Console()
    return terminal if terminal.is_terminal else Console(width=WIDTH)
