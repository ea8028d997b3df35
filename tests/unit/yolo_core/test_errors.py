"""Errors name arguments as the user knows them."""

import errno
import os
import pickle
from pathlib import Path

import pytest

from yolo_core.errors import BadArgument, BadFile, UserError, advised, known_as, reporting_machine_limits


def test_an_argument_is_named_as_the_user_knows_it():
    with pytest.raises(UserError, match=r"^train\.size = 100: must be a multiple of 32$"), known_as(size="train.size"):
        raise BadArgument("size", "= 100: must be a multiple of 32")


def test_the_innermost_name_stays():
    with pytest.raises(BadArgument) as caught, known_as(size="outer"), known_as(size="--size"):
        raise BadArgument("size", "= 1: too small")
    assert caught.value.argument == "--size"


def test_other_arguments_and_other_errors_pass():
    with pytest.raises(BadArgument, match=r"^batch = 3: odd$"), known_as(size="train.size"):
        raise BadArgument("batch", "= 3: odd")
    with pytest.raises(UserError, match=r"^size: plain$"), known_as(size="train.size"):
        raise UserError("size: plain")


def test_advice_ends_the_message_of_a_bad_file_alone():
    with pytest.raises(BadFile, match=r"^a\.json: cut short; make it again$"), advised("make it again"):
        raise BadFile("a.json: cut short")
    with pytest.raises(BadFile, match=r"^a\.json: cut short$"), advised(""):
        raise BadFile("a.json: cut short")
    with pytest.raises(UserError, match=r"^a\.json: not mine$"), advised("make it again"):
        raise UserError("a.json: not mine")


def test_errors_travel_between_processes():
    for error in (BadArgument("size", "= 1: odd"), BadFile("a.json: cut short")):
        again = pickle.loads(pickle.dumps(error))
        assert (type(again), str(again)) == (type(error), str(error))


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("https://user:secret@host/file", "https://host/file"),
        ("s3:/key:secret@bucket/file", "s3:/bucket/file"),  # a Path has dropped a slash
        ("rtsp://user@camera: closed", "rtsp://camera: closed"),
        ("models:/name@champion: not found", "models:/name@champion: not found"),
        ("C:/some@folder", "C:/some@folder"),
    ],
)
def test_messages_lose_credentials_and_nothing_else(text: str, shown: str):
    assert str(UserError(text)) == shown


@pytest.mark.parametrize(
    ("number", "fix"),
    [
        (errno.ENOSPC, "free some space, then the same command continues"),
        (errno.EACCES, "change its permissions, or name another path"),
        (errno.EROFS, "change its permissions, or name another path"),
        (errno.EFBIG, "raise the limit on file sizes (`ulimit -f unlimited`)"),
        (errno.EMFILE, "raise the limit on open files (`ulimit -n 4096`)"),
    ],
)
def test_a_limit_of_the_machine_is_one_line(tmp_path: Path, number: int, fix: str):
    with pytest.raises(UserError) as raised, reporting_machine_limits():
        raise OSError(number, os.strerror(number), str(tmp_path))
    assert str(raised.value) == f"{tmp_path}: {os.strerror(number)}; {fix}"


def test_a_refused_new_file_is_told_by_its_folder(tmp_path: Path):
    with pytest.raises(UserError, match=rf"^{tmp_path}: Permission denied; "), reporting_machine_limits():
        raise PermissionError(errno.EACCES, "Permission denied", str(tmp_path / ".new.json"))


def test_other_errors_of_the_system_pass():
    with pytest.raises(FileNotFoundError), reporting_machine_limits():
        raise FileNotFoundError(errno.ENOENT, "No such file or directory", "/there")
    with pytest.raises(PermissionError), reporting_machine_limits():  # of a socket or a process, say
        raise PermissionError(errno.EPERM, "Operation not permitted")
