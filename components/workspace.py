"""Where each stage finds its inputs and leaves its results when nobody says otherwise.

`dvc.yaml` declares the same paths; a test holds the two together.
"""

import os
from pathlib import Path

DATA = Path("data/prepared")
OUTPUTS = Path("outputs")
WORK = Path("runs")
STORE = WORK / "store"  # working copies of what lies in the object store
OUTBOX_VARIABLE = "SCALED_YOLOV4_OUTBOX"


def outbox() -> Path:
    """Where results and records wait for a service that is away: SCALED_YOLOV4_OUTBOX, or runs/outbox here."""
    return Path(os.environ.get(OUTBOX_VARIABLE) or WORK / "outbox").absolute()


def default_paths(stage: str, model: str) -> dict[str, Path]:
    """The paths of one stage by option name; `model` matters only to the stages that run per model."""
    anchors, evolve = OUTPUTS / "anchors", OUTPUTS / "evolve"
    train, export, benchmark = (OUTPUTS / name / model for name in ("train", "export", "benchmark"))
    weights = train / "model.safetensors"
    registered = OUTPUTS / "register" / f"{model}.json"
    fitted = {"anchors": anchors / f"{model}.json", "hyp": evolve / "hyp.yaml"}
    paths = {
        "prepare": {"out": DATA, "work": WORK},
        "anchors": {"data": DATA, "out": anchors},
        "evolve": {"data": DATA, "anchors": anchors, "out": evolve, "work": WORK},
        "train": {"data": DATA, **fitted, "out": train, "work": WORK},
        "evaluate": {"data": DATA, "weights": weights, "out": OUTPUTS / "evaluate" / model},
        "export": {"data": DATA, "weights": weights, "out": export},
        "benchmark": {"data": DATA, "weights": weights, "export": export, "out": benchmark},
        "register": {
            "data": DATA,
            **fitted,
            "train": train,
            "evaluate": OUTPUTS / "evaluate" / model,
            "export": export,
            "benchmark": benchmark,
            "out": registered,
        },
        "promote": {"registered": registered, "data": DATA, "out": OUTPUTS / "promote" / f"{model}.json"},
        "compare": {
            **{name: OUTPUTS / name for name in ("evaluate", "benchmark", "promote")},
            "out": OUTPUTS / "compare",
        },
    }
    return paths[stage]
