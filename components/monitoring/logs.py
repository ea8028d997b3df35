"""The log of this project's own packages, on standard error."""

import logging

OWN = ("components", "pipelines", "yolo_core")


def show() -> None:
    """Print their lines from INFO on, without level and name; other packages stay as they are."""
    handler = logging.StreamHandler()
    for name in OWN:
        logger = logging.getLogger(name)
        logger.setLevel(logging.INFO)
        logger.propagate = False
        logger.handlers = [handler]
