"""Where `prepare` gets images and labels: one module per source, each with two functions

    load(params, *, scratch, downloads, progress) -> RawDataset
    resolve(params) -> Resolved

`scratch` is an empty folder that is removed when preparing ends; `downloads` keeps what came over the network.
A source checks what concerns its layout; images and boxes are checked afterwards, alike for all. `resolve` tells,
without fetching them, whether the data are those of another time.
"""

import importlib
from typing import Any

_MODULES = {"coco-dir": "coco_dir", "yolo-dir": "yolo_dir", "dvc": "dvc_repo"}  # named otherwise than their source


def module(source: str) -> Any:
    """The module of a value of `prepare.source`; imported when chosen: boto3, DVC and scikit-learn take seconds."""
    return importlib.import_module(f"{__name__}.{_MODULES.get(source, source)}")
