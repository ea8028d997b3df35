"""What the tests of several stages share: a small detector, and what the export stage makes of it."""

from pathlib import Path

import pytest
import small_detector

from components.stages import export


@pytest.fixture(scope="session")
def project(tmp_path_factory: pytest.TempPathFactory) -> small_detector.Project:
    """An untrained detector with its data; not to be changed."""
    return small_detector.write(tmp_path_factory.mktemp("project"))


@pytest.fixture(scope="session")
def exported(project: small_detector.Project, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The export stage's results; not to be changed."""
    out = tmp_path_factory.mktemp("export")
    export.run(project.params, model=small_detector.MODEL, data=project.data, weights=project.weights, out=out)
    return out
