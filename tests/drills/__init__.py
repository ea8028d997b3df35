"""Faults injected into the real stages, and their cost, measured. `python -m tests.drills --help`."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "support"))
