"""Other projects' code, called as its own users call it; `make bench-peers` fetches it outside this repository.

PEERS names its folder. A checkout comes first on the import path of the one process that runs it, so packages of the
same name (`models`, `utils`) never clash.
"""

import os
from pathlib import Path

from benchmarks.contender import Missing

# Name: repository and commit, those of the committed figures.
CHECKOUTS = {
    "yolov4-csp": ("https://github.com/WongKinYiu/ScaledYOLOv4", "9336ffe48abe0df874844118d6fa47fea25b0bf5"),
    "yolov4-tiny": ("https://github.com/WongKinYiu/ScaledYOLOv4", "faf50b1de72dc3113d55c235a4f7bc86d3e19504"),
    "yolov4-large": ("https://github.com/WongKinYiu/ScaledYOLOv4", "676800364a3446900b9e8407bc880ea2127b3415"),
    "yolov7": ("https://github.com/WongKinYiu/yolov7", "a207844b1ce82d204ab36d87d496728d3d2348e7"),
    "YOLOX": ("https://github.com/Megvii-BaseDetection/YOLOX", "6ddff4824372906469a7fae2dc3206c7aa4bbaee"),
}
# Installed into one folder without their dependencies: torch, NumPy, OpenCV and pandas come from this environment.
# seaborn: yolov7 imports it with its model. torchvision is replaced, see `torchvision_stand_in`.
PACKAGES = (
    *("ultralytics==8.4.190", "polars==2.1.0", "polars-runtime-32==2.1.0"),
    *("faster-coco-eval==1.8.0", "vernier==0.5.4", "seaborn==0.13.2"),
)
SITE = "site"


def path(*names: str) -> list[str]:
    """Folders for a contender's import path: the named checkouts, then the installed packages.

    Empty if PEERS is not set: the contender's imports then fail, and it is reported as missing.
    """
    root = os.environ.get("PEERS")
    return [str(Path(root) / name) for name in (*names, SITE)] if root else []


def require(name: str) -> Path:
    """The checkout of one peer. Raises Missing if there is none."""
    root = os.environ.get("PEERS")
    if not root or not (Path(root) / name).is_dir():
        raise Missing(f"{name} is not in $PEERS; run make bench-peers")
    return Path(root) / name
