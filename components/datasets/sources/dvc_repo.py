"""The source `dvc`: a folder tracked by DVC in a Git repository, at any revision, read in any layout.

`prepare.location` is the repository, a URL or a folder; `prepare.path` the data in it; `prepare.revision` a branch, tag
or commit, null for the newest of the default branch. Credentials are those of `git` and `dvc`.
"""

import hashlib
import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from components import telemetry
from components.datasets.raw import RawDataset, Resolved
from components.datasets.sources import layouts
from components.params import Params
from components.storage.folder import alone_with
from yolo_core.errors import TryAgain, UserError
from yolo_core.progress import Progress

if TYPE_CHECKING:
    from dvc.api import DVCFileSystem


def load(params: Params, *, scratch: Path, downloads: Path, progress: Progress) -> RawDataset:
    """Fetch the folder, unless these very data have been downloaded already, and read it.

    The downloads keep the last version of each folder of a repository.
    """
    with _opened(params) as (data, path, commit):
        versions = downloads / "dvc" / _hashed(params.prepare.location, path)
        folder = versions / _hashed(_digest(data, path, commit))
        with alone_with(versions):
            if not folder.exists():
                for old in versions.iterdir():  # other revisions, and what a killed fetch has left
                    shutil.rmtree(old, ignore_errors=True)
                fetched = folder.with_suffix(".part")
                for _ in progress([None], f"fetch {path} at {commit[:10]}", total=1):
                    data.get(path, str(fetched), recursive=True)
                fetched.rename(folder)
    return layouts.read(folder, _named(params), progress)


def _hashed(*parts: str | None) -> str:
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:16]


def resolve(params: Params) -> Resolved:
    """Fingerprint the folder by DVC's digest; pins the revision to its current commit."""
    with _opened(params) as (data, path, commit):
        return Resolved(_digest(data, path, commit), (f"prepare.revision={json.dumps(commit)}",))


def _digest(data: "DVCFileSystem", path: str, commit: str) -> str:
    """DVC's digest of the folder; the commit if only folders within it are tracked."""
    return str(data.info(path).get("md5") or commit)


def _named(params: Params) -> str:
    settings = params.prepare
    return f"{settings.location}, {settings.path} at {settings.revision or 'its newest revision'}"


@contextmanager
def _opened(params: Params) -> "Iterator[tuple[DVCFileSystem, str, str]]":
    """Yield the repository's files at the revision, the path of the data among them, and the commit.

    Turns DVC's errors into one line each.
    """
    if not params.prepare.location or not params.prepare.path:
        raise UserError("prepare.location, prepare.path: source dvc needs a Git repository and a folder in it")
    address = urlsplit(params.prepare.location)
    if address.password or (address.scheme.startswith("http") and address.username):
        raise UserError("prepare.location: contains a user or password, which would be recorded; let Git supply it")
    telemetry.turn_off()
    from dvc.api import DVCFileSystem
    from dvc.exceptions import DvcException
    from dvc.repo.open_repo import clean_repos
    from dvc.scm import CloneError, RevError
    from dvc_data.index import DataIndexError

    # "HEAD" for a local folder: without a revision DVC would read uncommitted files.
    revision, named = params.prepare.revision or "HEAD", _named(params)
    try:
        data = DVCFileSystem(params.prepare.location, rev=revision)
        yield data, params.prepare.path, data.repo.get_rev()
    except FileNotFoundError:
        raise UserError(f"{named}: no such folder; see `dvc list` and prepare.path") from None
    except RevError:
        raise UserError(f"{named}: no such revision; prepare.revision takes a branch, a tag or a commit") from None
    except CloneError as error:
        kind = TryAgain if ":" in params.prepare.location else UserError
        raise kind(f"{named}: cannot be cloned ({error.__cause__ or error}); check address and access") from None
    except DataIndexError:
        raise TryAgain(
            f"{named}: not available from the DVC remote; was it pushed (`dvc push`), is the remote up?"
        ) from None
    except ImportError as error:
        raise UserError(f"{named}: {error}; install it alongside DVC") from None
    except DvcException as error:
        reason = " ".join(str(error.__cause__ or error).split())
        raise UserError(f"{named}: {reason}; `dvc get` with the same arguments shows more") from None
    finally:
        clean_repos()
