"""Usage statistics of the packages that the platform builds on: nothing leaves the machine unless the user wants it to.

The entry points turn them off, and so does the code that first imports these packages when a stage is called as a
library. Importing `components` alone changes nothing.
"""

import os
import sys

# Variables that the user has set stay as they are.
OFF = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_USAGE_STATS_REPORT_URL": "http://127.0.0.1:9",  # a cluster of `ray start` reports even that it is disabled
    "DVC_NO_ANALYTICS": "true",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "DO_NOT_TRACK": "true",
    "ORT_DISABLE_TELEMETRY": "1",
    "WANDB_ERROR_REPORTING": "false",
}


def turn_off() -> None:
    """Turn off the usage statistics of all packages that send some, here and in processes started from here.

    MLflow and ONNX Runtime read their variables at import; OpenVINO and NNCF have none, and are
    silent where their reporter is missing.
    """
    for name, value in OFF.items():
        os.environ.setdefault(name, value)
    sys.modules.setdefault("openvino_telemetry", None)  # pyright: ignore[reportArgumentType] - None bars the import
