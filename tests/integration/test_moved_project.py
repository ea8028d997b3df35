"""A project that was moved, copied or renamed keeps its runs' and models' files, and leaves the old place alone."""

import shutil
import sqlite3
from pathlib import Path

import pytest
from mlflow.tracking._tracking_service import utils
from stage_outputs import MODEL, load_params, make_dataset

from components.tracking import connection, journaled_run
from components.tracking import runs as tracking
from yolo_core.errors import TryAgain, UserError
from yolo_core.progress import silent


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project with a run that has a file, in a folder whose name needs quoting."""
    folder = tmp_path / "old place 100 %"
    folder.mkdir()
    enter(folder, monkeypatch)
    make_dataset(folder / "data")
    record("first")
    return folder


def record(content: str) -> str:
    """A stage's run with a text; its id."""
    with tracking.stage_run(load_params(), Path("data"), "evaluate", MODEL) as run:
        run.text(content, "note.txt")
        client = connection.connect()
        client.create_registered_model(content)
        client.create_model_version(content, source=f"{client.get_run(run.run_id).info.artifact_uri}/note.txt")
    return run.run_id


def enter(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a new process would see: MLflow sets its variable in the one that used it, and caches where runs are."""
    utils._artifact_repos_cache.clear()
    monkeypatch.chdir(folder)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)


def move(folder: Path, to: Path) -> Path:
    """Not by renaming: this process has the database open."""
    shutil.copytree(folder, to)
    shutil.rmtree(folder)
    return to


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def note(run_id: str, to: Path) -> str:
    to.mkdir()
    return Path(connection.connect().download_artifacts(run_id, "note.txt", str(to))).read_text()


def test_a_moved_project(project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog):
    moved = move(project, tmp_path / "nëw #place")
    enter(moved, monkeypatch)
    run_id = record("second")  # the same run, found again
    assert note(run_id, tmp_path / "got") == "second"
    assert not project.exists()
    for folder in ("mlartifacts", "mlruns/0"):  # of the project's experiment, and of MLflow's Default
        assert f"artifacts moved from {project / folder}; their paths now point to {moved / folder}" in caplog.text
    client = connection.connect()
    for name in ("first", "second"):
        [version] = client.search_model_versions(f"name = '{name}'")
        assert str(version.source).startswith(f"{moved.as_uri()}/mlartifacts/")
    assert caplog.text.count("moved from") == 2


def test_records_that_wait_for_a_moved_database_reach_it(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    def down() -> None:
        raise TryAgain("MLflow is down")

    with monkeypatch.context() as patch:
        patch.setattr(journaled_run, "connect", down)
        patch.setattr(journaled_run, "END_TIMEOUT_S", 0.1)
        with journaled_run.journaled_run(load_params(), Path("data"), "train", MODEL) as run:
            run.log({"loss": 0.5}, 1)
    copy = tmp_path / "copy"
    shutil.copytree(project, copy)
    enter(copy, monkeypatch)
    with pytest.raises(UserError, match="recorded for MLflow at"):  # by the project that is still there
        journaled_run.deliver_all(silent)
    enter(move(project, tmp_path / "new"), monkeypatch)
    assert list(journaled_run.deliver_all(silent).values()) == [2]  # the loss, the end
    [run] = connection.connect().search_runs(["1"], "metrics.loss = 0.5")
    assert run.info.status == "FINISHED"


def test_a_copied_project(project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    before = files(project)
    copy = tmp_path / "copy"
    shutil.copytree(project, copy)
    enter(copy, monkeypatch)
    assert note(record("second"), tmp_path / "copied") == "second"
    assert files(project) == before
    enter(project, monkeypatch)
    run_id = record("third")
    assert note(run_id, tmp_path / "original") == "third"


def test_a_copy_of_the_database_alone_reads_the_old_files_and_writes_new_ones_beside_it(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    alone = tmp_path / "alone"
    alone.mkdir()
    shutil.copyfile(project / "mlflow.db", alone / "mlflow.db")
    [old] = (path.parents[1].name for path in project.glob("mlartifacts/*/artifacts/note.txt"))
    before = files(project)
    enter(alone, monkeypatch)
    assert note(old, tmp_path / "old") == "first"
    with tracking.stage_run(load_params("seed=5"), project / "data", "evaluate", MODEL) as run:
        run.text("new", "note.txt")
    assert list(alone.glob("mlartifacts/*/artifacts/note.txt"))
    assert files(project) == before


def test_a_project_behind_a_link_is_not_moved(project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog):
    link = tmp_path / "link"
    link.symlink_to(project)
    enter(link, monkeypatch)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{link}/mlflow.db")
    record("second")
    assert "moved from" not in caplog.text


def test_locations_of_others_stay(project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    client = connection.connect()
    theirs = {"store": "s3://bucket/mlartifacts", "elsewhere": (tmp_path / "theirs").as_uri()}
    for name, place in theirs.items():
        client.create_experiment(name, artifact_location=place)
    enter(move(project, tmp_path / "new"), monkeypatch)
    connection.connect()
    with sqlite3.connect("mlflow.db") as database:
        found = dict(database.execute("SELECT name, artifact_location FROM experiments"))
    assert {name: found[name] for name in theirs} == theirs


def test_a_moved_database_that_cannot_be_written_is_one_line(project: Path, tmp_path: Path, monkeypatch):
    moved = move(project, tmp_path / "new")
    enter(moved, monkeypatch)
    opened = sqlite3.connect  # permissions do not bind root
    monkeypatch.setattr(sqlite3, "connect", lambda file, **_kw: opened(f"file:{file}?mode=ro", uri=True))
    with pytest.raises(UserError, match=r"mlflow\.db: cannot be written; change its permissions") as raised:
        connection.connect()
    assert raised.value.exit_code == 2
