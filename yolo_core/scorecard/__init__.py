"""Published figures compared with ours: `python -m yolo_core.scorecard` writes docs/scorecard.md."""
