"""Faults done to the real stages on purpose: what they cost, measured. `python -m tests.drills --help`."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "support"))
