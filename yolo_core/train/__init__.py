"""Training: a plain PyTorch loop that resumes exactly, on one worker or many."""

from yolo_core.train.configuration import Evaluation, TrainConfig
from yolo_core.train.loop import fit
from yolo_core.train.records import EpochReport, EpochRow, OnLog, OnReport, Pace, TrainResult
from yolo_core.train.schedule import Phase

__all__ = [
    "EpochReport",
    "EpochRow",
    "Evaluation",
    "OnLog",
    "OnReport",
    "Pace",
    "Phase",
    "TrainConfig",
    "TrainResult",
    "fit",
]
