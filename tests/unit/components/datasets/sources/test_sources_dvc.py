"""Data tracked by DVC in a Git repository: any revision, and what distinguishes them."""

import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from coco_source import CocoFolder, encoded, parameters, pixels

from components.datasets import sources
from components.params import Params
from components.stages import prepare
from yolo_core.errors import TryAgain, UserError


def call(folder: Path, *command: str) -> None:
    subprocess.run(command, cwd=folder, check=True, capture_output=True)


def commit(repository: Path, words: str) -> None:
    call(repository, "git", "add", "--all")
    call(repository, "git", "-c", "user.name=a", "-c", "user.email=a@b", "commit", "--quiet", "--message", words)


def keep(repository: Path, words: str) -> None:
    """Add the folder `data/coco` as it is to DVC, and commit."""
    call(repository, sys.executable, "-m", "dvc", "add", "--quiet", "data/coco")
    commit(repository, words)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Six images at the tag v1, one more on the branch; and no user settings of DVC."""
    folder = tmp_path_factory.mktemp("dvc")
    repository = folder / "repository"
    source = CocoFolder(repository / "data/coco")
    source.save()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DVC_NO_ANALYTICS", "true")
        patch.setenv("DVC_GLOBAL_CONFIG_DIR", str(folder / "global"))
        call(repository, "git", "init", "--quiet")
        call(repository, sys.executable, "-m", "dvc", "init", "--quiet")
        keep(repository, "first")
        call(repository, "git", "tag", "v1")
        source.add_image("9.jpg", encoded(pixels(seed=9)), (10, 10, 20, 20))
        source.save()
        keep(repository, "second")
        yield repository


@pytest.fixture
def repository(made: Path, tmp_path: Path) -> Path:
    """A copy for one test."""
    return shutil.copytree(made, tmp_path / "repository", symlinks=True)


def given(repository: Path | str, revision: str = "null", path: str = "data/coco") -> Params:
    changes = [f"prepare.location={repository}", f"prepare.path={path}", f"prepare.revision={revision}"]
    return parameters("prepare.source=dvc", *changes)


def images(tmp_path: Path, params: Params) -> int:
    return sum(prepare.run(params, out=tmp_path / "prepared")[f"{split}_images"] for split in ("train", "val"))


def test_every_revision_gives_its_own_data(repository: Path, tmp_path: Path) -> None:
    assert images(tmp_path, given(repository, "v1")) == 6
    assert images(tmp_path, given(repository)) == 7
    [clone] = (tmp_path / "downloads/dvc").iterdir()
    assert len([path for path in clone.iterdir() if path.is_dir()]) == 1  # what was fetched last
    again = images(tmp_path, given(repository, "v1"))
    assert again == 6


def test_two_folders_of_one_commit_are_not_taken_for_each_other(repository: Path, tmp_path: Path) -> None:
    """Neither is tracked by DVC itself: the folder above is."""
    shutil.copytree(repository / "data/coco", repository / "all/a")
    CocoFolder(repository / "all/b").save()
    call(repository, sys.executable, "-m", "dvc", "add", "--quiet", "all")
    commit(repository, "third")
    assert images(tmp_path, given(repository, path="all/a")) == 7
    assert images(tmp_path, given(repository, path="all/b")) == 6
    assert images(tmp_path, given(repository, path="all/a")) == 7


def test_data_that_were_never_pushed_are_one_line(repository: Path, tmp_path: Path) -> None:
    call(repository, sys.executable, "-m", "dvc", "remote", "add", "-d", "origin", str(tmp_path / "nowhere"))
    commit(repository, "third")
    shutil.rmtree(repository / ".dvc/cache")
    shutil.rmtree(repository / "data/coco")
    before = set(Path(tempfile.gettempdir()).glob("*dvc-clone"))
    clone = tmp_path / "clone"
    call(tmp_path, "git", "clone", "--quiet", "--bare", str(repository), str(clone))
    with pytest.raises(TryAgain, match="was it pushed"):
        images(tmp_path, given(f"file://{clone}"))
    assert set(Path(tempfile.gettempdir()).glob("*dvc-clone")) <= before


def test_the_fingerprint_follows_the_data_and_the_revision_becomes_a_commit(repository: Path, tmp_path: Path) -> None:
    module = sources.module("dvc")
    before, after = module.resolve(given(repository, "v1")), module.resolve(given(repository))
    assert before.fingerprint != after.fingerprint
    (repository / "README").write_text("no data")
    commit(repository, "third")
    later = module.resolve(given(repository))
    assert later.fingerprint == after.fingerprint
    assert later.changes != after.changes
    assert images(tmp_path, parameters("prepare.source=dvc", f"prepare.location={repository}",
                                       "prepare.path=data/coco", *before.changes)) == 6  # fmt: skip


def test_what_cannot_be_fetched_is_one_line(repository: Path, tmp_path: Path) -> None:
    wrong = {
        "no such revision": given(repository, "v9"),
        "no such folder": given(repository, "v1", "data/cocoa"),
        "cannot be cloned": given(tmp_path / "nowhere"),
        "contains a user or password": given("https://hidden@127.0.0.1/data.git"),
        "needs a Git repository and a folder": parameters("prepare.source=dvc"),
    }
    for reason, params in wrong.items():
        with pytest.raises(UserError, match=reason) as raised:
            sources.module("dvc").resolve(params)
        assert not isinstance(raised.value, TryAgain)
        assert "hidden" not in str(raised.value)
    with pytest.raises(TryAgain, match="cannot be cloned"):
        sources.module("dvc").resolve(given("https://127.0.0.1:9/data.git"))
