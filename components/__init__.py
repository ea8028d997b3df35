"""The stages of the pipeline, one module each, and the command line over them."""

import os

# No usage statistics leave the machine unless the user turns them on.
for _name, _off in {
    "RAY_USAGE_STATS_ENABLED": "0",
    "DVC_NO_ANALYTICS": "true",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "DO_NOT_TRACK": "true",
}.items():
    os.environ.setdefault(_name, _off)
