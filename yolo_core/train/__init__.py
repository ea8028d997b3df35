"""Training: a plain PyTorch loop that resumes exactly, on one worker or many."""

from yolo_core.train.configuration import Evaluation, TrainConfig
from yolo_core.train.loop import fit
from yolo_core.train.records import EpochRow, OnLog, Pace, TrainResult
from yolo_core.train.schedule import Phase

__all__ = ["EpochRow", "Evaluation", "OnLog", "Pace", "Phase", "TrainConfig", "TrainResult", "fit"]
