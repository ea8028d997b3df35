"""Figures that are drawn off screen, by Agg."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def off_screen(**settings: Any) -> Figure:
    """An empty figure. The backend that MPLBACKEND names, as a notebook does, is neither needed nor imported."""
    named = os.environ.pop("MPLBACKEND", None)
    try:
        from matplotlib.figure import Figure  # takes seconds, and fails for a backend that is not installed
    finally:
        if named is not None:
            os.environ["MPLBACKEND"] = named
    return Figure(**settings)
