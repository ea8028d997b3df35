"""DVC's remote on a real object store: what is pushed from one project is pulled into it again, byte for byte."""

import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from waiting import LIMIT_S

from components import parameter_file as parameters
from components.stages import prepare

ROOT = Path(__file__).parents[2]
COCO128 = ROOT.parent / "shared" / "data" / "coco128"


def dvc(project: Path, *words: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "dvc", *words], cwd=project, capture_output=True, text=True, timeout=LIMIT_S
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def digests(folder: Path) -> dict[str, str]:
    files = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return {path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


@pytest.fixture
def project(store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project whose remote is set up as docs/storage.md says: address in the config, keys in the local one."""
    for name, value in {"DVC_NO_ANALYTICS": "true", "DVC_GLOBAL_CONFIG_DIR": str(tmp_path / "global")}.items():
        monkeypatch.setenv(name, value)
    keys = {name: os.environ[name] for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")}
    for name in store.variables:
        monkeypatch.delenv(name)  # the configuration must work without them
    project = tmp_path / "project"
    project.mkdir()
    dvc(project, "init", "--quiet", "--no-scm")
    dvc(project, "remote", "add", "-d", "services", f"s3://{store.bucket}/dvc/{tmp_path.name}")
    dvc(project, "remote", "modify", "services", "endpointurl", store.endpoint)
    dvc(project, "remote", "modify", "--local", "services", "access_key_id", keys["AWS_ACCESS_KEY_ID"])
    dvc(project, "remote", "modify", "--local", "services", "secret_access_key", keys["AWS_SECRET_ACCESS_KEY"])
    assert keys["AWS_SECRET_ACCESS_KEY"] not in (project / ".dvc/config").read_text()
    return project


def push_and_pull(project: Path, name: str) -> None:
    before = digests(project / name)
    dvc(project, "add", "--quiet", name)
    dvc(project, "push")
    shutil.rmtree(project / name)
    shutil.rmtree(project / ".dvc/cache")
    dvc(project, "pull")
    assert digests(project / name) == before
    assert "in sync" in dvc(project, "status", "--cloud")


@pytest.mark.slow
def test_the_digits(project: Path):
    params = parameters.load(ROOT / "params.yaml")
    assert params.prepare.source == "digits"
    prepare.run(params, out=project / "digits")
    push_and_pull(project, "digits")


@pytest.mark.slow
@pytest.mark.skipif(not COCO128.exists(), reason="no coco128 beside the project")
def test_coco128(project: Path):
    shutil.copytree(COCO128, project / "coco128", copy_function=shutil.copyfile)
    for path in [project / "coco128", *(project / "coco128").rglob("*")]:
        path.chmod(0o755 if path.is_dir() else 0o644)  # the original may be read-only
    push_and_pull(project, "coco128")
