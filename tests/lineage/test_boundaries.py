"""What is behind a boundary of the closure cannot change a result: nothing is returned, or it is returned unchanged.

A training runs here once as it is, and once with tracking and metrics replaced by no-ops; progress, the store and
the rest are tested one by one.
"""

import contextlib
import inspect
import json
import os
import random
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import boto3
import pytest
import small_training
from hypothesis import given
from hypothesis import strategies as st

from components import telemetry
from components.lineage.source_code import BOUNDARIES, ROOT, closure
from components.monitoring import metrics, periodic, progress, training_log
from components.storage.stage_paths import local_copy
from components.tracking import journaled_run
from components.training import launch

# The parameters are read before a stage runs, and it depends on their values.
READS_PARAMETERS = ("components.parameter_file", "components.parameter_errors")
TOLD = ("seconds", "images_per_second", "mlflow_run_id")  # about the course of a training, not its result


def test_the_boundaries_are_these() -> None:
    """Adding one requires showing here why nothing behind it can change a result."""
    assert {(one.importer, one.imported) for one in BOUNDARIES} == {
        ("", "components.monitoring"),
        ("", "components.telemetry"),
        ("", "components.storage"),
        ("components.training", "components.tracking"),
        ("components.stages.train", "components.tracking"),
    }
    assert all(one.reason for one in BOUNDARIES)


def test_nothing_behind_a_boundary_is_in_a_training() -> None:
    behind = ("components/monitoring", "components/storage", "components/tracking", "components/telemetry")
    assert not [path for path in closure("components.stages.train") if str(path).startswith(behind)]


TRAIN = """
import sys
from collections.abc import Callable
from pathlib import Path
import small_training
project = Path(sys.argv[1])
small_training.prepared(project)
small_training.run(project, "out", "train.epochs=1")
print(*(name for name in sys.modules if name.partition(".")[0] in ("components", "yolo_core")), sep="\\n")
"""


@pytest.mark.slow
def test_what_a_training_really_imports_is_in_its_closure_or_behind_a_boundary(
    tmp_path: Path, mlflow_database: Callable[[Path], str]
) -> None:
    """What Python has loaded at the end against what the sources import."""
    support = Path(small_training.__file__).parent
    variables = {
        **os.environ,
        "PYTHONPATH": f"{support}{os.pathsep}{ROOT}",
        "MLFLOW_TRACKING_URI": mlflow_database(tmp_path),
    }
    command = [sys.executable, "-c", TRAIN, str(tmp_path)]
    done = subprocess.run(command, env=variables, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    loaded = {name for name in done.stdout.split() if name.partition(".")[0] in ("components", "yolo_core")}
    assert "yolo_core.hyperparameters" in loaded
    files = closure("components.stages.train", "components.stages.prepare")  # the latter made the data
    read = {path.with_suffix("").as_posix().replace("/", ".").removesuffix(".__init__") for path in files}
    outside = (*READS_PARAMETERS, *(one.imported for one in BOUNDARIES))
    assert not [name for name in loaded - read if not name.startswith(outside)]


@pytest.fixture
def silenced(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Replace what a training calls behind its boundaries; lists what was called."""
    called: list[str] = []

    @contextlib.contextmanager
    def no_run(*args: object, **kwargs: object):
        called.append("tracking")
        yield SimpleNamespace(run_id="another", log=lambda *args, **kwargs: None)

    @contextlib.contextmanager
    def no_metrics(*args: object, **kwargs: object):
        called.append("metrics")
        yield lambda *args: None

    monkeypatch.setattr(journaled_run, "journaled_run", no_run)
    monkeypatch.setattr(journaled_run, "waiting", lambda *args: {})
    monkeypatch.setattr(metrics, "training", no_metrics)
    monkeypatch.setattr(launch.connection, "environment", dict)
    return called


def test_a_training_is_the_same_without_all_that_is_behind_its_boundaries(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    request: pytest.FixtureRequest,
    mlflow_database: Callable[[Path], str],
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", mlflow_database(tmp_path))
    small_training.prepared(tmp_path)
    small_training.run(tmp_path, "usual", "train.epochs=2", log=training_log.on_stdout("json", small_training.MODEL))
    called = request.getfixturevalue("silenced")
    small_training.run(tmp_path, "silenced", "train.epochs=2")
    assert set(called) == {"tracking", "metrics"}
    for name in ("model.safetensors", "curves.csv"):
        assert (tmp_path / "usual" / name).read_bytes() == (tmp_path / "silenced" / name).read_bytes()
    usual, silent = (json.loads((tmp_path / name / "train.json").read_text()) for name in ("usual", "silenced"))
    assert {key: value for key, value in usual.items() if key not in TOLD} == {
        key: value for key, value in silent.items() if key not in TOLD
    }


@given(st.lists(st.integers(), max_size=30))
def test_progress_passes_each_item_on_unchanged(items: list[int]) -> None:
    for report in (progress._lines, progress._bars()):
        objects = [SimpleNamespace(value=item) for item in items]
        passed = list(report(objects, "work"))
        assert [id(item) for item in passed] == [id(item) for item in objects]


@pytest.mark.parametrize("module", [metrics, periodic, telemetry], ids=lambda module: module.__name__)
def test_what_only_reports_returns_nothing(module: ModuleType) -> None:
    """Every public function returns nothing, or a block that does."""
    own = [one for _, one in inspect.getmembers(module, inspect.isfunction) if one.__module__ == module.__name__]
    for function in (one for one in own if not one.__name__.startswith("_")):
        returned = str(inspect.signature(function).return_annotation)
        nothing = returned in ("None", "<class 'inspect._empty'>")
        assert nothing or "Iterator[None]" in returned or "OnReport" in returned


@pytest.mark.parametrize("size", [0, 1, 9 << 20])  # the last one in two parts
def test_the_store_returns_the_bytes_that_were_put(
    store: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    monkeypatch.chdir(tmp_path)
    content = random.Random(size).randbytes(size)
    boto3.client("s3").put_object(Bucket=store.bucket, Key=f"bytes/{size}", Body=content)
    assert Path(local_copy(f"s3://{store.bucket}/bytes/{size}")).read_bytes() == content
