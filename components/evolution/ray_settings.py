"""Ray settings for a search. Ray reads them when it is imported, so they must be set before."""

import os

from components.training import ray_cluster

# No files besides the ledger, no warnings; Ctrl-C ends the search.
SETTINGS = {
    "RAY_AIR_NEW_OUTPUT": "0",
    "RAY_CHDIR_TO_TRIAL_DIR": "0",
    "RAY_TRAIN_ENABLE_V2_MIGRATION_WARNINGS": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_DISABLE_SIGINT_HANDLER": "1",
    "TUNE_PRINT_ALL_TRIAL_ERRORS": "0",
    "TUNE_GLOBAL_CHECKPOINT_S": "100000",
    "TUNE_FORCE_TRIAL_CLEANUP_S": "30",
    "TUNE_WARN_THRESHOLD_S": "100000",
}


def apply() -> None:
    """Set the environment variables that are not set already."""
    ray_cluster.before_import()
    for name, value in SETTINGS.items():
        os.environ.setdefault(name, value)
