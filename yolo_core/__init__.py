"""The detector: models, data, losses, training step, evaluation and export on torch, NumPy, OpenCV and hotcoco."""
