"""The folders of a project: parameters, data, results, unfinished work, and what waits for a service."""

import os
from pathlib import Path

PARAMS = Path("params.yaml")
DATA = Path("data/prepared")
OUTPUTS = Path("outputs")
WORK = Path("runs")
STORE = WORK / "store"  # local copies of what is in the object store
OUTBOX_VARIABLE = "SCALED_YOLOV4_OUTBOX"


def outbox() -> Path:
    """Where results and records wait for a service that is down: SCALED_YOLOV4_OUTBOX, or runs/outbox."""
    return Path(os.environ.get(OUTBOX_VARIABLE) or WORK / "outbox").absolute()
