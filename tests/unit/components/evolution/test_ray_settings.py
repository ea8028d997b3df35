"""Ray's settings are applied when a search starts, and keep what the user has set."""

import os

import pytest

from components import telemetry
from components.evolution import ray_settings
from components.training import ray_cluster


def test_settings_fill_the_environment_and_keep_what_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "environ", {"TUNE_WARN_THRESHOLD_S": "5", "HOME": "/root"})
    ray_settings.apply()
    assert os.environ == {
        **telemetry.OFF,
        **ray_cluster.LOOPBACK,
        **ray_settings.SETTINGS,
        "TUNE_WARN_THRESHOLD_S": "5",
        "HOME": "/root",
    }
