"""Training: a plain PyTorch loop that resumes exactly, on one worker or many."""

from yolo_core.train.loop import Evaluation, OnLog, Pace, Phase, TrainConfig, TrainResult, fit

__all__ = ["Evaluation", "OnLog", "Pace", "Phase", "TrainConfig", "TrainResult", "fit"]
